"""The run folder: one process at a time, stages that appear whole or not at all.

run_dir/
  .msr-run                says that the folder is a run's; holds the paths of the pipeline's files
  pipeline.json           the resolved config of the latest run
  run.log                 what was said, with times
  cache/completions.sqlite
  cache/images/           images shrunk by this or an earlier build of the data stage
  tracking/               what was, or is to be, sent to an experiment tracker: see `tracking.outbox`
  <stage>/manifest.json   written last: a manifest means done
  kept/<stage>/<fingerprint>/  what a costly stage made under other settings, until they return or `msr prune`
  .<stage>.partial/       a stage being written, or what a killed process left
  trainings/<n>/          a run folder for each further training of `train.repeats`
  .train.unfinished/      trainings under way, by content: where the next attempt goes on
"""

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from msr_adapter.errors import Problem, UserError
from msr_adapter.files import digest, link, path_stamp, remove, share, sweep, write_json
from msr_adapter.integrity import content_of, digests_of, read_manifest, seal_of
from msr_adapter.llamafactory.dataset_check import READ_BACK
from msr_adapter.run_folder_mark import FORMAT, MANIFEST, MARK, folder_problems, foreign_stage, is_own_stage
from msr_adapter.system import LockHeldError, locked

KEPT = "kept"
PRUNED = ".pruned"
"""What the name of a kept stage ends with while it is deleted."""
WORKING_DIR = "working_dir"
"""In a stage's summary: which of its unfinished work became the stage, and can go."""
_NAME = 16
"""Characters of a fingerprint's digest in a folder's name."""


@dataclass(frozen=True)
class Manifest:
    """What a finished stage says of itself."""

    stage: str
    fingerprint: Mapping[str, str]
    """Part -> digest: config, templates, sources, version and each upstream stage's output. All equal = up to date."""
    output: str
    """Digest of what later stages are made of: a rebuilt stage that left them the same leaves later ones up to date."""
    summary: Mapping[str, Any]
    seconds: float
    finished: str
    peak_bytes: int | None = None
    """Peak resident memory of the stage; None where it cannot be measured."""
    peak_gpu_bytes: int | None = None
    """Peak of the tensors that this process held on its GPUs; None without one."""
    whole: str = ""
    """Digest of all of its outputs, for the stages that show all of it; of a stage that tells no parts, nothing."""
    format: int = 1
    """`run_folder_mark.FORMAT` of the version that wrote the stage, or found it up to date."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The resolved pipeline that a costly stage was made under: what people tell its makings apart by."""
    files: Mapping[str, str] | None = field(default=None, compare=False)
    """Digest of every file that the stage wrote: see `integrity`; None where a version wrote none."""
    seal: str = field(default="", compare=False)
    """Digest of all else in this manifest."""


