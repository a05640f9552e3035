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
from msr_adapter.distributed.messages import BackendRecipe, Died, Message, WorkerReady

_WAIT_S = 1.0
_GRACE_S = 10.0
_TAIL = 3


@dataclass
class _Seat:
    process: "subprocess.Popen[bytes]"
    line: "Connection[object, Message]"
    log: Path
    unsent: list[tuple[int, bytes]] = field(default_factory=list)
    """What it will be told once it listens; a pipe that nobody reads would block us."""
    ready: bool = False


class Processes:
    """A `Transport`: one process in each seat, each with its own environment (devices, threads) and log file.

    They die with this process, even by ``kill -9``: the kernel closes their line and, on Linux, ends them itself.
    """

    def __init__(self, recipe: BackendRecipe, environments: Sequence[Mapping[str, str]], logs: Path) -> None:
        """``environments`` are those of the seats; what workers print goes to ``logs``, a folder."""
        self.seats = len(environments)
        self._recipe, self._environments, self._logs = recipe, environments, logs
        self._taken: dict[int, _Seat] = {}

    def start(self, seat: int) -> None:
        """Begin a worker: a fresh interpreter, which imports what this one can."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"worker-{seat + 1}.log"
        ours, theirs = multiprocessing.Pipe()
        with theirs, log.open("ab") as sink:
            # -P: no folder of the caller's shadows a library. A session of its own: Ctrl-C reaches us, and we end it.
            command = [sys.executable, "-P", worker_process.__file__, str(os.getpid()), str(theirs.fileno())]
            started = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, pass_fds=[theirs.fileno()],
                env=dict(self._environments[seat]), start_new_session=True,
            )  # fmt: skip
        self._taken[seat] = _Seat(started, ours, log)
        with contextlib.suppress(OSError):  # it is dead already, which `news` will tell
            ours.send([path for path in sys.path if path])
            ours.send(self._recipe)

    def give(self, seat: int, number: int, payload: bytes) -> None:
        """Give the worker of a seat a shard."""
        self._taken[seat].unsent.append((number, payload))
        self._send(self._taken[seat])

    def news(self) -> list[tuple[int, Message]]:
        """Return what workers told, at most one message of each."""
        lines = {taken.line: seat for seat, taken in self._taken.items()}
        told: list[tuple[int, Message]] = []
        for line in connection.wait(list(lines), _WAIT_S):
            assert isinstance(line, Connection)
            seat = lines[line]
            try:
                message = line.recv()
            except (EOFError, OSError):
                message = Died(self._bury(seat))
            if isinstance(message, WorkerReady):
                self._taken[seat].ready = True
                self._send(self._taken[seat])
            told.append((seat, message))
        return told

    def close(self) -> None:
        """Kill all workers: what they have not told is lost in any case."""
        for taken in self._taken.values():
            _kill(taken)
        for taken in self._taken.values():
            taken.process.wait()
            taken.line.close()
        self._taken.clear()

    def _send(self, taken: _Seat) -> None:
        while taken.ready and taken.unsent:
            with contextlib.suppress(OSError):  # it is dead, which `news` will tell
                taken.line.send(taken.unsent[0])
            del taken.unsent[0]

    def _bury(self, seat: int) -> str:
        """Remove a dead worker from its seat; return why it died, as far as that can be known."""
        taken = self._taken.pop(seat)
        with contextlib.suppress(subprocess.TimeoutExpired):
            taken.process.wait(_GRACE_S)
        _kill(taken)
        code = taken.process.wait()
        taken.line.close()
        if code == -signal.SIGKILL:
            return "killed (SIGKILL), by the kernel for want of memory unless somebody did it"
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        said = taken.log.read_text(encoding="utf-8", errors="replace").split("\n")
        tail = " / ".join([line.strip() for line in said if line.strip()][-_TAIL:])
        return f"{how}{f': {tail}' if tail else ''}; see {taken.log}"


def _kill(taken: _Seat) -> None:
    if taken.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(taken.process.pid, signal.SIGKILL)
