"""A run that is killed at a random moment, resumed, and compared with an undisturbed one."""

import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from msr_adapter.files import file_digest
from tests.support.end_to_end import command, environment

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TARGETS = ("parent", "group", "worker")
_LEFT = ("*.tmp", ".*.partial", ".*.outdated", ".read-back-*")


@dataclass(frozen=True)
class Kill:
    """Who is killed, by what, and when."""

    target: str
    how: signal.Signals
    after_s: float


def draw(seed: int, longest_s: float) -> Kill:
    """Return a random kill within the seconds that a run takes."""
    random_one = random.Random(seed)
    return Kill(random_one.choice(TARGETS), random_one.choice(SIGNALS), random_one.uniform(0, longest_s))


def run(pipeline: Path, run_dir: Path) -> list[str]:
    """Return the command line of the scripted run."""
    return command("run", pipeline, "--run-dir", run_dir, "--quiet")


def killed(pipeline: Path, run_dir: Path, kill: Kill) -> int:
    """Start the run, kill it, and return its exit code when all its processes are gone."""
    process = subprocess.Popen(
        run(pipeline, run_dir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment(),
        start_new_session=True,
    )  # fmt: skip
    time.sleep(kill.after_s)
    try:
        children = psutil.Process(process.pid).children(recursive=True)
        if kill.target == "group":
            os.killpg(process.pid, kill.how)
        elif kill.target == "worker" and children:
            random.Random(kill.after_s).choice(children).send_signal(kill.how)
        else:
            process.send_signal(kill.how)
    except (ProcessLookupError, psutil.NoSuchProcess):  # it was done before
        children = []
    code = process.wait(timeout=300)
    psutil.wait_procs(children, timeout=30)
    return code


def resumed(pipeline: Path, run_dir: Path) -> int:
    """Run the same command to its end; return its exit code."""
    return subprocess.run(run(pipeline, run_dir), capture_output=True, env=environment(), timeout=300).returncode


def outputs(run_dir: Path) -> dict[str, str]:
    """Return the digest of every table, image and metrics file of a run."""
    found = (path for path in run_dir.rglob("*") if path.suffix in (".parquet", ".png", ".json"))
    kept = (path for path in found if path.name != "manifest.json" and path.parent != run_dir)
    return {path.relative_to(run_dir).as_posix(): file_digest(path) for path in kept}


def leftovers(run_dir: Path) -> list[str]:
    """Return what a killed process left and the next one did not remove."""
    return sorted(str(path) for pattern in _LEFT for path in run_dir.rglob(pattern))