class RunFolder:
    """A run folder on disk; `locked` guards every write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def stage(self, name: str) -> Path:
        """Folder of a finished stage."""
        return self.root / name

    def claim(self) -> None:
        """Create the folder and mark it as a run's; `UserError` where somebody else's files are."""
        if problems := folder_problems(self.root):
            raise UserError(problems)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            (self.root / MARK).touch()
        except OSError as error:
            raise UserError(_not_writable(self.root, error)) from error

    def remember(self, files: Iterable[Path]) -> None:
        """Note in the mark from which YAML files the run was made: no command writes over them."""
        write_json(self.root / MARK, {"files": [str(path) for path in files]})

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and hold its lock; a second process gets a `UserError` that names the first.

        The lock is the kernel's and goes with the process, so a killed run never leaves it behind. A folder that is
        neither new, empty nor a run is left as it is: `UserError`.
        """
        self.claim()
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.root / ".lock"))
            except LockHeldError as error:
                found = f"in use by process {error.holder.strip() or 'unknown'}"
                step = "Wait for it to end, or choose another folder with --run-dir"
                raise UserError(Problem(str(self.root), "run_dir", found, "one process at a time", step)) from None
            except OSError as error:
                raise UserError(_not_writable(self.root, error)) from error
            yield

    def manifest(self, name: str) -> Manifest | None:
        """Return the manifest of a finished stage; None when it is absent, or not what a stage wrote there."""
        return manifest_in(self.stage(name), name)

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all finished stages, in the order they were finished."""
        found = [self.manifest(path.parent.name) for path in self.root.glob(f"[!.]*/{MANIFEST}")]
        return sorted((manifest for manifest in found if manifest), key=lambda manifest: manifest.finished)

    def failed(self, name: str) -> int:
        """Return how many requests of a finished stage had no answer, so that its policy had to make do without."""
        manifest = self.manifest(name)
        return int(manifest.summary.get("failed", 0)) if manifest else 0

    def sweep(self, stages: Iterable[str], costly: Collection[str] = ()) -> None:
        """Remove what a killed process left, of ``stages`` and of all commands; the caller holds the lock.

        A stage that was whole and on its way to its place is put there, or a ``costly`` one among those kept where
        another is in its place still. What can be gone on from stays.
        """
        for name in stages:
            partial, outdated = self._partial(name), self._outdated(name)
            if (partial / MANIFEST).is_file():  # written last: the stage is whole
                manifest = manifest_in(partial, name)
                if not os.path.lexists(self.stage(name)):
                    partial.rename(self.stage(name))
                elif name in costly:
                    self.keep(partial, name)
                if manifest:
                    self._clear_unfinished(manifest)
            if outdated.is_dir() and not os.path.lexists(self.stage(name)):  # killed between two renames
                outdated.rename(self.stage(name))
            remove(outdated)
            remove(partial)
            for place in (self.kept(name), self.unfinished(name)):
                for path in place.glob(f".*{PRUNED}"):
                    remove(path)
        for path in self.root.glob(f"{READ_BACK}*"):
            if path.is_dir() and not path.is_symlink():
                remove(path)
        trainings = [folder for name in stages if (folder := self.unfinished(name)).is_dir()]
        below = [folder for training in trainings for folder in training.rglob("*/") if not folder.is_symlink()]
        for folder in (
            self.root,
            self.root / "ablations",
            self.root / "trainings",
            self.root / "train-dry-run",
            *trainings,
            *below,
        ):
            sweep(folder, lambda target: True)

    def unfinished(self, name: str) -> Path:
        """Return the folder for what stage ``name`` can go on from after a kill; `publish` clears it."""
        return self.root / f".{name}.unfinished"

    def kept(self, name: str) -> Path:
        """Folder of what stage ``name`` made under other settings."""
        return self.root / KEPT / name

    def begin(self, name: str) -> Path:
        """Return an empty folder in which stage ``name`` is written."""
        if not is_own_stage(self.stage(name)):
            raise UserError(foreign_stage(self.stage(name)))
        for place in (self.root / KEPT, self.kept(name)):
            if os.path.lexists(place) and (place.is_symlink() or not place.is_dir()):
                raise UserError(foreign_stage(place))
        partial = self._partial(name)
        remove(partial)
        partial.mkdir(parents=True)
        return partial

    def discard(self, name: str) -> None:
        """Remove what was written of stage ``name`` since `begin`."""
        remove(self._partial(name))

    def publish(self, manifest: Manifest, *, keep: bool = False) -> Path | None:
        """Write the manifest into the partial folder, then put it in the stage's place by rename.

        With ``keep``, what was in its place is kept, unless it is the same; return where.
        """
        name, before = manifest.stage, self.manifest(manifest.stage)
        same = before and (before.fingerprint, before.output) == (manifest.fingerprint, manifest.output)
        share(self._partial(name))
        _write(manifest, self._partial(name))
        kept = self._put_in_place(name, keep=keep and not same)
        self._clear_unfinished(manifest)
        return kept

    def take_back(self, name: str, kept: Path, *, keep: bool) -> None:
        """Put what was ``kept`` of stage ``name`` in its place again; with ``keep``, what is there changes places."""
        partial = self.begin(name)
        partial.rmdir()
        kept.rename(partial)  # whole: wherever a kill comes, the next sweep knows what it is
        self._put_in_place(name, keep=keep)

    def keep(self, folder: Path, name: str) -> Path:
        """Move a whole ``folder`` of stage ``name`` among those kept, under its fingerprint; return where it is."""
        manifest, place = manifest_in(folder, name), self.kept(name)
        start = digest(dict(manifest.fingerprint))[:_NAME] if manifest else "unreadable"
        names = (start if number == 1 else f"{start}-{number}" for number in count(1))
        target = next(place / one for one in names if not os.path.lexists(place / one))
        place.mkdir(parents=True, exist_ok=True)
        folder.rename(target)
        return target

    def renew(self, name: str) -> None:
        """Note that a finished stage of an older version is what this version would make."""
        manifest = self.manifest(name)
        if manifest and manifest.format != FORMAT:
            _write(replace(manifest, format=FORMAT), self.stage(name))

    def adopt(self, name: str, donor: "RunFolder", *, keep: bool = False) -> None:
        """Take over a finished stage of another run: by hard links where the disk allows it, else by copying.

        Finished stages are never written to again, so that sharing their files is safe. With ``keep``, what was in its
        place is kept.
        """
        partial, source = self.begin(name), donor.stage(name)
        for path in sorted(source.rglob("*"), key=lambda path: (path == source / MANIFEST, path)):  # the manifest last
            target = partial / path.relative_to(source)
            if path.is_dir():
                target.mkdir()
            else:
                link(path, target)
        self._put_in_place(name, keep=keep)

    def _clear_unfinished(self, manifest: Manifest) -> None:
        """Remove the unfinished work that has become a whole stage; without a name for it, all of the stage's."""
        unfinished = self.unfinished(manifest.stage)
        remove(unfinished / str(manifest.summary.get(WORKING_DIR, "")))
        with contextlib.suppress(OSError):  # there is work under other settings, or there was none
            unfinished.rmdir()

    def _put_in_place(self, name: str, *, keep: bool) -> Path | None:
        """Rename the partial folder of a stage to its own name, over what was there.

        With ``keep``, what was there is kept aside; its new place is returned. `UserError` for others' files.
        """
        partial, final, outdated = self._partial(name), self.stage(name), self._outdated(name)
        if not is_own_stage(final):  # put there since `begin`
            raise UserError(foreign_stage(final))
        remove(outdated)
        # A folder cannot be renamed over one with files in it: two renames, and `sweep` mends a kill between them.
        kept = None
        if final.exists() and keep and any(final.iterdir()):
            kept = self.keep(final, name)
        elif final.exists():
            final.rename(outdated)
        partial.rename(final)
        remove(outdated)
        return kept

    def _partial(self, name: str) -> Path:
        return self.root / f".{name}.partial"

    def _outdated(self, name: str) -> Path:
        return self.root / f".{name}.outdated"


