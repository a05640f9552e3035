"""Requests, completions, and the cache between them."""

from msr_adapter.generation.cache import CompletionCache
from msr_adapter.generation.request import Backend, Completion, Image, Request

__all__ = ["Backend", "Completion", "CompletionCache", "Image", "Request"]
