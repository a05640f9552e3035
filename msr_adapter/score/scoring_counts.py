"""What the score stage counts, and what of it a reader should know."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from msr_adapter.arrays import Floats, Integers, Rows
from msr_adapter.candidate_rows import ANSWERS, CandidateRow, CandidateRows
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import StageError, plural
from msr_adapter.generation import Backend, CompletionCache
from msr_adapter.generation.request import Remote, Request
from msr_adapter.progress import Reporter

_LEAST_MASS = 0.1
_EVEN = 0.5


@dataclass
class Counts:
    """Running totals over blocks of candidates."""

    candidates: int = 0
    examples: int = 0
    mass: float = 0.0
    """Sum of the probabilities of the answers."""
    elsewhere: int = 0
    """Candidates for which the model would rather say something else than an answer."""
    tokens_in: int = 0
    longest_prompt: int = 0
    prompts_over_cutoff: int = 0

    def add(self, examples: int, mass: Floats, lengths: Integers, cutoff_len: int) -> None:
        """Count a block: the probability of the answers and the tokens of each prompt."""
        self.candidates += len(mass)
        self.examples += examples
        self.mass += float(mass.sum())
        self.elsewhere += int((mass < _EVEN).sum())
        self.tokens_in += int(lengths.sum())
        self.longest_prompt = max(self.longest_prompt, int(lengths.max()))
        self.prompts_over_cutoff += int((lengths >= cutoff_len).sum())

    def summary(self) -> dict[str, Any]:
        """Return the counts of the stage's summary."""
        return {
            "candidates": self.candidates, "examples": self.examples, "answer_mass": self.mass / self.candidates,
            "rather_something_else": self.elsewhere, "tokens_in": self.tokens_in,
            "longest_prompt": self.longest_prompt, "prompts_over_cutoff": self.prompts_over_cutoff,
        }  # fmt: skip


@dataclass
class RatioCounts:
    """Running totals over blocks of candidates whose scores are log-likelihood ratios."""

    candidates: int = 0
    examples: int = 0
    tokens_in: int = 0
    answer_tokens: int = 0
    longest_prompt: int = 0
    prompts_over_cutoff: int = 0
    likelier: int = 0
    """Candidates whose text the evidence makes likelier."""
    same: int = 0
    """Candidates for which it changes nothing: a user, or a candidate, of whom nothing is said."""

    def add(self, examples: int, tokens: Integers, lengths: Integers, gain: Floats, cutoff_len: int) -> None:
        """Count a block: the tokens of each answer, those of each prompt with it, and what the prompt adds to its
        log-likelihood."""
        self.candidates += len(gain)
        self.examples += examples
        self.tokens_in += int(lengths.sum())
        self.answer_tokens += int(tokens.sum())
        self.longest_prompt = max(self.longest_prompt, int(lengths.max()))
        self.prompts_over_cutoff += int((lengths > cutoff_len).sum())
        self.likelier += int((gain > 0).sum())
        self.same += int((gain == 0).sum())

    def summary(self) -> dict[str, Any]:
        """Return the counts of the stage's summary."""
        return {**asdict(self), "score": "log-likelihood ratio"}


def tell_ratios(counts: Mapping[str, Any], train: TrainConfig, reporter: Reporter) -> None:
    """Say what the scores are, and what a reader should know or doubt."""
    share, tokens = (counts[name] / counts["candidates"] for name in ("likelier", "answer_tokens"))
    weight, cutoff_len = train.text_answer.alone_weight, train.cutoff_len
    taken = "" if weight == 1 else f", {weight:g} of the text's own likelihood taken off"
    reporter.note(
        f"  scores are log-likelihood ratios{taken}, of {tokens:.1f} tokens on average; the prompt makes {share:.0%} "
        "of these texts likelier"
    )
    if counts["same"]:
        then = "they tie" if weight == 1 else "their own likelihood ranks them"
        reporter.note(f"  {plural(counts['same'], 'candidate')} of whom the prompt says nothing: {then}")
    if counts.get("rows"):
        reporter.note(f"  {sharing_line(counts)}")
    if counts["prompts_over_cutoff"]:
        reporter.note(
            f"  {counts['prompts_over_cutoff']} of {counts['candidates']} prompts with their answers have more than "
            f"{cutoff_len} tokens, longer than any training row; they were scored whole"
        )


def spent_by(backend: Backend) -> dict[str, int]:
    """Return what a backend's scoring took so far; empty for those that do not count it."""
    return backend.stats.counts() if backend.stats else {}


def reasons_of(backend: Backend) -> list[str]:
    """Return why a backend scored prompts one by one, if it did."""
    return sorted(backend.stats.reasons) if backend.stats else []


