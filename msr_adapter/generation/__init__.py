"""Requests, completions, and the cache between them."""

from msr_adapter.generation.cache import CompletionCache
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Image, Request

__all__ = ["Answer", "Backend", "Completion", "CompletionCache", "Failure", "Image", "Request"]
