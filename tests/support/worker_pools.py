"""Backends for workers, and the local answers to compare theirs with; not collected by pytest."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import ExecutionConfig
from msr_adapter.distributed import open_workers
from msr_adapter.distributed.pool import WorkerPool
from msr_adapter.errors import StageError
from msr_adapter.generation import Backend, Completion, Follow, Request, ends_there, request_shards


class LoggedBackend(Backend):
    """Answers by a rule and writes down, before each answer, which process gives it.

    It kills its own process, as the kernel would for want of memory, at every prompt that holds ``fatal``: ``deaths``
    times in all, and before that it writes a † into the log.
    """

    identity = "worked"
    label = "a worker"

    def __init__(self, log: Path, fatal: str = "", deaths: int = 0, raises: str = "", pause: float = 0) -> None:
        self.log, self.fatal, self.deaths, self.raises, self.pause = log, fatal, deaths, raises, pause

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Completion]:
        asked, answers = list(requests), list[Completion]()
        while len(answers) < len(asked):
            request = asked[len(answers)]
            if self.fatal and self.fatal in request.prompt and self.read().count("†") < self.deaths:
                self.write("†")
                os.kill(os.getpid(), signal.SIGKILL)
            if self.raises and self.raises in request.prompt:
                raise StageError("this prompt does not fit", "it is too long", "shorten it")
            time.sleep(self.pause)
            self.write(f"{os.getpid()}:{request.key}")
            answers.append(answer(request))
            asked += follow(answers[-1])
        return answers

    def write(self, word: str) -> None:
        with self.log.open("a") as file:  # O_APPEND: short lines of several processes do not mix
            file.write(word + "\n")

    def read(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def asked(self) -> list[str]:
        """The keys of all requests answered so far, by whomever."""
        return [line.partition(":")[2] for line in self.read().splitlines() if ":" in line]

    def workers(self) -> set[str]:
        """The processes that answered."""
        return {line.partition(":")[0] for line in self.read().splitlines() if ":" in line}


def keeping_all(log: Path, **faults: Any) -> LoggedBackend:
    """Make a `LoggedBackend` in a process that hands every answer over as it comes, as if each had taken long."""
    request_shards.KEEP_EVERY_S = 0
    return LoggedBackend(log, **faults)


class OtherModel(LoggedBackend):
    """Another model wherever it is made but in the process ``home``."""

    def __init__(self, log: Path, home: int) -> None:
        super().__init__(log)
        self.identity = "worked" if os.getpid() == home else "another"


def answer(request: Request) -> Completion:
    """Answer with what depends on the whole request."""
    words = "" if request.choices else f"likes {request.key[:6]} after {len(request.prompt)}"
    logprobs = tuple(-0.8 - int(request.key[place], 16) / 8 for place in range(len(request.choices)))
    return Completion(
        request.key, words, logprobs, "choice" if request.choices else "stop", len(request.prompt), len(words)
    )


@contextmanager
def worker_pool(
    make: Callable[[], LoggedBackend], notes: list[str] | None = None, **execution: Any
) -> Iterator[WorkerPool]:
    """Two workers, unless ``execution`` says otherwise; ``notes`` gets what is said of them."""
    settings = ExecutionConfig(**{"workers": 2, **execution})
    first = make()
    said = [] if notes is None else notes
    with open_workers(settings, make, first, first.log.parent / "logs", said.append) as workers:
        yield workers
