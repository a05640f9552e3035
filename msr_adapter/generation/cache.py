"""Completions kept by request key, so that neither a second run nor a killed one computes anything twice."""
