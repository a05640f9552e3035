"""A command on a small disk that is full at a chosen moment, and the same command once there is room again.

Run as a module in a mount namespace of its own: nothing outside it sees the disk, which goes with it.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from msr_adapter.files import file_digest
from msr_adapter.integrity import alterations
from msr_adapter.pipeline import STAGE_NAMES
from tests.support.end_to_end import command, environment
from tests.support.paths import ROOT
from tests.torture.kills import leftovers

NAMESPACES = (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"])
"""As root, and as anybody where user namespaces are allowed."""
SIZE = "1400m"
"""`msr check` wants 1 GB."""
MOST_SECONDS = 900
LOSS_PLOT = "training_loss.png"
"""LLaMA-Factory's, which shows what one attempt saw of a training."""


@dataclass(frozen=True)
class Point:
    """When the disk is full: what of a finished run is made again, and at which write."""

    name: str
    removed: tuple[str, ...]
    """Patterns of what is taken out of the finished run first."""
    at: str
    """A regular expression of the path: see `fills_the_disk`."""
    leave: int = 0
    """Bytes that are left then."""
    arguments: tuple[str, ...] = ("run", "small.yaml")


@dataclass
class Seen:
    """What became of it."""

    filled: bool
    code: int
    said: str
    half_written: list[str] = field(default_factory=list)
    """Stages in their place that are not whole, and files outside stages that are no JSON."""
    resumed: int = -1
    said_then: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)


def namespace() -> list[str] | None:
    """Return the command that gives a process mounts of its own; None where this machine allows none."""
    for prefix in NAMESPACES:
        with tempfile.TemporaryDirectory() as folder:
            mounting = [*prefix, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
            try:
                done = subprocess.run(mounting, capture_output=True, timeout=20, check=False)
            except (OSError, subprocess.TimeoutExpired):
                return None
            if done.returncode == 0:
                return prefix
    return None


def on_a_small_disk(prefix: list[str], finished: Path, point: Point) -> Seen:
    """Do all of this module in another process, on a copy of the ``finished`` folder; return what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        asked = json.dumps([folder, str(finished), asdict(point)])
        done = subprocess.run(
            [*prefix, sys.executable, "-m", "tests.torture.full_disk", asked], capture_output=True, text=True,
            cwd=ROOT, env=environment(), timeout=3 * MOST_SECONDS, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Seen(**json.loads(done.stdout))


def outputs(folder: Path) -> dict[str, str]:
    """Return the digests of what a folder with a run holds: tables, images, weights and what says no times."""
    found = [path for path in folder.rglob("*") if path.suffix in (".parquet", ".png", ".safetensors")]
    found += [folder / "run" / name for name in ("data/audit.json", "dataset/dataset_info.json")]
    ours = [path for path in found if not path.is_relative_to(folder / "run" / "cache") and path.name != LOSS_PLOT]
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in ours if path.is_file()}


def _msr(folder: Path, point: Point, more: dict[str, str]) -> tuple[int, str]:
    arguments = [*point.arguments, "--run-dir", "run", "--quiet"]
    env = {**environment(), "PYTHONPATH": str(ROOT), **more}
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, cwd=folder, env=env, timeout=MOST_SECONDS, check=False
    )
    return done.returncode, done.stderr


def _half_written(folder: Path) -> list[str]:
    run = folder / "run"
    stages = [run / stage for stage in STAGE_NAMES if (run / stage).exists()]
    wrong = [stage for stage in stages if alterations(stage, whole=True) or not _is_json(stage / "manifest.json")]
    kept = [path for path in (run / "pipeline.json", run / ".msr-run") if path.exists() and path.stat().st_size]
    return [path.name for path in (*wrong, *(path for path in kept if not _is_json(path)))]


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _look(disk: Path, finished: Path, point: Point) -> Seen:
    folder, filler = disk / "work", disk / "filler"
    shutil.copytree(finished, folder, symlinks=True)
    for pattern in point.removed:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    hook = {"MSR_FILL_AT": point.at, "MSR_FILLER": str(filler), "MSR_FILL_LEAVE": str(point.leave)}
    paths = os.pathsep.join([str(Path(__file__).parent / "fills_the_disk"), str(ROOT)])
    code, said = _msr(folder, point, {**hook, "PYTHONPATH": paths})
    seen = Seen(filler.exists(), code, said, _half_written(folder))
    filler.unlink(missing_ok=True)
    seen.resumed, seen.said_then = _msr(folder, point, {})
    seen.outputs, seen.left = outputs(folder), leftovers(folder)
    return seen


def _main(disk: str, finished: str, point: dict[str, Any]) -> None:
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk]
    subprocess.run(mounting, check=True, capture_output=True, timeout=20)
    made = Point(**{key: tuple(value) if isinstance(value, list) else value for key, value in point.items()})
    print(json.dumps(asdict(_look(Path(disk), Path(finished), made))))


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
