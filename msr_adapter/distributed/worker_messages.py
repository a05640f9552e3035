"""What a driver and its workers send each other."""

import pickle
import socket
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Self

from msr_adapter.errors import StageError
from msr_adapter.generation.request import Answer, Backend
from msr_adapter.generation.scoring_stats import ScoringStats
from msr_adapter.redaction import quoted, redact

_LIBRARIES = ("msr-adapter", "llamafactory", "transformers", "torch", "peft")


@dataclass(frozen=True)
class BackendRecipe:
    """How a worker makes its backend, and how it knows that this is the driver's."""

    make: Callable[[], Backend]
    """Picklable; makes the backend without loading a model."""
    identity: str
    """`Backend.identity`, as the driver computed it."""
    versions: Mapping[str, str]
    shared: bool = False
    """True: workers may be on other machines and check that they see the same files."""

    @classmethod
    def of(cls, make: Callable[[], Backend], identity: str, *, shared: bool = False) -> Self:
        """Return the recipe of this process's backend."""
        return cls(make, identity, versions(), shared)


@dataclass(frozen=True)
class WorkerReady:
    """A worker has started."""

    node: str


@dataclass(frozen=True)
class ShardProgress:
    """A worker has this many answers of its shard."""

    number: int
    count: int


@dataclass(frozen=True)
class ShardAnswers:
    """Answers of a worker's shard that is under way for long: to be kept, whatever becomes of the worker."""

    number: int
    answers: Sequence[Answer]


@dataclass(frozen=True)
class Done:
    """A worker has all answers of its shard."""

    number: int
    answers: list[Answer]
    stats: ScoringStats
    """What they took, beyond what this worker reported before."""


@dataclass(frozen=True)
class Raised:
    """A worker's shard ended with an exception."""

    number: int
    error: Exception
    trace: str

    @classmethod
    def of(cls, number: int, error: Exception) -> Self:
        """Return the message for ``error``: with the exception itself if it can be pickled, else with its text."""
        trace = redact("".join(traceback.format_exception(error)))
        try:
            # Both ways: an exception with arguments of its own often pickles, and fails only where it is read.
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever its own pickling raises
            error = StageError(f"{type(error).__name__} on {node()}: {quoted(error)}")
        return cls(number, error, trace)


@dataclass(frozen=True)
class Died:
    """A worker is gone."""

    reason: str


Message = WorkerReady | ShardProgress | ShardAnswers | Done | Raised | Died


class WorkerTracebackError(Exception):
    """The cause of an exception that was raised in a worker: its traceback there, as text."""

    def __str__(self) -> str:
        return f"\n\nin a worker:\n{self.args[0]}"


def node() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


def versions() -> dict[str, str]:
    """Return the versions of what can change an answer; those that are not installed are absent."""
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
