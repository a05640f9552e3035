"""The folder a training works in until it is done: it outlives kills, and only the very same training continues it."""

import contextlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from msr_adapter.errors import Problem, raise_if_any
from msr_adapter.files import digest, file_digest, link, read_json_object, write_json
from msr_adapter.llamafactory.checkpoints import is_whole, lasting, settle, whole
from msr_adapter.llamafactory.launcher import Trained

_PATHS = ("model_name_or_path", "adapter_name_or_path", "dataset_dir", "media_dir", "output_dir")
_LIBRARIES = ("llamafactory", "transformers", "torch", "peft", "trl", "accelerate", "datasets")
_DIGESTS = "digests.json"
_NOTED = re.compile(r"(?:adapter_)?model.*\.safetensors(?:\.index\.json)?|value_head\.safetensors|adapter_config\.json|"
                    r"config\.json|trainer_state\.json|(?:optimizer|scheduler)\.pt|rng_state\.pth")  # fmt: skip
"""Files whose digests are noted: weights and what goes on from them. With several processes, theirs are others'."""
_LEFT = 16
"""Characters of a digest in a folder's name."""


@dataclass(frozen=True)
class WorkingDir:
    """One training's folder."""

    folder: Path

    @property
    def yaml(self) -> Path:
        """The trainer's settings; `train.log`, what it said, is beside it."""
        return self.folder / "train.yaml"

    @property
    def log(self) -> Path:
        """What the trainer said since it was last started."""
        return self.folder / "train.log"

    @property
    def model(self) -> Path:
        """The trainer's `output_dir`: checkpoints, and in the end the model."""
        return self.folder / "model"

    def settle(self, processes: int, *, anew: bool = False) -> int:
        """Make the folder ready for the trainer; return the step from which it goes on, 0 = the start.

        With ``anew``, checkpoints are removed first.
        """
        if anew:
            shutil.rmtree(self.model, ignore_errors=True)
        self.model.mkdir(parents=True, exist_ok=True)
        start = settle(self.model, processes)
        # A checkpoint that is made again need not be so to the byte: what is gone is forgotten.
        self._write_digests(self._digests())
        return start

    def note(self, folder: Path) -> None:
        """Note the digests of what a whole checkpoint, or the finished model, has: a training goes on from no other."""
        found = self._digests()
        for path in sorted(path for path in folder.iterdir() if _NOTED.fullmatch(path.name)):
            with contextlib.suppress(OSError):  # the trainer removes old checkpoints
                found[path.relative_to(self.folder).as_posix()] = file_digest(path)
        self._write_digests(found)

    def require_unaltered(self) -> None:
        """Raise `UserError` with every file of a checkpoint that is not as the trainer left it."""
        step = f"Restore it, or remove {self.folder} to train from the start"
        raise_if_any(
            Problem(str(self.folder / name), "", "changed by hand since the trainer wrote it", "", step)
            for name, digest_then in self._digests().items()
            if file_digest(self.folder / name) != digest_then
        )

    def _digests(self) -> dict[str, str]:
        """Return the digests that were noted, by path, of the files that are there yet."""
        found = read_json_object(self.folder / _DIGESTS)
        return {name: str(value) for name, value in found.items() if (self.folder / name).is_file()}

    def _write_digests(self, digests: Mapping[str, str]) -> None:
        if digests or (self.folder / _DIGESTS).exists():
            write_json(self.folder / _DIGESTS, digests)

    def done(self) -> Trained | None:
        """Return what was trained, if the trainer ended well and its weights are there; None: it must be started."""
        path = self.folder / "trained.json"
        found = read_json_object(path)
        trained = Trained(**found) if found.keys() == Trained.__dataclass_fields__.keys() else None
        return trained if trained and trained.steps in self.candidates(trained.steps) else None

    def finish(self, trained: Trained) -> None:
        """Note that the trainer ended well, and the digests of what it made."""
        self.note(self.model)
        write_json(self.folder / "trained.json", asdict(trained))

    def candidates(self, last: int) -> dict[int, Path]:
        """Return step -> folder of all weights there are after a training that ended at step ``last``."""
        return whole(self.model) | ({last: self.model} if is_whole(self.model, last) else {})

    def hand_over(self, out: Path, chosen: Path) -> int:
        """Put the weights in ``chosen`` and the trainer's words into ``out`` too; return the bytes that stay out.

        Files are shared where the disk allows it, and this folder stays: a kill before ``out`` is in its place loses
        nothing.
        """
        target = out / "model"
        for path in lasting(chosen):
            (kept := target / path.relative_to(chosen)).parent.mkdir(parents=True, exist_ok=True)
            link(path, kept)
        # The log and the plots lie beside the checkpoints, whichever of these is chosen.
        for path in lasting(self.model):
            if path.parent == self.model and not (target / path.name).exists():
                link(path, target / path.name)
        shutil.copy2(self.log, out / self.log.name)
        return _size(self.model) - _size(target)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def working_dir(root: Path, config: Mapping[str, object], processes: int, content: Sequence[object]) -> WorkingDir:
    """Return the folder under ``root`` of the training that ``config`` describes.

    Its name is a digest of all that decides the result: the trainer's settings without paths, the ``content`` behind
    them (rows, images, weights), processes, library versions. Another training never meets these checkpoints.
    """
    settings = {key: value for key, value in config.items() if key not in _PATHS}
    versions = [metadata.version(name) for name in _LIBRARIES]
    return WorkingDir(root / digest([settings, processes, list(content), versions])[:_LEFT])
