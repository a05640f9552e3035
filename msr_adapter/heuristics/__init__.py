"""Shortcuts: scorers that know nothing of taste, for the audit of the data and for the baselines of the evaluation.

Arrays in, one float64 score per (example, candidate) pair out, larger = sooner recommended. Items are integer codes;
the pairs of example ``e`` are ``offsets[e]:offsets[e + 1]``, and its history is a slice in the same way. Only what
training may know is passed in as counts and log, so no scorer here can see a test target.
"""

from msr_adapter.heuristics.popularity import has_clock, popularity, recency
from msr_adapter.heuristics.title_overlap import TitleVectors, title_overlap, title_vectors

__all__ = ["TitleVectors", "has_clock", "popularity", "recency", "title_overlap", "title_vectors"]
