"""The weights that a run builds on: adapters of its models."""

from importlib import metadata
from pathlib import Path

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.models import ModelRef
from msr_adapter.errors import Problem

_LEAST_BITSANDBYTES = (0, 46, 1)
"""What transformers 5.6 asks for."""


def check_weights(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for every adapter that is none, and for quantised models without the library."""
    problems = []
    for role, model in roles(loaded).items():
        problems += [*_check_adapter(loaded.where(f"{role}.adapter"), role, model.adapter)]
        if model.quantization != "none":
            problems += _check_library(loaded.where(f"{role}.quantization"), f"{role}.quantization")
    return problems


def roles(loaded: LoadedPipeline) -> dict[str, ModelRef]:
    """Return the models that this pipeline uses, by the key that names them."""
    summarize, train = loaded.pipeline.summarize, loaded.pipeline.train
    used: dict[str, ModelRef] = {"train.model": train.model}
    if summarize.items.mode != "none":
        used["summarize.items.model"] = summarize.items.model
    if summarize.users.mode != "none":
        used["summarize.users.model"] = summarize.users.model
    return used


def _check_adapter(where: str, role: str, folder: Path | None) -> list[Problem]:
    if folder is None:
        return []
    missing = next((name for name in ("adapter_config.json", "adapter_model.safetensors")
                    if not (folder / name).is_file()), None)  # fmt: skip
    if missing is None:
        return []
    found = f"{folder}: {f'no {missing} in this folder' if folder.is_dir() else 'no such folder'}"
    step = "Save the adapter there with save_pretrained, or correct the path"
    return [Problem(where, f"{role}.adapter", found, "a folder that PEFT or LLaMA-Factory saved", step)]


def _check_library(where: str, field: str) -> list[Problem]:
    try:
        found = metadata.version("bitsandbytes")
    except metadata.PackageNotFoundError:
        state = "bitsandbytes is not installed"
    else:
        if _numbers(found) >= _LEAST_BITSANDBYTES:
            return []
        state = f"bitsandbytes is version {found}"
    least = ".".join(map(str, _LEAST_BITSANDBYTES))
    step = "Run: pip install --upgrade bitsandbytes, or leave the weights as they are (none; method: lora)"
    return [Problem(where, field, state, f"weights in 4 or 8 bits need {least} or later", step)]


def _numbers(version: str) -> tuple[int, ...]:
    parts = (part for part in version.split("+")[0].split(".")[:3])
    return tuple(int(part) for part in parts if part.isdigit())
