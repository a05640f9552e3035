"""Shards on several processes of this machine or on a Ray cluster: one model in each worker, results as in one process.

A stage that asks a model is distributed by using `open_backend` (in a stage function's caller: `Context.backend`) and
putting its requests through the completion cache. Nothing else is needed: the cache hands out shards, the workers
answer them, the cache commits them.
"""

from msr_adapter.execution.opening import open_backend, open_workers

__all__ = ["open_backend", "open_workers"]
