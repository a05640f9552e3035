"""Where a model's files are, and what identifies them; answered without loading a weight."""

import difflib
import json
from pathlib import Path
from typing import Any

from msr_adapter.config.models import ModelRef
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import bundled_model, digest, path_stamp

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


def model_stamp(model: ModelRef) -> Any:
    """Identify weights, tokenizer, processor and adapter: content of local folders, or hub id and revision."""
    resolved = resolve_model(model.path)
    base = path_stamp(Path(resolved)) if Path(resolved).is_dir() else [resolved, model.revision]
    adapters = [trained_stamp(folder) for folder in own_adapters(model)]
    return [base, adapters] if adapters else base


def own_adapters(model: ModelRef) -> tuple[Path, ...]:
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


def is_small(model: ModelRef) -> bool:
    """Tell whether the model's local weights are below `SMALL_WEIGHTS_BYTES`; a hub id is taken to be large."""
    folder = Path(resolve_model(model.path))
    sizes = [path.stat().st_size for pattern in _WEIGHTS for path in folder.glob(pattern)] if folder.is_dir() else []
    return bool(sizes) and sum(sizes) < SMALL_WEIGHTS_BYTES


def unknown_template(name: str, known: list[str]) -> UserError:
    """Return the error for a template name LLaMA-Factory does not have, with the nearest names."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return UserError(
        Problem("", "model.template", f"unknown template {name!r}", f"did you mean {' or '.join(near)}" if near else "")
    )


def _settings(config: Path) -> dict[str, Any]:
    # PEFT writes its target modules from a set: their order changes from run to run and means nothing.
    values = json.loads(config.read_text(encoding="utf-8"))
    return {key: sorted(map(str, value)) if isinstance(value, list) else value for key, value in values.items()
            if key != "base_model_name_or_path"}  # fmt: skip