def manifest_in(folder: Path, stage: str) -> Manifest | None:
    """Return the manifest of ``stage`` in a folder of any name; None when it is absent, or not what the stage wrote."""
    found = read_manifest(folder, stage)
    try:
        return Manifest(**found) if _is_whole(found) else None
    except TypeError:  # other keys
        return None


def _write(manifest: Manifest, stage: Path) -> None:
    """Write ``manifest`` into the folder of a stage, with the digests of all files there."""
    told = json.loads(json.dumps({**asdict(manifest), "files": digests_of(stage)}))  # as it will be read
    write_json(stage / MANIFEST, {**told, "seal": seal_of(told)})


def _is_whole(found: Mapping[str, Any]) -> bool:
    """Say whether a manifest's values are of the types that they have to be; older ones have no seal."""
    texts, failed = [found.get(key) for key in ("output", "finished")], _failed(found.get("summary"))
    peaks = [found.get(key) for key in ("peak_bytes", "peak_gpu_bytes")]
    return (
        all(isinstance(text, str) for text in texts)
        and isinstance(found.get("fingerprint"), dict)
        and isinstance(failed, int)
        and isinstance(found.get("seconds"), int | float)
        and all(peak is None or isinstance(peak, int) for peak in peaks)
    )


def _failed(summary: object) -> object:
    return summary.get("failed", 0) if isinstance(summary, dict) else None


def output_digest(folder: Path, outputs: Iterable[str], content: Callable[[Path], str | None] = content_of) -> str:
    """Return the digest of a stage's ``outputs``, patterns relative to ``folder``; what was not written is left out.

    So is what has no ``content`` that counts.
    """
    found = sorted(path for pattern in outputs for path in folder.glob(pattern))
    told = [[path.relative_to(folder).as_posix(), content(path)] for path in found]
    return digest([one for one in told if one[1] is not None])


def is_as_left(folder: Path, outputs: tuple[str, ...], manifest: Manifest) -> bool:
    """Say whether the outputs of a stage of an older version, which wrote no digests of its files, are what it left.

    There, files over 64 MiB counted by the time of their writing.
    """
    return output_digest(folder, outputs, path_stamp) == manifest.output


def _not_writable(root: Path, error: OSError) -> Problem:
    return Problem(
        str(root), "run_dir", f"cannot be written ({error.strerror})", "a folder this user may write to",
        "Choose another with --run-dir",
    )  # fmt: skip
