"""The fine-tuning itself: check, write the YAML, let LLaMA-Factory train, keep what is needed."""

from pathlib import Path
from typing import Any

from msr_adapter.config.models import Train
from msr_adapter.llamafactory.config import training_config, write_yaml
from msr_adapter.llamafactory.launch import launch, prune
from msr_adapter.llamafactory.models import is_small
from msr_adapter.llamafactory.versions import require_versions
from msr_adapter.progress import Reporter
from msr_adapter.train.preflight import preflight

YAML = "train.yaml"
MODEL = "model"

_COMMENT = """\
Written by msr. The same training by hand: llamafactory-cli train {path}
Its result goes to output_dir, which must not hold a model yet."""


def train(train: Train, data_dir: Path, dataset_dir: Path, seed: int, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Train the recommender into ``out/model`` and return counts and losses; `train.log` and `train.yaml` beside it.

    Raises `UserError` before anything is trained, `StageError` when LLaMA-Factory fails or trains nothing.
    """
    require_versions()
    checked = preflight(train, data_dir, dataset_dir, reporter)
    yaml, model_dir = out / YAML, out / MODEL
    _write(train, data_dir, dataset_dir, seed, yaml, model_dir)
    small = is_small(train.model)
    trained = launch(yaml, model_dir, method=train.method, small=small, reporter=reporter)
    freed = prune(model_dir)
    # ``out`` gets another name when the stage is done: the YAML that stays must not point into it.
    _write(train, data_dir, dataset_dir, seed, yaml, out.parent / "trained-by-hand")
    return {
        **checked, "steps": trained.steps, "first_loss": trained.first_loss, "last_loss": trained.last_loss,
        "mean_loss": trained.mean_loss, "validation_loss": trained.eval_loss, "pruned_bytes": freed,
    }  # fmt: skip


def write_training_yaml(
    train: Train, data_dir: Path, dataset_dir: Path, seed: int, out: Path, reporter: Reporter | None = None
) -> Path:
    """Check the rows as `train` does, write ``out/train.yaml`` and return its path; trains nothing.

    ``llamafactory-cli train`` accepts the file as it is and writes ``out/model``.
    """
    require_versions()
    preflight(train, data_dir, dataset_dir, reporter or Reporter(quiet=True))
    _write(train, data_dir, dataset_dir, seed, out / YAML, out / MODEL)
    return out / YAML


def _write(train: Train, data_dir: Path, dataset_dir: Path, seed: int, yaml: Path, output_dir: Path) -> None:
    import torch

    config = training_config(train, data_dir, dataset_dir, output_dir, seed, cuda=torch.cuda.is_available())
    write_yaml(yaml, config, _COMMENT.format(path=yaml.name))
