"""Negatives: the candidate lists that users are trained and tested on.

spec             how the lists of each split are made, from the config; what could not be given
pools            which items a negative of each kind may be, and which a user has seen
scored_items     items by falling scores: of a file, or of an earlier run's model
popularity_strata  strata of popularity, in which a target is like any other item
twinless         targets that popularity tells from any negatives, counted and left out
sampler          distinct draws without replacement, for many lists at once
candidates       draws the lists: a target each among its negatives
candidate_files  lists as files: exported, imported and checked
"""
