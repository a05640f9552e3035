"""Python and libraries: installed versions against those asked for, and what is disabled without an optional one."""

import sys
from collections.abc import Callable, Mapping
from importlib import metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from msr_adapter.doctor.diagnosis import Finding
from msr_adapter.doctor.gpu_libraries import (
    Judgement,
    judge_bitsandbytes,
    judge_flash_attention,
    judge_liger,
    judge_vllm,
)
from msr_adapter.llamafactory.versions import INSTALL, PINNED

# RecTools 0.19 asks for numpy below 2 under Python 3.11 and 3.12 and runs with 2 (our tests do), so pip must not look.
RECTOOLS = "pip install --no-deps RecTools==0.19.0"
BASELINES = "pip install 'msr-adapter[baselines]'"
REAL_MODEL = "pip install 'msr-adapter[real-model]'"
EMBEDDING = "pip install 'msr-adapter[embedding]'"
RAY = "pip install 'msr-adapter[ray]'"

_NEEDED, _OPTIONAL = "Python and libraries", "Optional libraries"
_PYTHONS = ((3, 11), (3, 13))
_COMPANIONS = ("torchvision", "torchaudio")
_REQUIRED = ("transformers", "peft", "datasets", "accelerate", "trl")
_ASKING = ("llamafactory", "msr-adapter")


class Library(NamedTuple):
    """An optional library."""

    name: str
    module: str
    without: str
    """What is disabled without it; empty where ``judge`` says it."""
    mend: str
    on_cuda: bool = False
    """Of no use without an NVIDIA GPU."""
    judge: Callable[[str], Judgement] | None = None
    """Says what an installed version means; given an empty one, what its absence does."""


LIBRARIES = (
    Library("flash-attn", "flash_attn", "", "", on_cuda=True, judge=judge_flash_attention),
    Library("bitsandbytes", "bitsandbytes", "", "", on_cuda=True, judge=judge_bitsandbytes),
    Library("liger-kernel", "liger_kernel", "", "", on_cuda=True, judge=judge_liger),
    Library("deepspeed", "deepspeed", "no ZeRO, which spreads weights and optimizer states over GPUs",
            "pip install deepspeed", on_cuda=True),
    Library("ray", "ray", "no clusters through Ray", RAY),
    Library("vllm", "vllm", "", "", on_cuda=True, judge=judge_vllm),
    Library("implicit", "implicit", "no item-knn, mf and sasrec baselines", BASELINES),
    Library("pytorch-lightning", "pytorch_lightning", "no sasrec baseline", BASELINES),
    Library("RecTools", "rectools", "no sasrec baseline", RECTOOLS),
    Library("gguf", "gguf", "no `msr get-model`, which reads a pretrained model from a package", REAL_MODEL),
    Library("sentence-transformers", "sentence_transformers", "no embedding.model other than `own`", EMBEDDING),
    Library("faiss-cpu", "faiss", "no embedding.search: faiss, so none among more than a million items", EMBEDDING),
    Library("tensorboard", "tensorboard", "no tracking: {kind: tensorboard}", "pip install 'msr-adapter[tensorboard]'"),
    Library("wandb", "wandb", "no tracking: {kind: wandb}", "pip install 'msr-adapter[wandb]'"),
    Library("mlflow-skinny", "mlflow", "no tracking: {kind: mlflow}", "pip install 'msr-adapter[mlflow]'"),
)  # fmt: skip


def needed(probed: Mapping[str, dict[str, Any]]) -> list[Finding]:
    """Return a finding for Python, the torch trio, LLaMA-Factory and what it needs; ``probed`` has their imports."""
    torch = probed["torch"]
    trio = {"torch": torch, **{name: torch.get(name, {"error": "it needs torch"}) for name in _COMPANIONS}}
    return [
        _python(),
        *(_pinned(name, found) for name, found in trio.items()),
        _pinned("llamafactory", probed["llamafactory"]),
        *(_asked(name) for name in _REQUIRED),
    ]


def _python() -> Finding:
    first, last = _PYTHONS
    found = f"{sys.version.split()[0]} ({sys.executable})"
    if first <= sys.version_info[:2] < last:
        return Finding(_NEEDED, "Python", "ok", found)
    return Finding(_NEEDED, "Python", "error", found, "msr needs Python 3.11 or 3.12", "python3.11 -m venv .venv")


def _pinned(name: str, probed: Mapping[str, Any]) -> Finding:
    installed = installed_version(name)
    if installed is None:
        return Finding(_NEEDED, name, "error", "not installed", "nothing can be trained or scored", INSTALL)
    build = ""
    if name == "torch" and "error" not in probed:
        build = " for ROCm" if probed["hip"] else f" for CUDA {probed['cuda']}" if probed["cuda"] else " without CUDA"
    if error := probed.get("error"):
        means = f"it cannot be imported ({error}), so nothing can be trained or scored"
        return Finding(_NEEDED, name, "error", installed, means, INSTALL)
    if name == "llamafactory" and installed != PINNED[name]:
        means = f"msr needs exactly {PINNED[name]}, as it uses its internal Python API"
        return Finding(_NEEDED, name, "error", installed, means, INSTALL)
    if installed.split("+")[0] != PINNED[name]:
        means = f"it can be imported, but msr is tested with {PINNED[name]}"
        return Finding(_NEEDED, name, "warning", installed + build, means, INSTALL)
    return Finding(_NEEDED, name, "ok", installed + build)


def _asked(name: str) -> Finding:
    """Hold a library against the ranges of LLaMA-Factory and of msr."""
    installed, asked = installed_version(name), _ranges(name)
    mend = f'pip install "{name}{asked}"'
    if installed is None:
        return Finding(_NEEDED, name, "error", "not installed", "LLaMA-Factory needs it", mend)
    if not asked.contains(installed, prereleases=True):
        return Finding(_NEEDED, name, "warning", installed, f"{asked} is required", mend)
    return Finding(_NEEDED, name, "ok", installed)


def _ranges(name: str) -> SpecifierSet:
    found = SpecifierSet()
    for asking in _ASKING:
        try:
            required = [Requirement(line) for line in metadata.requires(asking) or ()]
        except metadata.PackageNotFoundError:
            continue
        for one in required:
            if one.name == name and one.marker is None:  # with a marker it is asked for by an extra, or elsewhere
                found &= one.specifier
    return found


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
    browser = Finding(_OPTIONAL, "Chromium", "ok", "not needed", "a report is one file that any browser opens")
    return [*(_library(library, probed, cuda=cuda) for library in LIBRARIES), browser]


def _library(library: Library, probed: Mapping[str, dict[str, Any]], *, cuda: bool) -> Finding:
    _, without, mend = library.judge("") if library.judge else ("absent", library.without, library.mend)
    if library.module not in probed:
        useless = library.on_cuda and not cuda
        without = f"{without} (only useful with an NVIDIA GPU)" if useless else without
        return Finding(_OPTIONAL, library.name, "absent", "not installed", without, "" if useless else mend)
    found = probed[library.module]
    version = installed_version(library.name) or found.get("version", "")
    if error := found.get("error"):
        means = f"it is installed but cannot be imported ({error}): {without}"
        return Finding(_OPTIONAL, library.name, "warning", version, means, mend)
    if library.judge and version:
        state, means, mend = library.judge(version)
        return Finding(_OPTIONAL, library.name, state, version, means, mend)
    return Finding(_OPTIONAL, library.name, "ok", version)


def installed_version(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
