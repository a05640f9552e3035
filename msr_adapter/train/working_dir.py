"""The folder a training works in until it is done: it outlives kills, and only the very same training continues it."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from msr_adapter.files import digest, link, read_json_object, write_json
from msr_adapter.llamafactory.checkpoints import is_whole, lasting, settle, whole
from msr_adapter.llamafactory.launcher import Trained

_PATHS = ("model_name_or_path", "adapter_name_or_path", "dataset_dir", "media_dir", "output_dir")
_LIBRARIES = ("llamafactory", "transformers", "torch", "peft", "trl", "accelerate", "datasets")
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
        return settle(self.model, processes)

    def done(self) -> Trained | None:
        """Return what was trained, if the trainer ended well and its weights are there; None: it must be started."""
        path = self.folder / "trained.json"
        found = read_json_object(path)
        trained = Trained(**found) if found.keys() == Trained.__dataclass_fields__.keys() else None
        return trained if trained and trained.steps in self.candidates(trained.steps) else None

    def finish(self, trained: Trained) -> None:
        """Note that the trainer ended well."""
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
