"""Python and the libraries that training needs: installed versions against those that are asked for."""

import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from msr_adapter.doctor.finding import Finding
from msr_adapter.llamafactory.versions import INSTALL, PINNED

_SECTION = "Python and libraries"
_PYTHONS = ((3, 11), (3, 13))
_COMPANIONS = ("torchvision", "torchaudio")
_NEEDED = ("transformers", "peft", "datasets", "accelerate", "trl")
_ASKING = ("llamafactory", "msr-adapter")


def packages(probed: Mapping[str, dict[str, Any]]) -> list[Finding]:
    """Return a finding for Python, the torch trio, LLaMA-Factory and what it stands on; ``probed`` has the imports."""
    torch = probed["torch"]
    trio = {"torch": torch, **{name: torch.get(name, {"error": "torch comes first"}) for name in _COMPANIONS}}
    return [
        _python(),
        *(_pinned(name, found) for name, found in trio.items()),
        _pinned("llamafactory", probed["llamafactory"]),
        *(_asked(name) for name in _NEEDED),
    ]


def _python() -> Finding:
    first, last = _PYTHONS
    found = f"{sys.version.split()[0]} ({sys.executable})"
    if first <= sys.version_info[:2] < last:
        return Finding(_SECTION, "Python", "ok", found)
    return Finding(_SECTION, "Python", "error", found, "msr needs Python 3.11 or 3.12", "python3.11 -m venv .venv")


def _pinned(name: str, probed: Mapping[str, Any]) -> Finding:
    installed = _installed(name)
    if installed is None:
        return Finding(_SECTION, name, "error", "not installed", "nothing can be trained or scored", INSTALL)
    build = ""
    if name == "torch" and "error" not in probed:
        build = " for ROCm" if probed["hip"] else f" for CUDA {probed['cuda']}" if probed["cuda"] else " without CUDA"
    if error := probed.get("error"):
        means = f"it cannot be imported ({error}), so nothing can be trained or scored"
        return Finding(_SECTION, name, "error", installed, means, INSTALL)
    if name == "llamafactory" and installed != PINNED[name]:
        means = f"msr is built on {PINNED[name]}, whose Python API is internal"
        return Finding(_SECTION, name, "error", installed, means, INSTALL)
    if installed.split("+")[0] != PINNED[name]:
        means = f"it can be imported, but msr is tested with {PINNED[name]}"
        return Finding(_SECTION, name, "warning", installed + build, means, INSTALL)
    return Finding(_SECTION, name, "ok", installed + build)


def _asked(name: str) -> Finding:
    """Hold a library against the ranges of LLaMA-Factory and of msr."""
    installed, asked = _installed(name), _ranges(name)
    mend = f'pip install "{name}{asked}"'
    if installed is None:
        return Finding(_SECTION, name, "error", "not installed", "LLaMA-Factory needs it", mend)
    if not asked.contains(installed, prereleases=True):
        return Finding(_SECTION, name, "warning", installed, f"asked for is {asked}", mend)
    return Finding(_SECTION, name, "ok", installed)


def _ranges(name: str) -> SpecifierSet:
    found = SpecifierSet()
    for asking in _ASKING:
        try:
            required = [Requirement(line) for line in metadata.requires(asking) or ()]
        except metadata.PackageNotFoundError:
            continue
        for one in required:
            if one.name == name and one.marker is None:
                found &= one.specifier
    return found


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
