"""A source's own split column: what each row is for."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from msr_adapter.errors import Problem

Parts = NDArray[np.int8]

PARTS = {"train": 0, "validation": 1, "test": 2}
"""What a reader's split column says, and the split code it stands for."""


def part_code() -> pl.Expr:
    """Return the split code of the column split; -1 where it is null."""
    return pl.col("split").replace_strict(PARTS, return_dtype=pl.Int8).fill_null(-1).alias("part")


def part_problems(interactions: pl.LazyFrame) -> list[Problem]:
    """Return a problem when there is no split column for `split.kind: column`; its values are the reader's care."""
    if "split" in interactions.collect_schema().names():
        return []
    step = (
        "Add one, name it in data.source.columns.split (its other values are then told), or choose another split.kind"
    )
    found = "column, but no column of splits says train, validation or test in every row"
    return [Problem("", "split.kind", found, "a column `split`, `x_label` or `subset` that does", step)]
