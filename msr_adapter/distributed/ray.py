"""Workers that are actors of a Ray cluster: one that runs already, or one on this machine for as long as we work."""

import asyncio
import contextlib
import logging
import os
import pickle
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import ExecutionConfig
from msr_adapter.distributed.devices import share_gpus, threads
from msr_adapter.distributed.worker import Worker
from msr_adapter.distributed.worker_messages import (
    BackendRecipe,
    Died,
    Done,
    Message,
    Raised,
    ShardAnswers,
    WorkerReady,
    node,
)
from msr_adapter.errors import StageError
from msr_adapter.generation.request import Answer
from msr_adapter.redaction import quoted

_WAIT_S = 1.0
_REACH_S = 10.0
_START_S = 600.0
"""How long the first worker may take: a cluster may have to add a machine for it."""
_STORE_BYTES = 200 * 2**20
"""Of our own cluster: shards of texts are small."""
_MAIL = -1
"""Stands for a slot: what comes from no actor's own call."""
_FOLDER = "msr-ray-"
_TOKEN = secrets.token_hex(32)
"""Key of the clusters that this process starts; their processes have it from their environment, and no file has it."""


class RayWorkers:
    """A `Transport`: one actor in each slot. Ray sees to devices; it restarts nothing, because `WorkerPool` does."""

    def __init__(self, recipe: BackendRecipe, execution: ExecutionConfig, *, small: bool) -> None:
        """Connect to the cluster at `execution.address`, or the one this process is connected to, or start one.

        Raises `StageError` if there is none, `UserError` if a cluster of our own has too few GPUs.
        """
        with contextlib.ExitStack() as undo:
            connect(execution, undo)
            import ray

            self._ray: Any = ray
            gpus = int(self._ray.cluster_resources().get("GPU", 0))
            if execution.address is None:
                share_gpus(execution.workers, execution.gpus_per_worker, [str(number) for number in range(gpus)])
            self._prepare(recipe, execution, gpus, small=small)
            self._leave = undo.pop_all()

    def _prepare(self, recipe: BackendRecipe, execution: ExecutionConfig, gpus: int, *, small: bool) -> None:
        """Decide how many actors there are, and what each of them gets."""
        self.slots = execution.workers
        each = float(bool(gpus)) if execution.gpus_per_worker is None else execution.gpus_per_worker
        # What one process would use; on other machines Ray's own rule stands, one thread for each CPU it was given.
        own = {} if execution.address or each else {"OMP_NUM_THREADS": str(threads(execution.workers))}
        environment = {"OMP_NUM_THREADS": "1"} if small else own
        self._environment = {key: os.environ.get(key, value) for key, value in environment.items()}
        self._paths = [path for path in sys.path if path] if execution.address is None else []
        self._recipe = pickle.dumps(recipe)
        self._options = {"num_cpus": 1, "num_gpus": each, "max_restarts": 0, "max_task_retries": 0}
        self._actors: dict[int, Any] = {}
        self._mail: Any = self._ray.remote(_Mail).options(num_cpus=0).remote()
        self._awaited: dict[Any, int] = {self._mail.take.remote(): _MAIL}
        """What Ray promised -> the slot that it comes from."""
        self._since: float | None = time.monotonic()

    def start(self, slot: int) -> None:
        """Start an actor; it waits for its resources."""
        made = self._ray.remote(_Actor).options(**self._options)
        actor: Any = made.remote(self._recipe, self._paths, self._environment, self._mail)
        self._actors[slot] = actor
        self._awaited[actor.ready.remote()] = slot

    def send(self, slot: int, number: int, payload: bytes) -> None:
        """Send the actor in a slot a shard."""
        self._awaited[self._actors[slot].work.remote(number, payload)] = slot

    def receive(self) -> list[tuple[int, Message]]:
        """Return what actors sent, at most a few messages."""
        done, _ = self._ray.wait(list(self._awaited), num_returns=1, timeout=_WAIT_S)
        messages: list[tuple[int, Message]] = []
        for promise in done:
            if (slot := self._awaited.pop(promise, None)) is None:
                continue  # of an actor that was removed
            if slot == _MAIL:
                messages += self._read_mail(promise)
                continue
            try:
                messages.append((slot, self._ray.get(promise)))
            except self._ray.exceptions.RayError as error:
                self._remove(slot)
                messages.append((slot, Died(_said(error))))
        self._watch(bool(messages))
        return messages

    def close(self) -> None:
        """End all actors, and the cluster if it is ours."""
        for slot in list(self._actors):
            self._remove(slot)
        with contextlib.suppress(Exception):  # it is dead, or will be with the cluster
            self._ray.kill(self._mail, no_restart=True)
        self._leave.close()

    def _read_mail(self, promise: Any) -> list[tuple[int, Message]]:
        """Return the answers that actors sent while their shards are under way, and wait for the next ones."""
        try:
            posted: list[ShardAnswers] = self._ray.get(promise)
        except self._ray.exceptions.RayError:
            return []  # its node is gone: answers come at the end of their shards
        self._awaited[self._mail.take.remote()] = _MAIL
        return [(_MAIL, message) for message in posted]

    def _remove(self, slot: int) -> None:
        self._awaited = {promise: other for promise, other in self._awaited.items() if other != slot}
        with contextlib.suppress(Exception):  # it is dead, or will be with the cluster
            self._ray.kill(self._actors.pop(slot), no_restart=True)

    def _watch(self, heard: bool) -> None:
        """Give up if no actor at all has started for too long."""
        if heard:
            self._since = None
        if self._since is not None and time.monotonic() - self._since > _START_S:
            there = {name: round(count, 1) for name, count in self._ray.cluster_resources().items()
                     if name in ("CPU", "GPU")}  # fmt: skip
            raise StageError(
                f"no Ray worker started in {_START_S / 60:.0f} minutes: each needs 1 CPU and "
                f"{self._options['num_gpus']:g} GPU, the cluster has {there}",
                "its nodes are busy, or too small", "look at `ray status`; set execution.gpus_per_worker",
            )  # fmt: skip


