"""A backend that answers by a rule and remembers what it was asked; not collected by pytest."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from msr_adapter.generation import Backend, Completion, Follow, Request, ends_there


def echo(request: Request) -> str:
    return f"answer to {request.prompt}"


class Recording(Backend):
    """Keeps every call; with ``log``, also writes the keys of each call durably before it answers."""

    identity = "recording"
    label = "a recording"

    def __init__(self, rule: Callable[[Request], str] = echo, *, reason: str = "stop", log: Path | None = None) -> None:
        self.rule, self.reason, self.log = rule, reason, log
        self.calls: list[list[Request]] = []

    @property
    def prompts(self) -> list[str]:
        return [request.prompt for call in self.calls for request in call]

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Completion]:
        """Answer wave by wave; each wave is a call of its own in ``calls``."""
        answers = self._wave(requests)
        start = 0
        while more := [request for answer in answers[start:] for request in follow(answer)]:
            start = len(answers)
            answers += self._wave(more)
        return answers

    def _wave(self, requests: Sequence[Request]) -> list[Completion]:
        self.calls.append(list(requests))
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(" ".join(request.key for request in requests) + "\n")
                file.flush()
                os.fsync(file.fileno())
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Completion:
        text = "" if request.choices else self.rule(request)
        logprobs = tuple(-1.0 - place for place in range(len(request.choices)))
        reason = "choice" if request.choices else self.reason
        return Completion(request.key, text, logprobs, reason, len(request.prompt), len(text))
