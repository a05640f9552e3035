"""What `msr recommend` is asked for: for whom, among what, how many, where to; and what is wrong with it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.retrieval import RETRIEVER_NAMES

Unknown = Literal["error", "fallback"]
RankBy = Literal["model", "hybrid"]

ALL = "all"
FILE = "file"
OFFERED = f"{', '.join(f'{name}:N' for name in RETRIEVER_NAMES)} or all"


@dataclass(frozen=True)
class Retrieval:
    """Where a user's candidates come from."""

    kind: str
    """A retriever's name, all or file."""
    count: int = 0
    """Candidates per user, of a retriever."""
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
    items: Path | None = None
    """A table of items that came after the data stage's."""
    overwrite: bool = False
    """Whether ``out`` may exist."""
    rank_by: RankBy = "model"
    """Who ranks what was retrieved: the trained model, or the hybrid that weighs it with baselines."""

    @cached_property
    def retrieval(self) -> Retrieval:
        """Where candidates come from; `UserError` if ``candidates`` says nothing of the kind."""
        return parse_retrieval(self.candidates)


def parse_retrieval(text: str) -> Retrieval:
    """Read ``popular:200`` (any retriever), ``all`` or the name of a file; `UserError` on anything else."""
    if Path(text).exists():
        return Retrieval(FILE, path=Path(text))
    if text == ALL:
        return Retrieval(ALL)
    head, _, count = text.partition(":")
    if head in RETRIEVER_NAMES:
        if re.fullmatch(r"[0-9]{1,9}", count) and int(count) > 0:
            return Retrieval(head, int(count))
        step = f"Write {head}:200"
    else:
        step = did_you_mean(head, (*RETRIEVER_NAMES, ALL)) or "Correct the name of the file"
    raise UserError(Problem("", "--candidates", f"the text {text!r} is not a file", f"a file, {OFFERED}", step))


def request_problems(wanted: RecommendRequest, file_problems: Callable[..., list[Problem]]) -> list[Problem]:
    """Return what is wrong with a request that can be known without reading a row; `file_problems` looks at files."""
    problems: list[Problem] = []
    if wanted.users is not None:
        problems += file_problems(wanted.users, "--users")
    if wanted.interactions is not None:
        problems += file_problems(wanted.interactions, "--interactions", lines=False)
    if wanted.items is not None:
        problems += file_problems(wanted.items, "--items", lines=False)
    try:
        return problems + _retrieval_problems(wanted.retrieval, wanted.top, file_problems)
    except UserError as error:
        return [*problems, *error.problems]


def _retrieval_problems(retrieval: Retrieval, top: int, file_problems: Callable[..., list[Problem]]) -> list[Problem]:
    problems = file_problems(retrieval.path, "--candidates") if retrieval.path is not None else []
    if retrieval.count and retrieval.count < top:
        found = f"{retrieval}: fewer candidates than --top {top}"
        problems.append(Problem("", "--candidates", found, "", "Retrieve more of them, or lower --top"))
    return problems
