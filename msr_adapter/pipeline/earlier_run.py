"""An earlier run whose trained model is asked: the settings it was trained under, its folders, what identifies it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from msr_adapter.config.loader import LoadedPipeline, load_resolved
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.integrity import read_manifest, read_sealed
from msr_adapter.llamafactory.model_weights import STAGE, Weights, trained_weights
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.stage_context import prompts_of, stage_dirs
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import StageDirs


@dataclass(frozen=True)
class EarlierRun:
    """A run that has a trained model; nothing of it is written to."""

    loaded: LoadedPipeline
    """As it was when the model was trained."""
    folder: RunFolder

    @property
    def pipeline(self) -> PipelineConfig:
        """The settings that the model was trained under."""
        return self.loaded.pipeline

    @cached_property
    def dirs(self) -> StageDirs:
        """Folders of its stages."""
        return stage_dirs(self.pipeline, self.folder)

    @cached_property
    def prompts(self) -> Prompts:
        """What its model is asked with."""
        return prompts_of(self.pipeline)

    def weights(self) -> Weights:
        """Return what its training made. `UserError` where that is gone or is not what it was."""
        return trained_weights(self.dirs.train)

    def identity(self) -> list[object]:
        """Return what decides the model's answers about its own users, by content: weights, tables, wording."""
        stages = (self.dirs.data, self.dirs.items, self.dirs.user_summaries)
        made = [read_manifest(stage).get("output", "absent") for stage in stages]
        return [self.weights().stamps(), made, self.prompts.digest("recommend")]


def open_earlier(root: Path) -> EarlierRun:
    """Return the run in the folder ``root``. `UserError` where there is none, or none with a trained model."""
    if not root.is_dir():
        raise UserError(Problem(str(root), "", "no folder", "the folder of a run"))
    # Those of the training, which are sealed: the run's own are those of the latest command, whatever that made.
    settings = read_manifest(root / STAGE).get("settings") or read_sealed(root / "pipeline.json")
    known = {key: value for key, value in settings.items() if key != "run_dir"}
    if not known:
        raise UserError(Problem(str(root), "", "no run that says what it was made with", "the folder of a run"))
    earlier = EarlierRun(load_resolved(known, root / "pipeline.json", root), RunFolder(root))
    earlier.weights()
    return earlier
