"""Pipelines and protocols as data."""
