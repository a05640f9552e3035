"""Is the right LLaMA-Factory installed? Answered from package metadata, without importing torch."""

from importlib import metadata

from msr_adapter.errors import Problem, UserError

PINNED = {"llamafactory": "0.9.5", "torch": "2.11.0", "torchvision": "0.26.0", "torchaudio": "2.11.0"}
"""LLaMA-Factory's Python API is internal, and it cannot be imported unless the torch trio matches."""

_EXACT = ("llamafactory",)
INSTALL = "pip install " + " ".join(f"{name}=={version}" for name, version in PINNED.items())


def check_versions() -> list[Problem]:
    """Return a problem for every package that is missing or does not fit.

    llamafactory must be exactly the pinned version. torch may be another, if torchaudio belongs to it.
    """
    found = {name: _version(name) for name in PINNED}
    problems = [_problem(name, None) for name, version in found.items() if version is None]
    problems += [_problem(name, found[name]) for name in _EXACT if found[name] not in (None, PINNED[name])]
    torch, audio = found["torch"], found["torchaudio"]
    if torch and audio and _public(torch) != _public(audio):
        problems.append(_problem("torchaudio", audio, f"the version of torch, which is {torch}"))
    return problems


def require_versions() -> None:
    """Raise one `UserError` with all problems found by `check_versions`."""
    if problems := check_versions():
        raise UserError(problems)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _public(version: str) -> str:
    return version.split("+")[0]


def _problem(name: str, found: str | None, allowed: str = "") -> Problem:
    state = "not installed" if found is None else f"version {found}"
    return Problem("this Python environment", name, state, allowed or f"needs {PINNED[name]}", f"Run: {INSTALL}")
