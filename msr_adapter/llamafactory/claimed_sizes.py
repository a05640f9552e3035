"""Sizes that a config claims, compared with the weights beside it before anything of that size is made.

A damaged config is read as it stands: one that lost a section describes a library's largest model, of 70 billion
values, which transformers lays out, fills at random where the files have nothing, and only then calls missing; one
with 10^12 layers is counted through layer by layer. The headers of the weights say in milliseconds what there is.
"""

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from msr_adapter.errors import Problem, UserError
from msr_adapter.files import read_json_object
from msr_adapter.filesystem import open_file

_LAYERS = re.compile(r"(?:n|num)_(?:\w+_)?layers?|depth")
"""Keys of counts: no model has more of these than tensors."""
_LARGEST_IMAGE = {"min_pixels": 2**28, "shortest_edge": 2**28, "height": 2**16, "width": 2**16}
"""Sizes to which an image processor enlarges every image, beyond what any asks for; Qwen's edges are pixels too."""
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_TIMES = 4
"""How many more values a model may have than its files: shared embeddings are laid out up to four times."""
_QUANTISED_TIMES = 8
"""The same for each byte, where weights are packed: a quarter of a byte for one, laid out twice."""
_ALWAYS = 2**20
"""Values that any model may have."""
_BUFFERS = 2**28
"""Values beyond the files that masks and tables of positions may have, which no file holds."""
_STEP = "Restore the config.json that came with the weights, or download the model again"


@dataclass(frozen=True)
class Held:
    """What the safetensors files of a folder hold, from their headers."""

    tensors: int
    values: int
    bytes: int
    longest: int
    """The largest dimension of a tensor."""


def held(folder: Path) -> Held | None:
    """Return what is in a folder's safetensors files; None without any, or where a header cannot be read."""
    shapes: list[list[int]] = []
    size = 0
    try:
        for path in sorted(folder.glob("*.safetensors")):
            size += path.stat().st_size
            shapes += [[int(one) for one in entry["shape"]] for entry in _header(path).values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not shapes:
        return None
    longest = max((max(shape, default=1) for shape in shapes), default=1)
    return Held(len(shapes), sum(prod(shape) for shape in shapes), size, longest)


def _header(path: Path) -> Mapping[str, Any]:
    with open_file(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > path.stat().st_size:
            raise ValueError
        header = json.loads(file.read(length))
    return {name: entry for name, entry in header.items() if name != "__metadata__"}


def size_fault(folder: Path) -> str:
    """Say which number in the configs of a model folder nothing could be made of; empty where there is none."""
    return _layer_fault(folder) or next(filter(None, (_image_fault(folder / name) for name in _PROCESSORS)), "")


def _image_fault(config: Path) -> str:
    for key, value in _numbers(read_json_object(config)):
        if value > _LARGEST_IMAGE.get(key, value):
            return f"{key} in {config.name} is {_shown(value)}: every image would be enlarged to that"
    return ""


def _layer_fault(folder: Path) -> str:
    """Say which count of layers in `config.json` the weights beside it cannot have."""
    found = held(folder)
    if found is None:
        return ""
    for key, value in _numbers(read_json_object(folder / "config.json")):
        if _LAYERS.fullmatch(key) and value > found.tensors:
            return f"{key} in config.json is {_shown(value)}, but the weights have only {found.tensors:,} tensors"
    return ""


def rank_fault(folder: Path) -> str:
    """Say why the rank in the config of a LoRA adapter is not its weights'; empty where it may be."""
    found, config = held(folder), read_json_object(folder / "adapter_config.json")
    if found is None or config.get("peft_type") != "LORA":
        return ""
    ranks = [("r", config.get("r")), *_numbers(config.get("rank_pattern"))]
    for key, rank in ranks:
        if isinstance(rank, int) and rank > found.longest:
            told = f"no dimension of its weights exceeds {found.longest:,}"
            return f"the rank {key} in adapter_config.json is {_shown(rank)}, but {told}"
    return ""


@contextlib.contextmanager
def sized_like(folder: Path) -> Iterator[None]:
    """Within, `UserError` as soon as a model is laid out, not yet in memory, that the weights in ``folder`` are not.

    Nothing is compared where the folder has no safetensors files.
    """
    from torch.nn.modules import module as hooks

    there = held(folder)
    if there is None:
        yield
        return
    packed = "quantization_config" in read_json_object(folder / "config.json")
    most = _ALWAYS + (_QUANTISED_TIMES * there.bytes if packed else _TIMES * there.values)
    laid_out = {"parameters": 0, "buffers": 0}

    def count(kind: str, limit: int) -> Any:
        def add(_module: Any, _name: str, tensor: Any) -> None:
            if tensor is None or not tensor.is_meta:
                return
            laid_out[kind] += tensor.numel()
            if laid_out[kind] > limit:
                text = f"describes a model of over {_shown(laid_out[kind])} {kind}; its weights hold {there.values:,}"
                raise UserError(Problem(str(folder / "config.json"), "", text, "", _STEP))

        return add

    with contextlib.ExitStack() as stack:
        stack.enter_context(hooks.register_module_parameter_registration_hook(count("parameters", most)))
        stack.enter_context(hooks.register_module_buffer_registration_hook(count("buffers", most + _BUFFERS)))
        yield


def _numbers(value: object) -> Iterator[tuple[str, int]]:
    """Yield every integer of a config with its key, however deep."""
    if not isinstance(value, Mapping):
        return
    for key, inner in value.items():
        if isinstance(inner, int) and not isinstance(inner, bool):
            yield str(key), inner
        else:
            yield from _numbers(inner)


def _shown(number: int) -> str:
    return f"{number:,}" if number < 10**18 else "over 10^18"
