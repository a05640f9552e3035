"""Heuristics: scorers that know no preferences, for the audit of the data and the trivial baselines of the evaluation.

Arrays in, one float64 score per (example, candidate) pair out, larger = sooner recommended. Items are integer codes;
the pairs of example ``e`` are ``offsets[e]:offsets[e + 1]``, and its history is a slice in the same way. Only what
training may know is passed in as counts and log, so no scorer here can see a test target.

popularity       popularity and recency, from the log
repeats          what the user had before, most often first
title_overlap    titles as TF-IDF vectors, and their overlap with the history's
item_similarity  cosines of items over the users who interacted with them
near_duplicates  titles or summaries that are nearly the same
"""

from msr_adapter.heuristics.popularity import TrainingLog, has_timestamps, popularity, recency
from msr_adapter.heuristics.repeats import repeat_scores
from msr_adapter.heuristics.title_overlap import (
    TitleVectors,
    title_index,
    title_overlap,
    title_overlap_with_all,
    title_vectors,
)

__all__ = [
    "TitleVectors", "TrainingLog", "has_timestamps", "popularity", "recency", "repeat_scores", "title_index",
    "title_overlap", "title_overlap_with_all", "title_vectors",
]  # fmt: skip
