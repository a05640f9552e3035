"""Requests, completions, and the cache between them.

request   what a model is asked and answers; the protocol of every backend
cache     completions by request key, computed and committed shard by shard
store     the SQLite file behind the cache, and its export
chains    requests of which each depends on the answer before it
shards    what is computed together, here or by a worker
stats     what scoring took, in tokens, images and passes
estimate  a dry run that asks nobody
"""

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
