"""Scoring many prompts with common prefixes: each prefix, and each image, is computed once.

prefix_cache     what one model shares, whether it can be trusted with that, and how prompts are scored by it
prompt_grouping  which prompts share which prefix: the grouping with the fewest tokens
runner           runs a plan: prefixes first, then what follows them
kv_cache         keys and values of prefixes, handed to the rows that continue them
forced_answers   likelihoods of answers behind their prompts
last_layer       the last decoder layer, which computes no more than what is read
batches          pieces of prompts as model inputs, with explicit positions
image_features   what the vision tower makes of an image, kept for all prompts that show it
batch_sizer      how many rows fit into one pass
compatibility    what can be told of a network without running it
"""
