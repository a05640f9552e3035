"""Runs `probe_script.py`: what a library says of itself, or how its import ends; never an exception."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from msr_adapter.doctor import probe_script
from msr_adapter.llamafactory.launcher import UNSET
from msr_adapter.system import cpu_count

_TIMEOUT_S = 300.0
_LAST_CHARACTERS = 200


def probe(name: str, *, timeout: float = _TIMEOUT_S) -> dict[str, Any]:
    """Return what `probe_script.py` found of library ``name``; ``{"error": ...}`` if it cannot be imported or dies."""
    # -P: the folder of the script, in which modules are called like anything, must not be searched for libraries.
    command = [sys.executable, "-P", probe_script.__file__, name]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout,
            # What the trainer would see of this environment.
            env={key: value for key, value in os.environ.items() if key not in UNSET}, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"error": f"the import did not end within {timeout:.0f} s"}
    answers = [line for line in done.stdout.splitlines() if line.startswith(probe_script.MARK)]
    if answers:
        found: dict[str, Any] = json.loads(answers[-1].removeprefix(probe_script.MARK))
        return found
    code, said = done.returncode, (done.stderr.strip().splitlines() or [""])[-1][-_LAST_CHARACTERS:]
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return {"error": f"the import {how}" + (f": {said}" if said else "")}


def probe_all(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Probe libraries side by side, as many at a time as this machine has cores, at most four."""
    names = list(names)
    with ThreadPoolExecutor(min(4, cpu_count())) as pool:
        return dict(zip(names, pool.map(probe, names), strict=True))
