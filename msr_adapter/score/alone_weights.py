"""What `train.text_answer.alone_weight` makes of validation users' lists: GAUC by weight, no model asked again."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Floats
from msr_adapter.config.schema import TextAnswerConfig
from msr_adapter.errors import plural
from msr_adapter.metrics import evaluate_groups
from msr_adapter.progress import Reporter

WEIGHTS: tuple[float, ...] = (*(n / 10 for n in range(8)), *(n / 100 for n in range(80, 112, 2)))
"""Weights that are looked at: closer to each other around the ratio."""
_METRIC = "gauc"


class Terms(NamedTuple):
    """What a text's score is made of, each (texts,)."""

    given: Floats
    """log p(text) with the evidence."""
    alone: Floats
    """log p(text) without."""
    tokens: npt.NDArray[np.integer]

    def scores(self, length: str, weight: float) -> Floats:
        """Return the scores (texts,): the difference of both terms, of which the second counts by its ``weight``."""
        return (self.given - weight * self.alone) / (self.tokens if length == "mean" else 1)


def weigh_alone(folder: Path, answer: TextAnswerConfig, reporter: Reporter) -> dict[str, float]:
    """Return the GAUC of the weight in use and of the best one, and say so.

    ``folder`` has candidates of whole lists (CANDIDATES) and their scores (RATIOS), row by row. The best of many
    weights is a little too good for the users it was chosen on: other users are to judge it.
    """
    candidates = schema.read_table(folder / "candidates.parquet", schema.CANDIDATES, ["example_id", "label"])
    table = schema.read_table(folder / "scores.parquet", schema.RATIOS)
    labels, examples = candidates["label"].to_numpy(), candidates["example_id"].to_numpy()
    starts = np.flatnonzero(np.diff(examples, prepend=-1))
    terms = terms_of(table)

    def gauc(weight: float) -> float:
        scores, offsets = terms.scores(answer.length, weight), np.append(starts, len(labels))
        return evaluate_groups(scores, labels, offsets, [_METRIC], [1]).means()[_METRIC]

    used = answer.alone_weight
    # Of equal weights that in use, else the one nearest to the ratio.
    best, highest = used, gauc(used)
    for weight in sorted(WEIGHTS, key=lambda one: abs(one - 1)):
        if (found := gauc(weight)) > highest:
            best, highest = weight, found
    reporter.note(
        f"  {plural(len(starts), 'validation user')}: GAUC {gauc(used):.4f} with train.text_answer.alone_weight "
        f"{used:g}" + (f"; at best {highest:.4f}, with {best:g}" if best != used else ", the best of those looked at")
    )
    return {"gauc": gauc(used), "alone_weight_best": best, "gauc_best": highest}


def terms_of(table: pa.Table) -> Terms:
    """Return the terms of RATIOS."""
    return Terms(*(table[name].to_numpy() for name in Terms._fields))
