"""The command line: parses, calls the pipeline, prints. Starts without torch: stages are imported when they run."""

from msr_adapter.cli.app import app, main

__all__ = ["app", "main"]
