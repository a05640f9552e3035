"""`train.repeats`: the further trainings of a pipeline, each a run folder of its own below the run's.

run_dir/                   the first training, as without repeats
run_dir/trainings/2/ ...   the second and so on: what does not depend on the training is shared with the first
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.errors import Problem
from msr_adapter.seeded_random import hash_ids, keyed

TRAININGS = "trainings"


def training_seed(pipeline: PipelineConfig) -> int:
    """Return the seed of the training: `train.seed`, or the pipeline's."""
    return pipeline.seed if pipeline.train.seed is None else pipeline.train.seed


def repeat_seed(first: int, number: int) -> int:
    """Return the seed of training ``number`` (2, 3, ...) of one whose first has the seed ``first``: 32 bits of a hash.

    Not the next number: the trainings of two pipelines with neighbouring seeds would be the same.
    """
    return int(keyed(hash_ids([str(number)]), first, "training")[0] & np.uint64(2**32 - 1))


def training_seeds(pipeline: PipelineConfig) -> list[int]:
    """Return the seed of every training, in order."""
    first = training_seed(pipeline)
    return [first, *(repeat_seed(first, number) for number in range(2, pipeline.train.repeats + 1))]


def training_folder(root: Path, number: int) -> Path:
    """Return the run folder of training ``number``."""
    return root if number == 1 else root / TRAININGS / str(number)


def repeated(loaded: LoadedPipeline, number: int, cache: Path) -> LoadedPipeline:
    """Return the pipeline of training ``number``; its answers are kept in ``cache``, the run's own.

    An experiment tracker is told of the run alone, which has the means over all.
    """
    seed = repeat_seed(training_seed(loaded.pipeline), number)
    train = {"seed": seed, "repeats": 1}
    changes = {"train": loaded.pipeline.train.model_copy(update=train), "cache": cache, "tracking": None}
    resolved = {**loaded.resolved, "train": {**loaded.resolved["train"], **train}, "cache": str(cache),
                "tracking": None}  # fmt: skip
    pipeline = loaded.pipeline.model_copy(update=changes)
    return replace(loaded, pipeline=pipeline, run_dir=training_folder(loaded.run_dir, number), resolved=resolved)


def first_training(loaded: LoadedPipeline) -> LoadedPipeline:
    """Return the pipeline without its further trainings, for commands that use the first one's model alone."""
    train = loaded.pipeline.train.model_copy(update={"repeats": 1})
    return replace(loaded, pipeline=loaded.pipeline.model_copy(update={"train": train}))


def check_repeats(loaded: LoadedPipeline) -> list[Problem]:
    """Return what speaks against several trainings of this pipeline."""
    train, where = loaded.pipeline.train, loaded.where("train.repeats")
    if train.repeats == 1:
        return []
    found, said = list[Problem](), f"{train.repeats}, but "
    if loaded.pipeline.evaluate.scorer is not None:
        step = "Set evaluate.scorer: null, or train.repeats: 1"
        found.append(Problem(where, "train.repeats", f"{said}evaluate.scorer serves one trained model", "1", step))
    if train.launch.nodes > 1:
        step = "Set train.repeats: 1, run it with a train.seed and a --run-dir for each training, and compare these"
        told = f"{said}machines meet for one training (train.launch.nodes: {train.launch.nodes})"
        found.append(Problem(where, "train.repeats", told, "1 with several machines", step))
    return found


def repeat_notes(loaded: LoadedPipeline) -> list[str]:
    """Return what several trainings take, which is no problem but worth knowing."""
    repeats = loaded.pipeline.train.repeats
    if repeats == 1:
        return []
    told = f"train.repeats: {repeats}: the model is trained, and asked about the test users, {repeats} times"
    return [f"{told}; times and sizes told here are of the first one"]
