"""Item images: found, decoded, shrunk to a budget of pixels and stored once each.

locate    where an item's image is; the index of downloaded images
decode    bytes -> an upright RGB image: formats and their traps
frames    the images that a file gives: one, or frames of a video or an animation
video     frames of a video
store     the run's image store, and what it reuses of earlier builds
several   all images of an item: of lists, columns, and files called as it is
near_files  files that are nearly called as an item
attach    gives each item its image, or what the policy for missing images says
download  `msr fetch-images`
"""
