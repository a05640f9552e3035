"""The runs of a folder, each in a line: what state it is in, when it changed, how large it is, what it reached."""

import os
from dataclasses import dataclass
from pathlib import Path

from msr_adapter.files import read_json_object
from msr_adapter.filesystem import files_below
from msr_adapter.pipeline.repeated_trainings import TRAININGS
from msr_adapter.pipeline.stages import STAGE_NAMES
from msr_adapter.run_folder_mark import MANIFEST, is_run
from msr_adapter.system import try_lock

_CHANGING = (".msr-run", "pipeline.json", "run.log")
"""Files of a run that every command on it changes."""


@dataclass(frozen=True)
class ListedRun:
    """One run folder."""

    name: str
    folder: str
    state: str
    """`running`, `finished`, `stages done: ...`, or `no stage done`."""
    changed: float
    """Seconds since 1970."""
    bytes: int
    metric: str | None
    """The protocol's primary metric; None before the evaluation, as all below."""
    mean: float | None
    """Of the trained model."""
    low: float | None
    high: float | None
    users: int | None
    trainings: int = 1
    """Trainings that have scored the test, or are done as far as the model (`train.repeats`)."""


def runs_in(folder: Path) -> list[ListedRun]:
    """Return the runs in a folder, or the folder itself if it is one; the latest first. `OSError` if it has none."""
    found = [folder] if is_run(folder) else [path for path in folder.iterdir() if path.is_dir() and is_run(path)]
    return sorted(map(_listed, found), key=lambda run: -run.changed)


def _listed(root: Path) -> ListedRun:
    done = [name for name in STAGE_NAMES if (root / name / MANIFEST).is_file()]
    manifests = [root / name / MANIFEST for name in done]
    changed = [path.stat().st_mtime for path in (*(root / name for name in _CHANGING), *manifests) if path.exists()]
    metrics = read_json_object(root / "evaluate" / "metrics.json")
    metric = metrics.get("primary")
    value = metrics.get("models", {}).get("trained", {}).get("metrics", {}).get(metric, {})
    if is_busy(root):
        state = "running"
    elif "evaluate" in done:
        state = "finished"
    else:
        state = f"stages done: {', '.join(done)}" if done else "no stage done"
    return ListedRun(
        root.name, str(root), state, max(changed, default=root.stat().st_mtime), _size(root), metric,
        value.get("mean"), value.get("low"), value.get("high"), metrics.get("users"), 1 + _further(root),
    )  # fmt: skip


def _further(root: Path) -> int:
    """Return how many further trainings of a run have a model."""
    return sum((one / "train" / MANIFEST).is_file() for one in (root / TRAININGS).glob("*"))


def is_busy(root: Path) -> bool:
    """Say whether a command of this machine is at work in a run folder."""
    try:
        handle = os.open(root / ".lock", os.O_RDWR)
    except OSError:
        return False
    try:
        # The lock is tried only where its process may live: trying it would refuse a command that begins just then.
        os.kill(int(os.pread(handle, 32, 0) or b"x"), 0)
        return not try_lock(handle)
    except (OSError, ValueError):
        return False
    finally:
        os.close(handle)


def _size(root: Path) -> int:
    """Return the bytes of all files, each once, whatever links lead to it."""
    sizes: dict[tuple[int, int], int] = {}
    for entry, _ in files_below(root):
        stat = entry.stat(follow_symlinks=False)
        sizes[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(sizes.values())
