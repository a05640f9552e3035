"""Runs `probe_script.py`: what libraries say of themselves, or how their import ends; never an exception."""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msr_adapter.doctor import probe_script
from msr_adapter.llamafactory.launcher import UNSET

_TIMEOUT_S = 300.0
_LAST_CHARACTERS = 200
_ALONE = ("llamafactory",)
"""What takes about as long as all others, which share torch: two processes end soonest."""

Found = dict[str, Any]


class Probes(Mapping[str, Found]):
    """What is found of each of some libraries, while they are probed: to look one up waits until it is known."""

    def __init__(self, names: Iterable[str], *, timeout: float = _TIMEOUT_S) -> None:
        """Begin to import them, side by side in two processes; ``timeout`` is that of each import, in seconds."""
        self._names = list(names)
        self._found: dict[str, Found] = {}
        self._known = threading.Condition()
        groups = [[name for name in self._names if (name in _ALONE) is alone] for alone in (True, False)]
        for group in filter(None, groups):
            threading.Thread(target=probe_each, args=(group, self._tell, timeout), daemon=True).start()

    def _tell(self, name: str, found: Found) -> None:
        with self._known:
            self._found[name] = found
            self._known.notify_all()

    def __getitem__(self, name: str) -> Found:
        if name not in self._names:
            raise KeyError(name)
        with self._known:
            while name not in self._found:
                self._known.wait()
            return self._found[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def probe(name: str, *, timeout: float = _TIMEOUT_S) -> Found:
    """Return what `probe_script.py` found of one library; ``{"error": ...}`` if it cannot be imported or dies."""
    found: list[Found] = []
    probe_each([name], lambda _, one: found.append(one), timeout)
    return found[0]


def probe_each(names: Sequence[str], tell: Callable[[str, Found], None], timeout: float = _TIMEOUT_S) -> None:
    """Import ``names`` one after the other in one process and ``tell`` of each as soon as it is known.

    Where one of them ends the process, or hangs, the rest get another.
    """
    left = list(names)
    while left:
        known = 0
        for name, found in zip(list(left), _process(left, timeout), strict=False):
            tell(name, found)
            known += 1
        del left[:known]


def _process(names: Sequence[str], timeout: float) -> Iterator[Found]:
    """Yield what is found of ``names`` in their order; of the one that ends the process, how, and then no more."""
    # -P: the folder of the script, in which modules are called like anything, must not be searched for libraries.
    command = [sys.executable, "-P", probe_script.__file__, *names]
    lines: queue.Queue[str | None] = queue.Queue()
    with tempfile.TemporaryFile() as errors, subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace",
        # What the trainer would see of this environment.
        env={key: value for key, value in os.environ.items() if key not in UNSET},
    ) as process:  # fmt: skip
        threading.Thread(target=_read, args=(process, lines), daemon=True).start()
        try:
            for _ in names:
                try:
                    line = lines.get(timeout=timeout)
                except queue.Empty:
                    yield {"error": f"the import did not finish within {timeout:.0f} s"}
                    return
                if line is None:
                    errors.seek(0)
                    yield {"error": _how(process.wait(), errors.read().decode(errors="replace"))}
                    return
                found: Found = json.loads(line.removeprefix(probe_script.MARK))
                yield found
        finally:
            process.kill()


def _read(process: "subprocess.Popen[str]", lines: "queue.Queue[str | None]") -> None:
    """Hand on the answers of a process as they come, None at its end."""
    for line in process.stdout or ():
        if line.startswith(probe_script.MARK):
            lines.put(line)
    lines.put(None)


def _how(code: int, printed: str) -> str:
    said = (printed.strip().splitlines() or [""])[-1][-_LAST_CHARACTERS:]
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"the import {how}" + (f": {said}" if said else "")


def probe_all(names: Iterable[str]) -> Mapping[str, Found]:
    """Begin to probe libraries and return what is found of them, each as soon as it is known."""
    return Probes(names)
