"""A backend where the pipeline's `execution` says: in this process, in several, or on a Ray cluster."""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msr_adapter.backends import make_backend
from msr_adapter.config.schema import ExecutionConfig, ModelConfig
from msr_adapter.distributed.devices import environments, visible_gpus
from msr_adapter.distributed.local import Processes
from msr_adapter.distributed.messages import BackendRecipe
from msr_adapter.distributed.pool import Transport, WorkerPool
from msr_adapter.generation.request import Backend
from msr_adapter.llamafactory.weights import BASE, Weights, is_small

Note = Callable[[str], None]


@contextlib.contextmanager
def open_backend(
    execution: ExecutionConfig, model: ModelConfig, logs: Path, note: Note, weights: Weights = BASE
) -> Iterator[Backend]:
    """Yield the backend of ``model`` and ``weights`` (`make_backend`); its workers, if any, end with the block.

    Whatever goes through `CompletionCache.attempt`, `complete` or `converse` with it is spread over the workers, shard
    by shard; results do not depend on where it is computed. ``logs`` is a folder for what workers print; ``note`` is
    told of workers that had to be replaced. A server is asked by this process alone: it has workers of its own, and
    `server.concurrency` bounds what it is asked.
    """
    make = partial(make_backend, model, weights)
    backend = make()
    if model.backend == "server" or _is_this_process(execution):
        yield backend
        return
    with open_workers(execution, make, backend, logs, note, small=_is_small(model)) as workers:
        yield workers


@contextlib.contextmanager
def open_workers(
    execution: ExecutionConfig,
    make: Callable[[], Backend],
    backend: Backend,
    logs: Path,
    note: Note,
    *,
    small: bool = False,
) -> Iterator[WorkerPool]:
    """Yield workers that answer as ``backend`` does; each of them calls ``make``, which is picklable."""
    transport: Transport
    if execution.engine == "ray":
        from msr_adapter.distributed.ray import Cluster

        transport = Cluster(BackendRecipe.of(make, backend.identity, shared=True), execution, small=small)
    else:
        gpus = visible_gpus(os.environ) if execution.gpus_per_worker != 0 else []
        seats = environments(execution, gpus, os.environ, small=small)
        transport = Processes(BackendRecipe.of(make, backend.identity), seats, logs)
    workers = WorkerPool(transport, backend.identity, backend.label, note)
    try:
        yield workers
    finally:
        workers.close()


def _is_this_process(execution: ExecutionConfig) -> bool:
    return execution.engine == "local" and execution.workers == 1 and execution.gpus_per_worker is None


def _is_small(model: ModelConfig) -> bool:
    return model.backend == "huggingface" and is_small(model)