def tell(counts: Mapping[str, Any], answers: str, cutoff_len: int, reporter: Reporter) -> None:
    """Say what a reader should know or doubt. ``answers`` names them: "Yes and No"."""
    if counts.get("rows"):
        reporter.note(f"  {sharing_line(counts)}")
    if counts["prompts_over_cutoff"]:
        reporter.note(
            f"  {counts['prompts_over_cutoff']} of {counts['candidates']} prompts have {cutoff_len} tokens or more, "
            "longer than any training row; they were scored whole"
        )
    if counts["answer_mass"] < _LEAST_MASS:
        reporter.note(
            f"  {answers} together get {counts['answer_mass']:.1%} of the probability on average: "
            "this model was not trained to answer with them"
        )
    elif counts["rather_something_else"]:
        reporter.note(
            f"  for {counts['rather_something_else']:,} of {counts['candidates']:,} candidates the model would rather "
            f"say something else than {answers}"
        )


def sharing_line(counts: Mapping[str, Any]) -> str:
    """Say what sharing saved: tokens processed, flat, and at least; images."""
    flat, done, least = (counts[name] for name in ("tokens_flat", "tokens_processed", "tokens_least"))
    told = f"{done:,} tokens processed for {flat:,} of prompts ({done / flat:.0%}"
    told += f"; each prefix once is {least / flat:.0%}" if least else ""
    told += f"), {counts.get('order', 'users')} first"
    if counts["images_shown"]:
        told += f"; {plural(counts['images_encoded'], 'image')} encoded for {counts['images_shown']:,} shown"
    if counts["unshared_rows"]:
        why = f": {counts['unshared_because']}" if counts.get("unshared_because") else ""
        told += f"; {plural(counts['unshared_rows'], 'prompt')} one by one{why}"
    return told


# What is to be known of scores that come from a server: whose prompts they answer, and which of them are bounds.


_SAMPLE = 4
"""Prompts with an image, and as many without one, that are compared."""
_LOOKED_AT = 4_096
_CAUSE = "another model is served than the trained one, or server.top_logprobs is too small"


def sample_rows(rows: CandidateRows) -> list[CandidateRow]:
    """Return a few rows, from the first to the last, with and without an image."""
    looked_at = _spread(np.arange(len(rows)), _LOOKED_AT)
    with_image = rows.shows_image(looked_at)
    return rows.take(np.concatenate([_spread(looked_at[which], _SAMPLE) for which in (with_image, ~with_image)]))


def compare_sample(
    sample: Sequence[Request], backend: Remote, cache: CompletionCache, reporter: Reporter
) -> dict[str, str]:
    """Have a server's prompts compared with the trained ones before anything is scored; return {"prompts": result}.

    Also how it tells log-probabilities is found out and said. Nothing is asked where the sample was answered before.
    Raises `StageError` with the first difference.
    """
    if len(cache.known([request.key for request in sample])) == len({request.key for request in sample}):
        return {"prompts": "answered before"}
    found = backend.compare(sample)
    reporter.note(f"  prompts of the server: {found}")
    if exactness := backend.exactness(sample):
        what = "log-likelihoods" if any(request.whole for request in sample) else "log-odds"
        reporter.note(f"  {what} of the server: {exactness}")
    return {"prompts": found}


def exactness_of(backend: Backend, name: Literal["log_odds", "log_likelihoods"] = "log_odds") -> dict[str, str]:
    """Return {``name``: how a server told them}; empty for a model in memory, and where all was answered before."""
    told = backend.exactness() if isinstance(backend, Remote) else ""
    return {name: told} if told else {}


@dataclass
class Bounds:
    """Running totals of what a server keeps back."""

    candidates: int = 0
    bounded: int = 0

    def add(self, kept_back: Rows) -> None:
        """Count a block, given how many answers of each candidate are bounds, (candidates,).

        Raises `StageError` if both answers of a candidate are.
        """
        self.candidates += len(kept_back)
        self.bounded += int((kept_back > 0).sum())
        if none := int((kept_back == len(ANSWERS)).sum()):
            step = "serve the trained model, or raise server.top_logprobs (and the server's own limit)"
            raise StageError(f"The server gave neither answer for {none} of {len(kept_back)} candidates", _CAUSE, step)

    def settle(self, share: float, reporter: Reporter) -> dict[str, int]:
        """Return the count and say what it means. Raises `StageError` if it is more than a ``share`` of all."""
        if not self.bounded:
            return {"bounded": 0}
        found = f"{self.bounded} of {self.candidates} candidates ({self.bounded / self.candidates:.1%})"
        if self.bounded > share * self.candidates:
            step = "raise server.top_logprobs (and the server's own limit), or server.bounded_share to accept bounds"
            raise StageError(f"The server kept one answer back for {found}; {share:.1%} are allowed", _CAUSE, step)
        reporter.note(f"  the server kept one answer back for {found}: their scores are bounds, marked as such")
        return {"bounded": self.bounded}


def _spread(places: Rows, count: int) -> Rows:
    """Return at most ``count`` of ``places``, from the first to the last."""
    return places[np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).astype(np.int64))]
