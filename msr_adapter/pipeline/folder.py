"""The run folder: one process at a time, stages that appear whole or not at all.

run_dir/
  pipeline.json           the resolved config of the latest run
  run.log                 what was said, with times
  cache/completions.sqlite
  cache/images/           images shrunk by this or an earlier build of the data stage
  <stage>/manifest.json   written last: a manifest means done
  .<stage>.partial/       a stage being written, or what a killed process left
  .train.unfinished/      trainings under way, by content: where the next attempt goes on
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msr_adapter.errors import Problem, UserError
from msr_adapter.files import digest, link, path_stamp, write_json

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a finished stage says of itself."""

    stage: str
    fingerprint: Mapping[str, str]
    """Part -> digest: config, templates, sources, version and each upstream stage's output. All equal = up to date."""
    output: str
    """Digest of the files that later stages read: a rebuilt but identical stage leaves later ones up to date."""
    summary: Mapping[str, Any]
    seconds: float
    finished: str
    peak_bytes: int | None = None
    """Peak resident memory of the stage; None where it cannot be measured."""
    peak_gpu_bytes: int | None = None
    """Peak of the tensors that this process held on its GPUs; None without one."""


class RunFolder:
    """A run folder on disk; `locked` guards every write."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def stage(self, name: str) -> Path:
        """Folder of a finished stage."""
        return self.root / name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and hold its lock; a second process gets a `UserError` that names the first.

        The lock is the kernel's and goes with the process, so a killed run never leaves it behind.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(_not_writable(self.root, error)) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(_in_use(self.root, os.pread(handle, 32, 0).decode(errors="replace"))) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)

    def manifest(self, name: str) -> Manifest | None:
        """Return the manifest of a finished stage; None when it is absent or unreadable."""
        try:
            return Manifest(**json.loads((self.stage(name) / MANIFEST).read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, TypeError):
            return None

    def manifests(self) -> list[Manifest]:
        """Return the manifests of all finished stages, in the order they were finished."""
        found = [self.manifest(path.parent.name) for path in self.root.glob(f"[!.]*/{MANIFEST}")]
        return sorted((manifest for manifest in found if manifest), key=lambda manifest: manifest.finished)

    def failed(self, name: str) -> int:
        """Return how many requests of a finished stage had no answer, so that its policy had to make do without."""
        manifest = self.manifest(name)
        return int(manifest.summary.get("failed", 0)) if manifest else 0

    def unfinished(self, name: str) -> Path:
        """Folder for what stage ``name`` can go on from after a kill; it goes when the stage is in its place."""
        return self.root / f".{name}.unfinished"

    def begin(self, name: str) -> Path:
        """Return an empty folder in which stage ``name`` is written."""
        partial = self._partial(name)
        _remove(partial)
        partial.mkdir(parents=True)
        return partial

    def discard(self, name: str) -> None:
        """Remove what was written of stage ``name`` since `begin`."""
        _remove(self._partial(name))

    def publish(self, manifest: Manifest) -> None:
        """Write the manifest into the partial folder, then put it in the stage's place by rename."""
        write_json(self._partial(manifest.stage) / MANIFEST, asdict(manifest))
        self._put_in_place(manifest.stage)

    def adopt(self, name: str, donor: "RunFolder") -> None:
        """Take over a finished stage of another run: by hard links where the disk allows it, else by copying.

        Finished stages are never written to again, so that sharing their files is safe.
        """
        partial, source = self.begin(name), donor.stage(name)
        for path in sorted(source.rglob("*")):
            target = partial / path.relative_to(source)
            if path.is_dir():
                target.mkdir()
            else:
                link(path, target)
        self._put_in_place(name)

    def _put_in_place(self, name: str) -> None:
        partial, final, outdated = self._partial(name), self.stage(name), self.root / f".{name}.outdated"
        _remove(outdated)
        if final.exists():
            final.rename(outdated)
        partial.rename(final)
        _remove(outdated)
        _remove(self.unfinished(name))

    def _partial(self, name: str) -> Path:
        return self.root / f".{name}.partial"


def output_digest(folder: Path, outputs: tuple[str, ...]) -> str:
    """Digest of a stage's ``outputs``: files, folders or patterns, relative to it; what was not written is absent."""
    found = sorted(path for pattern in outputs for path in folder.glob(pattern))
    return digest([[path.relative_to(folder).as_posix(), path_stamp(path)] for path in found])


def _remove(path: Path) -> None:
    """Remove a folder, or a file that somebody put in its place."""
    if path.is_file() or path.is_symlink():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


def _not_writable(root: Path, error: OSError) -> Problem:
    return Problem(
        str(root), "run_dir", f"cannot be written ({error.strerror})", "a folder this user may write to",
        "Choose another with --run-dir",
    )  # fmt: skip


def _in_use(root: Path, owner: str) -> Problem:
    return Problem(
        str(root), "run_dir", f"in use by process {owner.strip() or 'unknown'}", "one process at a time",
        "Wait for it to end, or choose another folder with --run-dir",
    )  # fmt: skip
