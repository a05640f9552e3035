"""Workers that are processes of this machine."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path

from msr_adapter.distributed import worker_process
from msr_adapter.distributed.worker_messages import BackendRecipe, Died, Message, WorkerReady

_WAIT_S = 1.0
_GRACE_S = 10.0
_TAIL = 3


@dataclass
class _Running:
    """A worker process and the pipe to it."""

    process: "subprocess.Popen[bytes]"
    pipe: "Connection[object, Message]"
    log: Path
    unsent: list[tuple[int, bytes]] = field(default_factory=list)
    """Shards that it is sent once it reads the pipe; a full pipe that nobody reads would block us."""
    ready: bool = False

    def flush(self) -> None:
        """Send the unsent shards, once the worker reads its pipe."""
        while self.ready and self.unsent:
            with contextlib.suppress(OSError):  # it is dead, which `receive` will report
                self.pipe.send(self.unsent[0])
            del self.unsent[0]

    def kill(self) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class LocalWorkers:
    """A `Transport`: one process in each slot, with its own environment (devices, threads) and log file.

    They die with this process, even by ``kill -9``: the kernel closes their pipes and, on Linux, ends them itself.
    """

    def __init__(self, recipe: BackendRecipe, environments: Sequence[Mapping[str, str]], logs: Path) -> None:
        """There is a slot for each of ``environments``; what workers print goes to ``logs``, a folder."""
        self.slots = len(environments)
        self._recipe, self._environments, self._logs = recipe, environments, logs
        self._workers: dict[int, _Running] = {}

    def start(self, slot: int) -> None:
        """Start a worker: a fresh interpreter, which imports what this one can."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"worker-{slot + 1}.log"
        ours, theirs = multiprocessing.Pipe()
        # `theirs` is closed here: while a copy of the worker's end is open, its death does not show at ours.
        with theirs, log.open("ab") as sink:
            # -P: no folder of the caller's shadows a library. A session of its own: Ctrl-C reaches us, and we end it.
            command = [sys.executable, "-P", worker_process.__file__, str(os.getpid()), str(theirs.fileno())]
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, pass_fds=[theirs.fileno()],
                env=dict(self._environments[slot]), start_new_session=True,
            )  # fmt: skip
        self._workers[slot] = _Running(process, ours, log)
        with contextlib.suppress(OSError):  # it is dead already, which `receive` will report
            ours.send([path for path in sys.path if path])
            ours.send(self._recipe)

    def send(self, slot: int, number: int, payload: bytes) -> None:
        """Send the worker in a slot a shard."""
        self._workers[slot].unsent.append((number, payload))
        self._workers[slot].flush()

    def receive(self) -> list[tuple[int, Message]]:
        """Return what workers sent, at most one message of each."""
        slots = {worker.pipe: slot for slot, worker in self._workers.items()}
        messages: list[tuple[int, Message]] = []
        for pipe in connection.wait(list(slots), _WAIT_S):
            assert isinstance(pipe, Connection)
            slot = slots[pipe]
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                message = Died(self._remove(slot))
            if isinstance(message, WorkerReady):
                self._workers[slot].ready = True
                self._workers[slot].flush()
            messages.append((slot, message))
        return messages

    def close(self) -> None:
        """Kill all workers; nobody is left to read what they have not sent."""
        for worker in self._workers.values():
            worker.kill()
        for worker in self._workers.values():
            worker.process.wait()
            worker.pipe.close()
        self._workers.clear()

    def _remove(self, slot: int) -> str:
        """Remove a dead worker from its slot; return why it died, as far as that can be known."""
        worker = self._workers.pop(slot)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(_GRACE_S)
        worker.kill()
        code = worker.process.wait()
        worker.pipe.close()
        if code == -signal.SIGKILL:
            return "killed (SIGKILL), by the kernel for want of memory unless somebody did it"
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        lines = worker.log.read_text(encoding="utf-8", errors="replace").split("\n")
        tail = " / ".join([line.strip() for line in lines if line.strip()][-_TAIL:])
        return f"{how}{f': {tail}' if tail else ''}; see {worker.log}"
