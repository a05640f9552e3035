"""Deliveries beside a run: in another process, one at a time, and never waited for but at the end, for a while."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from msr_adapter.tracking.delivery import DeliveryReport, deliver
from msr_adapter.tracking.outbox import OutboxFolder, unsent
from msr_adapter.tracking.trackers import tracker_of

_LONGEST_S = 600.0
"""A delivery beside a run that takes longer hangs, and is ended."""
_LOOK_S = 0.2
SLOW = "it took longer than {seconds:.0f} s"


class Courier:
    """Sends what is in an outbox, from other processes."""

    def __init__(self, folder: OutboxFolder, kind: str) -> None:
        self._folder = folder
        self._environment = environment_of(kind)
        self._running: subprocess.Popen[str] | None = None
        self._sent = 0
        self._lock = threading.Lock()

    def start(self) -> DeliveryReport | None:
        """Start a delivery if there is something to send and none is under way.

        Return what became of the one before, if it has ended since the last call.
        """
        with self._lock:
            ended = self._collect()
            if self._running is None and _has_unsent(self._folder):
                self._running = self._spawn(_LONGEST_S)
            return ended

    def finish(self, seconds: float) -> DeliveryReport:
        """Send what is left, for ``seconds`` at most; return what became of it, and how much this courier sent."""
        deadline = time.monotonic() + seconds
        with self._lock:
            if self._running is not None:
                self._wait(deadline)
                self._collect()
            if not _has_unsent(self._folder):
                return DeliveryReport(self._sent, self._folder.sent().url)
            left = deadline - time.monotonic()
            if left > 0:
                self._running = self._spawn(left + 1)
                if self._wait(deadline) and (ended := self._collect()):
                    return replace(ended, sent=self._sent)
            self._end()
            return DeliveryReport(url=self._folder.sent().url, error=SLOW.format(seconds=seconds))

    def stop(self) -> None:
        """End a delivery that is under way: what it sent is noted."""
        with self._lock:
            self._end()

    def _spawn(self, seconds: float) -> "subprocess.Popen[str]":
        # -P: no folder of the caller's shadows a library. A session of its own: Ctrl-C reaches the run alone.
        command = [sys.executable, "-P", "-m", "msr_adapter.tracking", str(self._folder.root), str(seconds)]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=self._environment, start_new_session=True, text=True,
        )  # fmt: skip

    def _wait(self, deadline: float) -> bool:
        """Wait for the delivery under way; return whether it has ended, and end it if it has not."""
        assert self._running is not None
        try:
            self._running.wait(max(_LOOK_S, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._end()
            return False
        return True

    def _collect(self) -> DeliveryReport | None:
        """Return the report of a delivery that has ended."""
        if self._running is None or self._running.poll() is None:
            return None
        said, code = self._running.communicate()[0], self._running.returncode
        self._running = None
        try:
            told = DeliveryReport(**json.loads(said.strip().splitlines()[-1]))
        except (ValueError, TypeError, IndexError):
            return DeliveryReport(error=f"the sending process ended with {code} and said nothing")
        self._sent += told.sent
        return told

    def _end(self) -> None:
        if self._running is not None:
            self._running.kill()
            self._running.communicate()
            self._running = None


class Rounds:
    """Calls something from a thread, every so many seconds, until it is stopped."""

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self._ended = threading.Event()
        self._seconds, self._act = seconds, act
        self._thread = threading.Thread(target=self._go, name="msr tracking", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the rounds; the one under way is waited for."""
        self._ended.set()
        self._thread.join()

    def _go(self) -> None:
        while not self._ended.wait(self._seconds):
            self._act()


def environment_of(kind: str) -> dict[str, str]:
    """Return the environment of a sending process: the user's, and the patience that a tracker's client needs."""
    paths = os.pathsep.join(path for path in sys.path if path)  # it imports what this process can
    return {**tracker_of(kind).environment, **os.environ, "PYTHONPATH": paths}


def send_now(folder: OutboxFolder, seconds: float) -> DeliveryReport:
    """Send what an outbox has and was not sent, in another process, and wait for it."""
    outbox = folder.read()
    if outbox is None:
        return deliver(folder.root)
    return Courier(folder, str(outbox.tracker["kind"])).finish(seconds)


def _has_unsent(folder: OutboxFolder) -> bool:
    outbox = folder.read()
    return outbox is not None and bool(unsent(folder, outbox, folder.sent()))
