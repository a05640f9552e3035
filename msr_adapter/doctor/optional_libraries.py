"""Libraries that are not needed: what each absence disables, and the command that mends it."""

from collections.abc import Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

from msr_adapter.doctor.finding import Finding

# RecTools 0.19 asks for numpy below 2 under Python 3.11 and 3.12 and runs with 2 (our tests do), so pip must not look.
RECTOOLS = "pip install --no-deps RecTools==0.19.0"
BASELINES = "pip install 'msr-adapter[baselines]'"
RAY = "pip install 'msr-adapter[ray]'"

_SECTION = "Optional libraries"


class Library(NamedTuple):
    """An optional library."""

    name: str
    module: str
    without: str
    """What is disabled without it."""
    mend: str
    on_cuda: bool = False
    """Of no use without an NVIDIA GPU."""


LIBRARIES = (
    Library("flash-attn", "flash_attn", "attention runs through torch's own kernels: long prompts train slower",
            "pip install flash-attn --no-build-isolation", on_cuda=True),
    Library("bitsandbytes", "bitsandbytes", "no QLoRA (weights in 4 or 8 bit)", "pip install bitsandbytes",
            on_cuda=True),
    Library("liger-kernel", "liger_kernel", "no enable_liger_kernel: more memory for the loss",
            "pip install liger-kernel", on_cuda=True),
    Library("deepspeed", "deepspeed", "no ZeRO: weights and optimizer states are not spread over GPUs by it",
            "pip install deepspeed", on_cuda=True),
    Library("ray", "ray", "no clusters through Ray", RAY),
    Library("vllm", "vllm", "no vLLM here; a vLLM server elsewhere can still write the summaries (backend: server)",
            "install it in an environment of its own: it asks for another torch", on_cuda=True),
    Library("implicit", "implicit", "no item-knn, mf and sasrec baselines", BASELINES),
    Library("pytorch-lightning", "pytorch_lightning", "no sasrec baseline", BASELINES),
    Library("RecTools", "rectools", "no sasrec baseline", RECTOOLS),
    Library("tensorboard", "tensorboard", "no report_to: tensorboard", "pip install tensorboard"),
    Library("wandb", "wandb", "no report_to: wandb", "pip install wandb"),
    Library("mlflow", "mlflow", "no report_to: mlflow", "pip install mlflow"),
)  # fmt: skip


def present() -> list[str]:
    """Return the modules of the optional libraries that are there; nothing is imported."""
    return [library.module for library in LIBRARIES if is_there(library.module)]


def is_there(module: str) -> bool:
    """Tell whether a module is installed, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def optional(probed: Mapping[str, dict[str, Any]], *, cuda: bool) -> list[Finding]:
    """Return a finding for each optional library; ``probed`` has the imports of those that are `present`."""
    browser = Finding(_SECTION, "Chromium", "ok", "not needed", "a report is one file that any browser opens")
    return [*(_library(library, probed, cuda=cuda) for library in LIBRARIES), browser]


def _library(library: Library, probed: Mapping[str, dict[str, Any]], *, cuda: bool) -> Finding:
    if library.module not in probed:
        useless = library.on_cuda and not cuda
        without = f"{library.without} (of use with an NVIDIA GPU only)" if useless else library.without
        return Finding(_SECTION, library.name, "absent", "not installed", without, "" if useless else library.mend)
    found = probed[library.module]
    version = _version(library) or found.get("version", "")
    if error := found.get("error"):
        means = f"it is there but cannot be imported ({error}): {library.without}"
        return Finding(_SECTION, library.name, "warning", version, means, library.mend)
    return Finding(_SECTION, library.name, "ok", version)


def _version(library: Library) -> str:
    try:
        return metadata.version(library.name)
    except metadata.PackageNotFoundError:
        return ""
