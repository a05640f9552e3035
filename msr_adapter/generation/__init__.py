"""Requests, completions, and the cache between them.

request           what a model is asked and answers; the protocol of every backend
completion_cache  completions by request key, computed and committed shard by shard
completion_store  the SQLite file behind the cache, and its export
request_chains    requests of which each depends on the answer before it
request_shards    what is computed together, here or by a worker
scoring_stats     what scoring took, in tokens, images and passes
uncached          answers that nobody keeps
dry_run           a dry run that asks nobody
"""

from msr_adapter.generation.completion_cache import CompletionCache
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Follow, Image, Request, ends_there
from msr_adapter.generation.request_chains import Chain, Start

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
