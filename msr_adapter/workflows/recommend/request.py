"""What `msr recommend` is asked for: for whom, among what, how many, where to; and what is wrong with it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from msr_adapter.errors import Problem, UserError, did_you_mean

Kind = Literal["popular", "item-knn", "all", "file"]
Unknown = Literal["error", "fallback"]

ALL = "all"
_ALLOWED = "a file, popular:N, item-knn:N or all"


@dataclass(frozen=True)
class Retrieval:
    """Where a user's candidates come from."""

    kind: Kind
    count: int = 0
    """Candidates per user, of popular and item-knn."""
    path: Path | None = None
    """Of kind file."""

    def __str__(self) -> str:
        return str(self.path) if self.path else f"{self.kind}:{self.count}" if self.count else self.kind


@dataclass(frozen=True)
class RecommendRequest:
    """The whole request."""

    users: Path | None
    """A file of ids; None = all users."""
    candidates: str
    """As `parse_retrieval` reads it."""
    top: int
    out: Path
    include_seen: bool | None = None
    """Whether what a user has seen may come again; None: what the user had, where `data.repeats` is keep."""
    unknown_users: Unknown = "error"
    interactions: Path | None = None
    """A log of what came after the data stage's."""
    overwrite: bool = False
    """Whether ``out`` may exist."""

    @cached_property
    def retrieval(self) -> Retrieval:
        """Where candidates come from; `UserError` if ``candidates`` says nothing of the kind."""
        return parse_retrieval(self.candidates)


def parse_retrieval(text: str) -> Retrieval:
    """Read ``popular:200``, ``item-knn:200``, ``all`` or the name of a file; `UserError` on anything else."""
    if Path(text).exists():
        return Retrieval("file", path=Path(text))
    if text == ALL:
        return Retrieval("all")
    if (match := re.fullmatch(r"(popular|item-knn):(\d+)", text)) and int(match[2]) > 0:
        return Retrieval("popular" if match[1] == "popular" else "item-knn", int(match[2]))
    head = text.partition(":")[0]
    if head in ("popular", "item-knn"):
        step = f"Write {head}:200"
    else:
        step = did_you_mean(head, ("popular", "item-knn", ALL)) or "Correct the name of the file"
    raise UserError(Problem("", "--candidates", f"the text {text!r} is no file", _ALLOWED, step))


def request_problems(wanted: RecommendRequest, file_problems: Callable[..., list[Problem]]) -> list[Problem]:
    """Return what is wrong with a request that can be known without reading a row; `file_problems` looks at files."""
    problems: list[Problem] = []
    if wanted.users is not None:
        problems += file_problems(wanted.users, "--users")
    if wanted.interactions is not None:
        problems += file_problems(wanted.interactions, "--interactions", lines=False)
    try:
        return problems + _retrieval_problems(wanted.retrieval, wanted.top, file_problems)
    except UserError as error:
        return [*problems, *error.problems]


def _retrieval_problems(retrieval: Retrieval, top: int, file_problems: Callable[..., list[Problem]]) -> list[Problem]:
    problems = file_problems(retrieval.path, "--candidates") if retrieval.path is not None else []
    if retrieval.kind == "item-knn" and find_spec("implicit") is None:
        step = "Run `pip install 'msr-adapter[baselines]'`, or take popular:N"
        problems.append(Problem("", "--candidates", "item-knn needs implicit, which is not installed", "", step))
    if retrieval.count and retrieval.count < top:
        found = f"{retrieval}: fewer candidates than --top {top}"
        problems.append(Problem("", "--candidates", found, "", "Retrieve more of them, or lower --top"))
    return problems
