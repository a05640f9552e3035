"""The fine-tuning itself: check, write the YAML, let LLaMA-Factory train, keep what is needed."""

import os
from pathlib import Path
from typing import Any

from msr_adapter.config.models import Train
from msr_adapter.errors import StageError
from msr_adapter.llamafactory.config import training_config, write_yaml
from msr_adapter.llamafactory.joining import MEETING, announced, join
from msr_adapter.llamafactory.launch import launch, prune
from msr_adapter.llamafactory.models import is_small
from msr_adapter.llamafactory.nodes import Place, by_hand, find_place
from msr_adapter.llamafactory.versions import require_versions
from msr_adapter.llamafactory.weights import MODEL, VALUE_HEAD, starting_weights, write_origin
from msr_adapter.progress import Reporter
from msr_adapter.train.preflight import preflight

YAML = "train.yaml"

_COMMENT = """\
Written by msr. The same training by hand: llamafactory-cli train {path}
Its result goes to output_dir, which must not hold a model yet."""


def train(train: Train, data_dir: Path, dataset_dir: Path, seed: int, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Train the recommender into ``out/model`` and return counts and losses; `train.log` and `train.yaml` beside it.

    Raises `UserError` before anything is trained, `StageError` when LLaMA-Factory fails or trains nothing.
    """
    require_versions()
    write_origin(out, starting_weights(train))
    place = training_place(train)
    checked = preflight(train, data_dir, dataset_dir, reporter)
    yaml, model_dir = out / YAML, out / MODEL
    _write(train, place, data_dir, dataset_dir, seed, yaml, model_dir)
    small = is_small(train.model)
    with announced(out.parent / MEETING, yaml, place):
        trained = launch(yaml, model_dir, method=train.method, small=small, place=place, reporter=reporter)
    if train.objective == "reward" and not (model_dir / VALUE_HEAD).is_file():
        raise StageError(f"LLaMA-Factory ended without an error, but saved no {VALUE_HEAD} ({model_dir})")
    freed = prune(model_dir)
    # ``out`` gets another name when the stage is done: the YAML that stays must not point into it.
    _write(train, place, data_dir, dataset_dir, seed, yaml, out.parent / "trained-by-hand")
    return {
        **checked, "steps": trained.steps, "first_loss": trained.first_loss, "last_loss": trained.last_loss,
        "mean_loss": trained.mean_loss, "validation_loss": trained.eval_loss, "pruned_bytes": freed,
    }  # fmt: skip


def write_training_yaml(
    train: Train, data_dir: Path, dataset_dir: Path, seed: int, out: Path, reporter: Reporter | None = None
) -> Path:
    """Check the rows as `train` does, write ``out/train.yaml`` and return its path; trains nothing.

    `commands_by_hand` has the commands that take the file as it is and write ``out/model``.
    """
    require_versions()
    place = first_place(train)
    preflight(train, data_dir, dataset_dir, reporter or Reporter(quiet=True))
    _write(train, place, data_dir, dataset_dir, seed, out / YAML, out / MODEL)
    return out / YAML


def commands_by_hand(train: Train, yaml: Path) -> list[str]:
    """Return the shell commands that train ``yaml`` without msr: one for each machine, in their order."""
    return by_hand(first_place(train), yaml)


def first_place(train: Train) -> Place:
    """Return the first machine's place, on a machine that is like it."""
    import torch

    return find_place(train.launch, {**os.environ, "NODE_RANK": "0"}, torch.cuda.device_count())


def join_training(train: Train, run_dir: Path, reporter: Reporter) -> bool:
    """Train beside the first machine in ``run_dir`` and return True; False on the first one, which does all else."""
    if train.launch.nodes == 1 or (place := training_place(train)).rank == 0:
        return False
    join(run_dir, place, train.launch.wait, small=is_small(train.model), reporter=reporter)
    return True


def training_place(train: Train) -> Place:
    """Return this machine's part in the training; imports torch. Raises `UserError` where it has none."""
    import torch

    return find_place(train.launch, os.environ, torch.cuda.device_count())


def _write(
    train: Train, place: Place, data_dir: Path, dataset_dir: Path, seed: int, yaml: Path, output_dir: Path
) -> None:
    config = training_config(train, data_dir, dataset_dir, output_dir, seed, cuda=place.gpus > 0, world=place.world)
    write_yaml(yaml, config, _COMMENT.format(path=yaml.name))
