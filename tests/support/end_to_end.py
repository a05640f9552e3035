"""Helpers to run the real command line on a small generated shop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msr_adapter.pipeline import STAGE_NAMES

UNASKED = ("mine", "score-validation", "baselines", "truncate", "embed", "retrieve", "rerank", "rerank-base")
RAN = tuple(name for name in STAGE_NAMES if name not in UNASKED)
"""The stages of the small pipeline, which asks for no fitted baseline, cuts no preference and retrieves nothing."""
SMALL = """\
extends: demo
name: small
data:
  source: {kind: synthetic, users: 50, items: 60}
split: {train_targets: 2}
train: {max_steps: 4, batch_size: 8, checkpoint_steps: 2}
"""
SMALL_DPO = SMALL.replace("extends: demo\nname: small\n", "extends: demo-dpo\nname: small-dpo\n").replace(
    "train: {", "train: {start: run, "
)
"""What goes on from the small pipeline's run, in `run` beside it."""


def write_small_pipeline(folder: Path) -> Path:
    """Write a pipeline that runs every stage for real in about a minute; return its path."""
    path = folder / "small.yaml"
    path.write_text(SMALL)
    return path


def command(*arguments: str | Path) -> list[str]:
    """Return the command line of ``msr`` in this interpreter."""
    return [sys.executable, "-m", "msr_adapter", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return this environment with one thread per process."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def msr(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``msr`` to its end; ten minutes at most."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=cwd, env=environment(), timeout=600, check=False
    )


def msr_json(*arguments: str | Path, cwd: Path | None = None) -> dict[str, Any]:
    """Run ``msr ... --json`` and return what it printed; a failure shows its standard error."""
    done = msr(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def interrupt_in(
    stage: str, how: signal.Signals, *arguments: str | Path, when: Callable[[], bool] = lambda: True
) -> tuple[int, str]:
    """Start ``msr``, send ``how`` as soon as ``stage`` says it runs and ``when`` is true.

    Returns the exit code and standard error.
    """
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.split()[:2] == [stage, "running"]:
                while not when() and process.poll() is None:
                    time.sleep(0.02)
                process.send_signal(how)
                break
        else:
            raise AssertionError(f"{stage} never ran:\n{''.join(said)}")
        said.append(process.stderr.read())
        return process.wait(timeout=120), "".join(said)
