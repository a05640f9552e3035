"""Requests, completions, and the cache between them."""

from msr_adapter.generation.cache import CompletionCache
from msr_adapter.generation.chains import Chain, Start
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Follow, Image, Request, ends_there

__all__ = [
    "Answer",
    "Backend",
    "Chain",
    "Completion",
    "CompletionCache",
    "Failure",
    "Follow",
    "Image",
    "Request",
    "Start",
    "ends_there",
]
