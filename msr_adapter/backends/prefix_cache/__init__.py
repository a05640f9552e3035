"""Scoring many prompts that begin alike: what they share is computed once."""
