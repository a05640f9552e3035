"""What the score stage counts, and what of it a reader should know."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msr_adapter.generation import Backend
from msr_adapter.progress import Reporter

Floats = NDArray[np.float64]

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

    def add(self, examples: int, mass: Floats, lengths: NDArray[np.int64], cutoff_len: int) -> None:
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


def spent_by(backend: Backend) -> dict[str, int]:
    """Return what a backend's scoring took so far; empty for those that do not count it."""
    spent = getattr(backend, "spent", None)
    return {name: value for name, value in vars(spent).items() if isinstance(value, int)} if spent else {}


def reasons_of(backend: Backend) -> list[str]:
    """Return why a backend scored prompts one by one, if it did."""
    return sorted(getattr(getattr(backend, "spent", None), "reasons", ()))


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
    """Say what sharing saved: tokens processed, flat, and at least; pictures."""
    flat, done, least = (counts[name] for name in ("tokens_flat", "tokens_processed", "tokens_least"))
    told = f"{done:,} tokens processed for {flat:,} of prompts ({done / flat:.0%}"
    told += f"; each beginning once is {least / flat:.0%}" if least else ""
    told += f"), {counts.get('order', 'users')} first"
    if counts["images_shown"]:
        told += f"; {counts['images_encoded']:,} pictures encoded for {counts['images_shown']:,} shown"
    if counts["unshared_rows"]:
        why = f": {counts['unshared_because']}" if counts.get("unshared_because") else ""
        told += f"; {counts['unshared_rows']:,} prompts one by one{why}"
    return told
