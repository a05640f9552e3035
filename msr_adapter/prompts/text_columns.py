"""Texts by column: patterns filled row by row, a function called once for equal values.

This is what makes vectorized prompts fast: Python works once per pattern or per distinct value, Polars on the rows.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes

Value = TypeVar("Value")
Quote = Callable[[str], str]
"""Escapes text; works character by character, so that joined escapes are the escape of what is joined."""
Pattern = Sequence[str]
"""Literals and, at odd places, the names of the columns between them."""


def split_at_marks(text: str, mark: str) -> Pattern:
    """Return the pattern behind a text that was rendered with ``mark + name + mark`` in place of each column."""
    return tuple(text.split(mark))


def fill(
    patterns: Mapping[int, Pattern], case: Codes, columns: Mapping[str, pl.Series], quote: Quote | None = None
) -> pl.Series:
    """Fill for every row the pattern of its case: at once all rows of the same case."""
    texts, places = [pl.Series(dtype=pl.String)], [np.empty(0, dtype=np.int64)]
    for number, pattern in patterns.items():
        if (rows := np.flatnonzero(case == number)).size:
            pieces: list[pl.Series | str] = []
            for place, piece in enumerate(pattern):
                if place % 2:
                    values = columns[piece].gather(rows)
                    pieces.append(by_value(values.to_list(), quote) if quote else values)
                else:
                    pieces.append(quote(piece) if quote else piece)
            texts.append(joined(pieces, len(rows)))
            places.append(rows)
    # The places are a permutation of the rows, and sorting it inverts it.
    return pl.concat(texts).gather(np.argsort(np.concatenate(places)))


def joined(columns: Sequence[pl.Series | str], rows: int) -> pl.Series:
    """Return columns and constants joined row by row."""
    if all(isinstance(column, str) for column in columns):
        return pl.Series(["".join(map(str, columns))]).new_from_index(0, rows)
    return pl.select(pl.concat_str([pl.lit(column) for column in columns])).to_series()


def by_value(values: Sequence[Value], function: Callable[[Value], str]) -> pl.Series:
    """Return ``function`` of every value, called once for equal ones."""
    known = {value: function(value) for value in dict.fromkeys(values)}
    return pl.Series(map(known.__getitem__, values), dtype=pl.String)
