"""Model answers on their way into a table: cleaned, and everything odd about them counted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from msr_adapter.config.schema.summarize import OnFailure
from msr_adapter.errors import StageError, plural
from msr_adapter.files import write_json
from msr_adapter.generation import Answer, Completion, Failure, Image, Request, Start
from msr_adapter.generation.request import engine_facts
from msr_adapter.generation.request_shards import watched
from msr_adapter.heuristics.near_duplicates import near_identical
from msr_adapter.progress import Advance, Meter, Reporter
from msr_adapter.prompts import neutralise
from msr_adapter.prompts.neutralize import TEXT_LIMIT
from msr_adapter.stage_arguments import Client
from msr_adapter.summarize.cleaning import Cleaned, clean
from msr_adapter.summarize.summary_faults import LastAnswer, fault_shares

_COLLAPSED = 0.2  # share of distinct summaries below which they can hardly tell users or items apart
_ALIKE = 0.8  # share of nearly identical summaries above which the same holds
_NAMED = 5
NAMED = 20
"""Items that a manifest names, at most."""
_TREATED = {"skip": "they are skipped", "title": "titles stand in for them"}
_FEW = 20  # too few summaries to speak of a share


R = TypeVar("R")


@dataclass(frozen=True)
class Asking:
    """How a stage asks its model; small enough to travel with every chain."""

    model: str
    max_new_tokens: int

    def request(self, prompt: str, images: tuple[Image, ...] = ()) -> Request:
        """Return the request for free text that puts ``prompt`` to the model."""
        return Request(self.model, prompt, images, max_new_tokens=self.max_new_tokens)


@dataclass
class SummaryAnswers:
    """Asks one backend through the cache, cleans the answers and keeps the counts of a stage."""

    client: Client
    max_new_tokens: int
    requests: int = 0
    empty: int = 0
    """Requests answered with nothing but white space."""
    refused: int = 0
    """Requests that the model declined; their text is empty."""
    echoed: int = 0
    """Answers that began with the question; it was cut off."""
    wrapped: int = 0
    """Answers that lost a label, a pleasantry or quotes."""
    cut: int = 0
    """Requests whose answer ended at the token budget."""
    trimmed: int = 0
    """Those of them that lost the start of a sentence which the budget left unfinished."""
    meter: Meter = field(default_factory=Meter)
    """Told of every answer that this process computes."""
    failures: list[dict[str, str]] = field(default_factory=list)
    """The id and the reason of every request without an answer."""
    _distinct: dict[str, Completion] = field(default_factory=dict)
    _computed_before: int = field(init=False)

    def __post_init__(self) -> None:
        self._computed_before = self.client.cache.stats.computed

    @cached_property
    def asking(self) -> Asking:
        """What chains need to make their requests."""
        return Asking(self.client.model().identity, self.max_new_tokens)

    def request(self, prompt: str, images: tuple[Image, ...] = ()) -> Request:
        """Return the request for free text that puts ``prompt`` to this stage's model."""
        return self.asking.request(prompt, images)

    def texts(self, owners: Sequence[str], requests: Sequence[Request], advance: Advance) -> list[str | None]:
        """Answer ``requests`` in their order; ``owners`` name them in the list of failures."""
        answers = self.client.cache.attempt(watched(self.client.model(), self.meter.add), requests, advance=advance)
        return [self.accept(*answered) for answered in zip(owners, requests, answers, strict=True)]

    def run_chains(
        self, starts: Sequence[Start[R]], families: Sequence[object], advance: Advance
    ) -> Iterator[tuple[int, R]]:
        """Move chains to their ends (`CompletionCache.run_chains`); what they were answered goes through `accept`."""
        return self.client.cache.run_chains(
            watched(self.client.model(), self.meter.add), starts, families=families, advance=advance
        )

    def accept(self, owner: str, request: Request, answer: Answer) -> str | None:
        """Count ``answer`` and return its text on one clean line, possibly empty; None for a failure of ``owner``'s."""
        self.requests += 1
        if isinstance(answer, Failure):
            self.failures.append({"id": owner, "reason": answer.reason})
            return None
        cleaned = _cleaned(request, answer)
        text = neutralise(cleaned.text, TEXT_LIMIT)
        self.refused += cleaned.refused
        self.echoed += cleaned.echoed
        self.wrapped += cleaned.wrapped
        self.empty += not text and not cleaned.refused
        self.cut += answer.finish_reason == "length"
        self.trimmed += cleaned.trimmed
        self._distinct[answer.key] = answer
        return text

    def sort_failures(self, owners: Sequence[str]) -> None:
        """Bring the failures into the order of their ``owners``: shards may have ended in any."""
        place = {owner: at for at, owner in enumerate(owners)}
        self.failures.sort(key=lambda failure: place[failure["id"]])

    def counts(self) -> dict[str, Any]:
        """Return counts for the manifest; tokens are those of the distinct requests, computed now or before."""
        computed = self.client.cache.stats.computed - self._computed_before
        return {
            "requests": self.requests,
            "distinct_requests": len(self._distinct),
            "computed": computed,
            "cached": len(self._distinct) - computed,
            "empty_answers": self.empty,
            "refused": self.refused,
            "echoed": self.echoed,
            "wrapped": self.wrapped,
            "cut_by_budget": self.cut,
            "trimmed": self.trimmed,
            "failed": len(self.failures),
            "failures": self.failures[:NAMED],
            "tokens_in": sum(completion.tokens_in for completion in self._distinct.values()),
            "tokens_out": sum(completion.tokens_out for completion in self._distinct.values()),
            **engine_facts(self.client.model()),
        }

    def apply_policy(self, on_failure: OnFailure, out: Path, reporter: Reporter, label: str) -> None:
        """Say what failed: raise `StageError` under ``on_failure: error``, else write `failures.json` and go on."""
        if not self.failures:
            return
        named = "; ".join(f"{failure['id']}: {failure['reason']}" for failure in self.failures[:_NAMED])
        what = f"{label}: {len(self.failures)} of {plural(self.requests, 'request')} failed ({named})"
        if on_failure == "error":
            raise StageError(
                what, next_step="run the same command again, which asks only for these again, or set on_failure to "
                "skip or title",
            )  # fmt: skip
        write_json(out / "failures.json", self.failures)
        reporter.note(f"{what}; {_TREATED[on_failure]}. All of them are in {out.name}/failures.json")

    def warn(self, reporter: Reporter, label: str) -> None:
        """Note how many answers were empty, declined, echoed the question, or were cut at the token budget."""
        if self.empty:
            reporter.note(f"{label}: {self.empty} of {self.requests} answers were empty")
        if self.refused:
            reporter.note(
                f"{label}: the model declined {self.refused} of {plural(self.requests, 'request')}: no summary there"
            )
        if self.echoed:
            reporter.note(
                f"{label}: {self.echoed} of {self.requests} answers began with the question, which was cut off"
            )
        if self.cut:
            reporter.note(
                f"{label}: {self.cut} of {self.requests} answers were cut at {self.max_new_tokens} tokens, "
                f"{self.trimmed} of them back to their last whole sentence; raise max_new_tokens if that matters"
            )

    def last_answer(self, request: Request, text: str, known: str = "") -> LastAnswer:
        """Return what a chain ends with, for `review`: ``text`` is the answer cleaned, ``known`` the summary before."""
        shown = request.prompt.replace(known, "", 1) if known else request.prompt
        return LastAnswer(text, shown, known, self._distinct[request.key].finish_reason == "length")

    def review(
        self, reporter: Reporter, label: str, keys: Sequence[str], texts: Sequence[str], ends: Sequence[LastAnswer]
    ) -> dict[str, Any]:
        """Return how long the summaries are (in tokens, as written), how much they differ and what is wrong with them.

        ``keys`` are those of the requests that gave ``texts``; equal requests count once. ``ends`` are some of them.
        What is odd is noted.
        """
        by_key = dict(zip(keys, texts, strict=True))
        share = distinctness(reporter, label, list(by_key), texts)
        alike = near_identical(list(by_key.values()))
        if len(by_key) > _FEW and alike > _ALIKE and share >= _COLLAPSED:
            reporter.note(
                f"{label}: {alike:.0%} of the summaries are nearly identical to another one; read some of them"
            )
        lengths = _percentiles([self._distinct[key].tokens_out for key in by_key if key in self._distinct])
        if lengths:
            reporter.note(
                f"{label}: {len(by_key):,} of median {lengths['median']:.0f} tokens (90% between {lengths['p5']:.0f} "
                f"and {lengths['p95']:.0f}), {share:.0%} distinct, {alike:.0%} nearly identical to another"
            )
        faults = fault_shares(ends)
        if faults:
            forget = faults["forgets"]
            more = "" if forget is None else f", {forget:.0%} keep nothing of what was known before"
            reporter.note(
                f"{label}: {faults['repeats']:.0%} repeat their prompt, {faults['cut']:.0%} end at their budget{more}"
            )
        return {"distinctness": share, "near_identical": alike, "lengths": lengths, "faults": faults}


