"""Whether the files of a model folder are whole, from their headers; and one guard round everything that loads them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msr_adapter.errors import MsrError, StageError
from msr_adapter.files import read_json_object
from msr_adapter.filesystem import open_file
from msr_adapter.llamafactory.claimed_sizes import size_fault

WEIGHTS = ("*.safetensors", "*.bin")
_CONFIGS = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""What else is JSON, where it is there."""
_INDEX = "model.safetensors.index.json"
_LARGEST_HEADER = 100_000_000
"""Bytes; safetensors itself takes no more."""
_STEP = "check model.path; a local folder needs config.json, tokenizer.json, the weights, and a processor for images"


@contextmanager
def loading(what: str, model: str) -> Iterator[None]:
    """Turn what a library raises over a model's files into a `StageError` that names the model and the next step.

    A folder with numbers of which nothing could be made is refused first: libraries begin to make it.
    """
    if fault := size_fault(Path(model)):
        raise StageError(f"{what} of {model} cannot be loaded: {fault}", "a damaged config", _STEP)
    cause = "files in the folder are missing or damaged, the hub id does not exist, or there is no network"
    with _told(f"{what} of {model} cannot be loaded", model, cause):
        yield


@contextmanager
def first_answers(model: str) -> Iterator[None]:
    """Turn what a library raises over the first prompts of a model into a `StageError`, as `loading` does.

    Numbers and names in a config may load, and fit nothing only when they are used. What the disk says passes.
    """
    cause = "a config in the folder is damaged, or does not belong to its weights"
    with _told(f"{model} cannot answer a prompt", model, cause, OSError):
        yield


@contextmanager
def _told(what: str, model: str, cause: str, *passing: type[Exception]) -> Iterator[None]:
    passed: tuple[type[Exception], ...] = (MsrError, MemoryError, *passing)
    try:
        yield
    except passed:
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported for its sake
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" :")[:300]
        damaged = folder_faults(Path(model)) if Path(model).is_dir() else []
        cause = f"{model}: {'; '.join(damaged)}" if damaged else cause
        raise StageError(f"{what}: {first}", cause, _STEP) from error


def folder_faults(folder: Path) -> list[str]:
    """Return what is wrong with the files of a model folder; reads headers and small files, no weights."""
    faults = [_config_fault(folder / "config.json"), *_weight_faults(folder), size_fault(folder)]
    faults += [_json_fault(folder / name) for name in _CONFIGS]
    return [fault for fault in faults if fault]


def _config_fault(path: Path) -> str:
    if not path.is_file():
        return "no config.json in this folder"
    config = read_json_object(path)
    if not config:
        return "config.json is not a JSON object"
    if not isinstance(config.get("model_type", ""), str):
        return "model_type in config.json is not text"
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return "architectures in config.json is not a list of names"
    parts = [name for name in ("text_config", "vision_config") if not isinstance(config.get(name) or {}, dict)]
    return f"{parts[0]} in config.json is not a mapping" if parts else ""


def _json_fault(path: Path) -> str:
    return f"{path.name} is not a JSON object: cut or damaged" if path.is_file() and not read_json_object(path) else ""


def _weight_faults(folder: Path) -> list[str]:
    found = [path for pattern in WEIGHTS for path in sorted(folder.glob(pattern))]
    parts = read_json_object(folder / _INDEX).get("weight_map")
    listed = {str(name) for name in parts.values()} if isinstance(parts, dict) else set()
    missing = sorted(listed - {path.name for path in found})
    if missing:
        return [f"{missing[0]}, which {_INDEX} lists, is missing"]
    if not found:
        return [f"no weights in this folder ({' or '.join(WEIGHTS)})"]
    return [fault for path in found if path.suffix == ".safetensors" and (fault := safetensors_fault(path))]


def safetensors_fault(path: Path) -> str:
    """Say why a safetensors file cannot be whole: its header and its size disagree; empty when they agree."""
    try:
        size = path.stat().st_size
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _LARGEST_HEADER):
                return f"{path.name} is cut or not a safetensors file"
            header: Any = json.loads(file.read(length))
        ends = [int(one["data_offsets"][1]) for name, one in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError):
        return f"{path.name} is not a safetensors file"
    whole = 8 + length + max(ends, default=0)
    return "" if size == whole else f"{path.name} has {size:,} bytes, but its header asks for {whole:,}: cut or damaged"
