"""A backend where the pipeline's `execution` says: in this process, in several, or on a Ray cluster.

pool             the workers as one backend: hands out shards, replaces workers that die
local            worker processes of this machine
ray              workers on a Ray cluster
devices          the GPUs and CPU threads of each worker
worker_messages  what the driver and the workers send each other
worker           what a worker does, wherever it runs
worker_process   the program of a local worker process
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msr_adapter.backends import make_backend, make_explained
from msr_adapter.backends.vllm.backend import make_engine
from msr_adapter.backends.vllm.engine import EngineShare
from msr_adapter.backends.vllm.installed import TRANSFORMERS, choose
from msr_adapter.config.schema import ExecutionConfig, ModelConfig
from msr_adapter.distributed.devices import environments, visible_gpus
from msr_adapter.distributed.local import LocalWorkers
from msr_adapter.distributed.pool import Transport, WorkerPool
from msr_adapter.distributed.worker_messages import BackendRecipe
from msr_adapter.generation.request import Backend
from msr_adapter.llamafactory.model_weights import BASE, Weights, is_small

Note = Callable[[str], None]


@contextlib.contextmanager
def open_backend(
    execution: ExecutionConfig, model: ModelConfig, logs: Path, note: Note, weights: Weights = BASE
) -> Iterator[Backend]:
    """Yield the backend of ``model`` and ``weights`` (`make_backend`); its workers, if any, end with the block.

    Whatever goes through a `CompletionCache` with it is spread over the workers, shard by shard; results do not depend
    on where it is computed. ``logs`` is a folder for what workers print; ``note`` takes a line for each worker that had
    to be replaced, and for what `auto` stands for. A backend that does not spread (a server) is asked by this process
    alone, and one that is hosted by a worker in any case.
    """
    chosen = choose(model)
    if chosen.because:
        note(f"  backend auto: {chosen.model.backend} ({chosen.because})")
    model = chosen.model
    if model.backend_row.hosted:
        made = partial(make_engine, model, weights, engine_share(execution))
        # A reward model is answered by transformers, in this process as ever.
        model = model.model_copy(update={"backend": TRANSFORMERS}) if weights.reward else model
        if weights.reward:
            note("  transformers answers for a reward model: vLLM has no value head")
    else:
        made = partial(make_backend, model, weights)
    make = partial(make_explained, made, chosen.because) if chosen.because else made
    backend = make()
    # One local worker without a word on GPUs is this process: it needs no second interpreter, and sees every device.
    alone = execution.engine == "local" and execution.workers == 1 and execution.gpus_per_worker is None
    if (alone and not model.backend_row.hosted) or not model.backend_row.spreads:
        yield backend
        return
    small = model.backend_row.local and is_small(model)
    with open_workers(execution, make, backend, logs, note, small=small) as workers:
        yield workers


def engine_share(execution: ExecutionConfig) -> EngineShare:
    """Return what one worker's engine has of the GPUs: several of them, over which it is split, or a part of one."""
    each = execution.gpus_per_worker or 1.0
    return EngineShare(max(1, int(each)), min(each, 1.0))


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
    """Yield workers that answer as ``backend`` does; each of them calls ``make``, which is picklable.

    ``small`` models run best in one thread.
    """
    transport: Transport
    if execution.engine == "ray":
        # Ray is an extra: nobody else needs it installed.
        from msr_adapter.distributed.ray import RayWorkers

        transport = RayWorkers(BackendRecipe.of(make, backend.identity, shared=True), execution, small=small)
    else:
        gpus = visible_gpus(os.environ) if execution.gpus_per_worker != 0 else []
        slots = environments(execution, gpus, os.environ, small=small)
        transport = LocalWorkers(BackendRecipe.of(make, backend.identity), slots, logs)
    workers = WorkerPool(transport, backend, note)
    try:
        yield workers
    finally:
        workers.close()