def _percentiles(tokens: Sequence[int]) -> dict[str, float]:
    """Return the keys `p5`, `median`, `p95` and `max`; {} without ``tokens``."""
    if not tokens:
        return {}
    p5, median, p95 = (float(value) for value in np.percentile(tokens, (5, 50, 95)))
    return {"p5": p5, "median": median, "p95": p95, "max": float(max(tokens))}


def read(request: Request, answer: Answer) -> str | None:
    """Return the text of ``answer`` on one clean line, possibly empty; None for a failure.

    This is `SummaryAnswers.accept`, uncounted: for chains, which any process may run.
    """
    return None if isinstance(answer, Failure) else neutralise(_cleaned(request, answer).text, TEXT_LIMIT)


def _cleaned(request: Request, answer: Completion) -> Cleaned:
    return clean(" ".join(answer.text.split()), request.prompt, cut=answer.finish_reason == "length")


def distinctness(reporter: Reporter, label: str, keys: Sequence[str], texts: Sequence[str]) -> float:
    """Return distinct texts per distinct request key, in [0, 1]; 1 without requests.

    Equal requests have equal answers, so they count once. Many requests with nearly one answer are worth a note: a
    recommender cannot tell such users or items apart.
    """
    prompts, answers = len(set(keys)), len(set(texts))
    share = min(1.0, answers / prompts) if prompts else 1.0
    if prompts > _FEW and share < _COLLAPSED:
        reporter.note(
            f"{label}: only {answers} different summaries for {prompts} different prompts ({share:.0%}); "
            "read some of them before you trust the result"
        )
    return share
