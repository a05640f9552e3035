"""Which rows of a log were clicked, which item was merely shown, and which rows belong together."""

from collections.abc import Mapping

import polars as pl

from msr_adapter.data.id_forms import is_null_word
from msr_adapter.data.readers.column_names import canonical

_WORDS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
ALLOWED = "1 (clicked) or 0 (shown and not clicked)"
_USUAL = ("clicked", "isclick", "isclicked", "click", "clk")
"""What such a column is often called. It is only read where it is named: some logs hold clicks alone beside it."""


def clicked(name: str) -> pl.Expr:
    """Return whether a row was clicked; null = the column says neither."""
    # A numbered column with gaps may come as floats, whose text is `1.0`.
    text = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase().str.strip_suffix(".0")
    return text.replace_strict(_WORDS, default=None, return_dtype=pl.Boolean)


def impression(name: str) -> pl.Expr:
    """Return the impression of a row as text; null = none."""
    text = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when(text != "").then(text)


def session(name: str) -> pl.Expr:
    """Return the session of a row as text; null = none: empty, or a word for nothing."""
    text = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when((text != "") & ~is_null_word(text)).then(text)


def together(names: Mapping[str, str], *, shown: bool) -> list[pl.Expr]:
    """Return the columns impression, of a log that says what was ``shown``, and session, where it names them."""
    found = [impression(names["impression"]).alias("impression")] if shown and "impression" in names else []
    return [*found, session(names["session"]).alias("session")] if "session" in names else found


def not_read(header: list[str]) -> str | None:
    """Return a warning of a column that looks as if it said what was clicked; None = there is none."""
    found = next((name for name in header if canonical(name) in _USUAL), None)
    if found is None:
        return None
    return (f"The column {found} is not read: every row counts as an interaction. If 0 stands for what was shown and "
            f"not clicked there, set data.source.columns.clicked: {found}.")  # fmt: skip