class _Mail:
    """Answers of shards under way, on their way to the driver: an actor's own call returns at the end of its shard."""

    def __init__(self) -> None:
        self._posted: asyncio.Queue[ShardAnswers] = asyncio.Queue()

    async def post(self, message: ShardAnswers) -> None:
        await self._posted.put(message)

    async def take(self) -> list[ShardAnswers]:
        """Return what was posted, as soon as there is something."""
        found = [await self._posted.get()]
        while not self._posted.empty():
            found.append(self._posted.get_nowait())
        return found


class _Actor:
    """What runs on the cluster. Everything is imported from the node's own installation."""

    def __init__(self, recipe: bytes, paths: Sequence[str], environment: Mapping[str, str], mail: Any) -> None:
        os.environ.update(environment)
        sys.path.extend(path for path in paths if path not in sys.path)
        self._worker = Worker(pickle.loads(recipe))
        self._mail = mail

    def ready(self) -> WorkerReady:
        return WorkerReady(node())

    def work(self, number: int, payload: bytes) -> Done | Raised:
        def keep(answers: Sequence[Answer]) -> None:
            self._mail.post.remote(ShardAnswers(number, answers))

        return self._worker.work(number, payload, lambda _: None, keep)


def connect(execution: ExecutionConfig, leave: contextlib.ExitStack) -> None:
    """Connect to the cluster at `execution.address`, or start one where there is none; ``leave`` gets what undoes it.

    Ray sends no usage statistics and prints next to nothing. Raises `StageError` if there is no cluster to be had.
    """
    _restore_environment(leave)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    if ray.is_initialized():
        return
    try:
        if execution.address is None:
            _start(execution.workers, leave)
        else:
            _require_listener(execution.address)
            ray.init(address=execution.address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise StageError(
            f"no Ray cluster {execution.address or 'on this machine'}: {_said(error)}",
            "it is not running, runs another version of Ray or Python, or asks for a token (RAY_AUTH_MODE=token)",
            "start it (`ray start --head`), correct execution.address, or set execution.engine=local",
        ) from error
    leave.callback(ray.shutdown)


def _start(workers: int, leave: contextlib.ExitStack) -> None:
    """Start a cluster on this machine alone: on loopback, and with a key that nobody else has."""
    import ray

    _remove_stale_folders()
    # Ray's sockets lie in this folder, and their paths must be short.
    folder = tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir="/tmp")
    leave.callback(shutil.rmtree, folder, ignore_errors=True)
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    if "RAY_AUTH_MODE" not in os.environ:  # without one here, Ray would write a token into the home folder
        os.environ["RAY_AUTH_TOKEN"] = _TOKEN
    ray.init(
        address="local", num_cpus=workers, object_store_memory=_STORE_BYTES, include_dashboard=False,
        _node_ip_address="127.0.0.1", _temp_dir=folder, log_to_driver=False, logging_level=logging.ERROR,
    )  # fmt: skip


def _restore_environment(leave: contextlib.ExitStack) -> None:
    """Have ``leave`` restore the RAY_ variables, which Ray and `connect` set: trainers would inherit them."""
    before = {name: value for name, value in os.environ.items() if name.startswith("RAY_")}

    def restore() -> None:
        for name in [name for name in os.environ if name.startswith("RAY_") and name not in before]:
            del os.environ[name]
        os.environ.update(before)

    leave.callback(restore)


def _remove_stale_folders() -> None:
    """Remove the folders of clusters whose drivers were killed."""
    for folder in Path("/tmp").glob(f"{_FOLDER}*"):
        driver = folder.name.removeprefix(_FOLDER).partition("-")[0]
        with contextlib.suppress(ValueError, PermissionError):
            try:
                os.kill(int(driver), 0)  # signal 0 only asks whether the process is there
            except ProcessLookupError:
                shutil.rmtree(folder, ignore_errors=True)


def _require_listener(address: str) -> None:
    """Raise `OSError` at once where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host:
        with socket.create_connection((host, int(port)), _REACH_S):
            pass


def _said(error: Exception) -> str:
    return quoted(error) or type(error).__name__
