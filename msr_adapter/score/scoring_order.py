"""In which order candidates are put to the model: side by side stand those whose prompts begin alike."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from msr_adapter.arrays import Codes
from msr_adapter.candidate_rows import CandidateRow, CandidateRows
from msr_adapter.generation.request import IMAGE_PLACEHOLDER

Leading = Literal["users", "items"]

_SAMPLE = 32
"""Users, and items, whose first two prompts are compared."""
_IMAGE = 600
"""Characters that an image counts for: about 200 tokens."""


@dataclass(frozen=True)
class CandidateOrder:
    """Places of a block's rows in the order of asking."""

    leading: Leading
    places: Codes


def choose_order(rows: CandidateRows, leading: Leading | None = None) -> CandidateOrder:
    """Return the order that lets neighbours share most: by user, as they stand, or by item.

    The template decides: whatever stands first in it, prompts of the same user or of the same item begin alike. It is
    looked at through some prompts of each kind, so that templates of any make are understood. ``leading``, where it is
    known already, is taken as it is.
    """
    if leading is None:
        by_user = _alike(rows, np.asarray(rows.examples)) * (len(rows) - len(np.unique(rows.examples)))
        by_item = _alike(rows, np.asarray(rows.items)) * (len(rows) - len(np.unique(rows.items)))
        leading = "items" if by_item > by_user else "users"
    return CandidateOrder(
        leading, np.argsort(rows.items, kind="stable") if leading == "items" else np.arange(len(rows))
    )


def _alike(rows: CandidateRows, codes: Codes) -> float:
    """Return the mean number of characters that two prompts of the same code have in common at the start.

    Over at most `_SAMPLE` codes that have two rows; 0 without any.
    """
    order = np.argsort(codes, kind="stable")
    second = np.flatnonzero(np.diff(codes[order]) == 0) + 1
    first_of_code = second[np.unique(codes[order][second], return_index=True)[1]]
    chosen = first_of_code[:: max(1, len(first_of_code) // _SAMPLE)][:_SAMPLE]
    if not len(chosen):
        return 0.0
    pairs = zip(rows.take(order[chosen - 1]), rows.take(order[chosen]), strict=True)
    return float(np.mean([_common(one, other) for one, other in pairs]))


def _common(one: CandidateRow, other: CandidateRow) -> int:
    """Return how many characters both prompts begin with; an image counts as `_IMAGE` if it is the same."""
    texts = [_with_digests(row) for row in (one, other)]
    end = next((at for at, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    return end + _IMAGE * sum(f"<{image.digest}>" in texts[0][:end] for image in set(one.images))


def _with_digests(row: CandidateRow) -> str:
    """Return a row's prompt, its images by their digests."""
    first, *rest = row.prompt.split(IMAGE_PLACEHOLDER)
    return first + "".join(f"<{image.digest}>{text}" for image, text in zip(row.images, rest, strict=True))
