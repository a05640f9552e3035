"""What costly stages made under other settings: found again when these return, listed and deleted by `msr prune`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from msr_adapter.files import remove
from msr_adapter.integrity import alterations, read_sealed
from msr_adapter.pipeline.repeated_trainings import TRAININGS
from msr_adapter.pipeline.run_folder import PRUNED, Manifest, RunFolder, is_as_left, manifest_in
from msr_adapter.pipeline.stages import COSTLY, STAGES, Stage
from msr_adapter.run_folder_mark import is_run

_BESIDE = ("name", "run_dir", "cache", "execution", "tracking")
_UNREAD = {
    "items": ("train", "evaluate"), "users": ("train", "evaluate"), "train": ("evaluate",),
    "baselines": ("train", "summarize"),
}  # fmt: skip
"""Sections of the pipeline that a stage has nothing of but what they say of the candidate lists."""
_OF_THE_LISTS = ("train.negatives", "evaluate.protocol")
_NAMED = 3
_FINISHED = "%Y-%m-%dT%H:%M:%S%z"
_TO_THE_MINUTE = len("2030-01-01T00:00")


@dataclass(frozen=True)
class KeptStage:
    """One making of a stage that something else has taken the place of, or an unfinished training."""

    run: Path
    """The run folder."""
    stage: str
    folder: Path
    manifest: Manifest | None
    """None where it is unreadable, and for what is unfinished."""

    @property
    def made(self) -> float:
        """When it was finished, or last written to, in seconds since the epoch."""
        try:
            return datetime.strptime(self.manifest.finished, _FINISHED).timestamp() if self.manifest else self._written
        except ValueError:
            return self._written

    @property
    def _written(self) -> float:
        return max(path.lstat().st_mtime for path in (self.folder, *self.folder.rglob("*")))

    @property
    def size(self) -> int:
        """Bytes of its files; those that another run shares are counted, and stay there."""
        return sum(path.lstat().st_size for path in self.folder.rglob("*") if not path.is_dir())


def made_on(manifest: Manifest) -> str:
    """Return when a stage was finished, for people: to the minute."""
    return manifest.finished[:_TO_THE_MINUTE].replace("T", " ")


def kept_stages(folder: RunFolder, name: str) -> list[KeptStage]:
    """Return what is kept of a stage, the latest first; what msr did not put there is none of it."""
    found = [
        KeptStage(folder.root, name, path, manifest)
        for path in _folders(folder.kept(name))
        if (manifest := manifest_in(path, name)) is None or manifest.stage == name
    ]
    ours = [one for one in found if one.manifest or one.folder.name.startswith("unreadable")]
    return sorted(ours, key=lambda one: one.manifest.finished if one.manifest else "", reverse=True)


def find_kept(stage: Stage, folder: RunFolder, current: Mapping[str, str]) -> KeptStage | None:
    """Return what is kept of ``stage`` under the very same fingerprint: the one with the fewest failed requests."""
    same = [
        one
        for one in (kept_stages(folder, stage.name) if stage.costly else ())
        if one.manifest and dict(one.manifest.fingerprint) == dict(current) and _is_whole(one, stage, one.manifest)
    ]
    return min(same, key=lambda one: _failed(one.manifest), default=None)


def _is_whole(kept: KeptStage, stage: Stage, manifest: Manifest) -> bool:
    if manifest.files is None:  # an older version wrote no digests
        return is_as_left(kept.folder, stage.outputs, manifest)
    return not alterations(kept.folder, whole=False, name=stage.name)


def is_there(folder: RunFolder, name: str) -> bool:
    """Say whether a stage was made in a run folder, under whatever settings."""
    return folder.manifest(name) is not None or any(one.manifest for one in kept_stages(folder, name))


def changes(before: Mapping[str, Any], now: Mapping[str, Any], stage: str) -> list[str]:
    """Return which settings that ``stage`` may depend on differ, each as ``train.epochs: 2, now 3``."""
    unread = tuple(f"{section}." for section in _UNREAD.get(stage, ()))
    old, new = dict(_leaves(before)), dict(_leaves(now))
    return [
        f"{key}: {_shown(old.get(key))}, now {_shown(new.get(key))}"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and (key.startswith(_OF_THE_LISTS) or not key.startswith(unread))
        and key.partition(".")[0] not in _BESIDE
    ]  # fmt: skip


def shortly(found: list[str]) -> str:
    """Return the first of some changes, and how many more there are."""
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    return "; ".join(found[:_NAMED]) + more


# For `msr prune`.


def prunable(root: Path, *, unfinished: bool) -> list[KeptStage]:
    """Return what is kept in a run and in those of its ablation's variants; with ``unfinished``, stopped trainings too.

    In the order of the stages, the latest first.
    """
    found = []
    for run in runs_below(root):
        folder = RunFolder(run)
        for name in (stage.name for stage in STAGES if stage.name in COSTLY):
            found += kept_stages(folder, name)
            found += [KeptStage(run, name, path, None) for path in _folders(folder.unfinished(name)) if unfinished]
    return found


def runs_below(root: Path) -> list[Path]:
    """Return a run folder and those of the variants and the further trainings below it."""
    found = [root, *(path for path in _folders(root / "ablations") if is_run(path))]
    return [one for run in found for one in (run, *(path for path in _folders(run / TRAININGS) if is_run(path)))]


def differs(kept: KeptStage) -> str:
    """Say in what a kept stage differs from what its run asks for now."""
    manifest, present = kept.manifest, RunFolder(kept.run).manifest(kept.stage)
    if kept.folder.parent == RunFolder(kept.run).unfinished(kept.stage):
        return "unfinished: the same training would go on from here"
    if manifest is None:
        return "its manifest is unreadable: it is never found again"
    now = read_sealed(kept.run / "pipeline.json")
    if told := changes(manifest.settings, now, kept.stage) if manifest.settings and now else []:
        return shortly(told)
    theirs = present.fingerprint if present else {}
    parts = [part for part, value in sorted(manifest.fingerprint.items()) if present and theirs.get(part) != value]
    return f"the same settings; {', '.join(parts)} changed" if parts else "the same settings, made again"


def prune(kept: KeptStage) -> None:
    """Delete it; killed in between, the next run deletes the rest. The caller holds the run folder's lock."""
    gone = kept.folder.with_name(f".{kept.folder.name}{PRUNED}")
    remove(gone)
    kept.folder.rename(gone)
    remove(gone)


def _folders(place: Path) -> list[Path]:
    try:
        found = sorted(place.iterdir())
    except OSError:
        return []
    return [path for path in found if path.is_dir() and not path.is_symlink() and not path.name.startswith(".")]


def _failed(manifest: Manifest | None) -> int:
    return int(manifest.summary.get("failed", 0)) if manifest else 0


def _leaves(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _shown(value: object) -> str:
    return "unset" if value is None else str(value)
