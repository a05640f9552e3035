"""What `train.text_answer.alone_weight` makes of validation users' lists, by weight: no model is asked again."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Floats
from msr_adapter.config.schema import TextAnswerConfig
from msr_adapter.errors import plural
from msr_adapter.metrics import evaluate_groups, label
from msr_adapter.progress import Reporter

WEIGHTS: tuple[float, ...] = (*(n / 10 for n in range(8)), *(n / 100 for n in range(80, 112, 2)))
"""Weights that are looked at: closer to each other around the ratio."""
_GAUC = "gauc"


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


class Weighed(NamedTuple):
    """A metric of validation users, by the weight in use and by the best one."""

    metric: str
    value: float
    best: float
    weight: float
    """The best weight: of equal ones that in use, else the one nearest to the ratio."""


def weigh_alone(folder: Path, answer: TextAnswerConfig, primary: str, reporter: Reporter) -> dict[str, Any]:
    """Return GAUC and the ``primary`` metric (such as ndcg@10) of the weight in use and of the best one, and say so.

    The two may want different weights: whole lists count for GAUC, first places for NDCG. ``folder`` has candidates of
    whole lists (CANDIDATES) and their scores (RATIOS), row by row. The best of many weights is a little too good for
    the users it was chosen on: other users are to judge it.
    """
    candidates = schema.read_table(folder / "candidates.parquet", schema.CANDIDATES, ["example_id", "label"])
    labels, examples = candidates["label"].to_numpy(), candidates["example_id"].to_numpy()
    starts = np.flatnonzero(np.diff(examples, prepend=-1))
    offsets, terms = (
        np.append(starts, len(labels)),
        terms_of(schema.read_table(folder / "scores.parquet", schema.RATIOS)),
    )
    name, _, k = primary.partition("@")
    asked = {_GAUC: (_GAUC, 1)} | ({primary: (name, int(k))} if k else {})
    used = answer.alone_weight

    def means(weight: float) -> dict[str, float]:
        judged = (name for name, _ in asked.values())
        depths = {k for _, k in asked.values()}
        return evaluate_groups(
            terms.scores(answer.length, weight), labels, offsets, list(judged), sorted(depths)
        ).means()

    by_weight = {weight: means(weight) for weight in (used, *sorted(WEIGHTS, key=lambda one: abs(one - 1)))}
    found = []
    for metric in asked:
        best = max(by_weight, key=lambda weight: by_weight[weight][metric])  # the first of equal ones
        found.append(Weighed(metric, by_weight[used][metric], by_weight[best][metric], best))
    reporter.note(f"  {plural(len(starts), 'validation user')}, train.text_answer.alone_weight {used:g}: "
                  + "; ".join(map(_told, found)))  # fmt: skip
    return {"weighed": [one._asdict() for one in found]}


def _told(one: Weighed) -> str:
    best = "" if one.best == one.value else f", at best {one.best:.4f} with {one.weight:g}"
    return f"{label(one.metric)} {one.value:.4f}" + (best or ", the best of those looked at")


def terms_of(table: pa.Table) -> Terms:
    """Return the terms of RATIOS."""
    return Terms(*(table[name].to_numpy() for name in Terms._fields))
