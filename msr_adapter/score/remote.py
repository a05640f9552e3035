"""What is to be known of scores that come from a server: whose prompts they answer, and which of them are bounds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msr_adapter.errors import StageError
from msr_adapter.generation import CompletionCache
from msr_adapter.generation.request import Remote, Request
from msr_adapter.progress import Reporter
from msr_adapter.rows import ANSWERS, CandidateRows, Row

Rows = NDArray[np.int64]

_SAMPLE = 4
"""Prompts with a picture, and as many without one, that are compared."""
_LOOKED_AT = 4_096
_CAUSE = "another model is served than the trained one, or server.top_logprobs is too small"


def sample_rows(rows: CandidateRows) -> list[Row]:
    """Return a few rows, from the first to the last, with and without a picture."""
    looked_at = _spread(np.arange(len(rows)), _LOOKED_AT)
    pictured = rows.images(looked_at).is_not_null().to_numpy()
    return rows.take(np.concatenate([_spread(looked_at[which], _SAMPLE) for which in (pictured, ~pictured)]))


def compare_sample(
    sample: Sequence[Request], backend: Remote, cache: CompletionCache, reporter: Reporter
) -> dict[str, str]:
    """Have a server's prompts compared with the trained ones before anything is scored; return {"prompts": result}.

    Nothing is compared where the sample was answered before. Raises `StageError` with the first difference.
    """
    if len(cache.known([request.key for request in sample])) == len({request.key for request in sample}):
        return {"prompts": "answered before"}
    found = backend.compare(sample)
    reporter.note(f"  prompts of the server: {found}")
    return {"prompts": found}


@dataclass
class Bounds:
    """Running totals of what a server keeps back."""

    candidates: int = 0
    bounded: int = 0

    def add(self, kept_back: Rows) -> None:
        """Count a block by how many answers of each candidate are bounds. Raises `StageError` where it is both."""
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
