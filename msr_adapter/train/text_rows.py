"""Training rows of a question that a text answers: rows without the evidence, and pairs of a right and a wrong text."""

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Mask
from msr_adapter.candidate_rows import CandidateRows
from msr_adapter.llamafactory.dataset import TrainingRows


def with_bare(order: Codes, rows: int, share: float, generator: np.random.Generator) -> Codes:
    """Put among ``order`` as many more as ``share`` says, drawn from it: ``rows`` + r asks row r without evidence."""
    drawn = generator.permutation(order)[: round(share * len(order))]
    return generator.permutation(np.append(order, rows + drawn))


def some_bare(rows: CandidateRows, chosen: Codes, bare: str) -> TrainingRows:
    """Return rows in the numbers of `with_bare`; those without evidence have the prompt ``bare`` and no image."""
    without, chosen = chosen >= len(rows), chosen % len(rows)
    columns = {"prompt": rows.prompts(chosen), "image": rows.images(chosen), "bare": without}
    shown = pl.col("bare").not_()
    table = pl.DataFrame(columns).select(
        pl.when(shown).then("prompt").otherwise(pl.lit(bare)).alias("prompt"),
        pl.when(shown).then("image").otherwise(pl.lit([], pl.List(pl.String))).alias("image"),
    )
    return TrainingRows(table["prompt"], rows.answers(chosen), table["image"])


def right_rows(rows: CandidateRows) -> Codes:
    """Return for each row the place of a positive of its example, (rows,); -1 where there is none.

    An example's rows take turns among several.
    """
    examples, positives = rows.examples, np.flatnonzero(rows.labels > 0)
    if not len(positives):
        return np.full(len(rows), -1)
    first, end = (np.searchsorted(examples[positives], examples, side) for side in ("left", "right"))
    turn = np.arange(len(rows)) - np.searchsorted(examples, examples)
    place = first + turn % np.maximum(end - first, 1)
    found: Codes = np.where(end > first, positives[np.minimum(place, len(positives) - 1)], -1)
    return found


def pairs(rows: CandidateRows, right: Codes) -> tuple[Mask, int]:
    """Return which rows are the wrong text of a pair, and how many more would be if their text were another one."""
    wrong = (rows.labels == 0) & (right >= 0)
    places = np.flatnonzero(wrong)
    equal = (rows.answers(places) == rows.answers(right[places])).to_numpy()
    wrong[places[equal]] = False
    return wrong, int(equal.sum())


def some_pairs(rows: CandidateRows, right: Codes, chosen: Codes) -> TrainingRows:
    """Return pairs, of which ``chosen`` are the wrong texts."""
    asked = right[chosen]
    return TrainingRows(rows.prompts(asked), rows.answers(asked), rows.images(asked), rows.answers(chosen))
