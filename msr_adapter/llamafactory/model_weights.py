"""Where a model's files are, what identifies them, and what was trained on top of it; no weight is loaded.

A training that did not start from the base model alone leaves `origin.json` beside its model::

    {"full": folder or null, "adapters": [folder, ...], "stamps": [stamp of each, the full model first]}
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import ModelConfig, TrainConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import bundled_model, digest, path_stamp, write_json
from msr_adapter.integrity import require_unaltered

SMALL_WEIGHTS_BYTES = 200 * 2**20
"""Below this (about 50M float32 parameters) one CPU thread beats several."""

_WEIGHTS = ("*.safetensors", "*.bin")


def resolve_model(path: str) -> str:
    """Return the absolute folder of a bundled or local model, or ``path`` itself when it is a hub id."""
    local = bundled_model(path) or Path(path).expanduser()
    if local.is_dir():
        return str(local.resolve())
    if path.startswith(("/", "./", "../", "~")) or path.count("/") > 1 or bundled_model(path):
        raise UserError(
            Problem("", "model.path", f"{path} is not a folder", "a folder with config.json, or a hub id like Org/Name")
        )
    return path


def model_stamp(model: ModelConfig) -> object:
    """Identify weights, tokenizer, processor and adapter: content of local folders, or hub id and revision."""
    resolved = resolve_model(model.path)
    base = path_stamp(Path(resolved)) if Path(resolved).is_dir() else [resolved, model.revision]
    adapters = [trained_stamp(folder) for folder in own_adapters(model)]
    return [base, adapters] if adapters else base


def own_adapters(model: ModelConfig) -> tuple[Path, ...]:
    """Return the adapter that is part of the model itself, before anything is trained here."""
    return () if model.adapter is None else (model.adapter,)


def trained_stamp(folder: Path) -> str:
    """Identify an adapter or a full model by what decides its answers: weights and config, not logs or dates."""
    weights = sorted(path for pattern in _WEIGHTS for path in folder.glob(pattern))
    configs = [folder / name for name in ("adapter_config.json", "config.json") if (folder / name).is_file()]
    if not weights or not configs:
        raise UserError(
            Problem(str(folder), "", "no trained weights", "adapter_model.safetensors or model.safetensors")
        )
    return digest([[p.name, path_stamp(p)] for p in weights] + [[p.name, _settings(p)] for p in configs])


def is_small(model: ModelConfig) -> bool:
    """Tell whether the model's local weights are below `SMALL_WEIGHTS_BYTES`; a hub id is taken to be large."""
    folder = Path(resolve_model(model.path))
    sizes = [path.stat().st_size for pattern in _WEIGHTS for path in folder.glob(pattern)] if folder.is_dir() else []
    return bool(sizes) and sum(sizes) < SMALL_WEIGHTS_BYTES


def _settings(config: Path) -> dict[str, object]:
    """Return a config without the base model's path, lists sorted: two trainings alike have equal settings."""
    # PEFT writes its target modules from a set: their order changes from run to run and means nothing.
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        step = "Train or save it again"
        raise UserError(Problem(str(config), "", "not a JSON object: cut or damaged", "the saved file", step))
    return {key: sorted(map(str, value)) if isinstance(value, list) else value for key, value in values.items()
            if key != "base_model_name_or_path"}  # fmt: skip


STAGE = "train"
"""Folder of a run that holds what its training left."""
MODEL = "model"
"""Folder of a train stage that holds what LLaMA-Factory saved."""
ORIGIN = "origin.json"
VALUE_HEAD = "value_head.safetensors"
_ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Weights:
    """Trained weights, in the order in which they were trained and are loaded."""

    full: Path | None = None
    """Folder whose weights stand in for all of the base model's."""
    adapters: tuple[Path, ...] = ()
    """LoRA folders; each was trained with those before it merged into the model."""

    def then(self, folder: Path) -> "Weights":
        """Return these with what a training saved in ``folder`` on top; a full model replaces them all."""
        adds = (folder / _ADAPTER).is_file()
        return Weights(self.full, (*self.adapters, folder)) if adds else Weights(folder)

    @property
    def folders(self) -> tuple[Path, ...]:
        """All folders, the full model first."""
        return ((self.full,) if self.full else ()) + self.adapters

    @property
    def reward(self) -> bool:
        """Tell whether the last training made a reward model: it has a value head."""
        return bool(self.folders) and (self.folders[-1] / VALUE_HEAD).is_file()

    def stamps(self) -> list[str]:
        """Identify the weights, in order. Raises `UserError` for a folder without any."""
        return [trained_stamp(folder) for folder in self.folders]


BASE = Weights()
"""The base model as it is."""


def starting_weights(train: TrainConfig) -> Weights:
    """Return what the training starts from beyond `train.model`: what the run `train.start` made.

    Raises `UserError` if that is not there, or is not what it was.
    """
    return BASE if train.start is None else trained_weights(train.start / STAGE)


def write_origin(train_dir: Path, weights: Weights) -> None:
    """Write down what a training starts from; nothing for the base model as it is."""
    if weights != BASE:
        values = {"full": weights.full and str(weights.full), "adapters": [str(each) for each in weights.adapters]}
        write_json(train_dir / ORIGIN, {**values, "stamps": weights.stamps()})


def trained_weights(train_dir: Path) -> Weights:
    """Return what the finished training in ``train_dir`` made, with all it was trained on top of.

    Raises `UserError` if that is gone or is not what it was: the result would be another model than the trained one.
    """
    path = train_dir / ORIGIN
    if not (train_dir / MODEL).is_dir():
        raise UserError(Problem(str(train_dir), "", "no finished training here", "", "Run that pipeline first"))
    require_unaltered([train_dir])  # the weights themselves when they are loaded
    if not path.is_file():
        return BASE.then(train_dir / MODEL)
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    full, adapters = known["full"], tuple(Path(each) for each in known["adapters"])
    origin = Weights(Path(full) if full else None, adapters)
    step = "Train both again, the earlier one first"
    for folder, stamp in zip(origin.folders, known["stamps"], strict=True):
        if not folder.is_dir():
            raise UserError(Problem(str(folder), "", f"gone, but {train_dir} was trained on top of it", "", step))
        if trained_stamp(folder) != stamp:
            found = f"changed since {train_dir} was trained on top of it"
            raise UserError(Problem(str(folder), "", found, "", step))
    return origin.then(train_dir / MODEL)
