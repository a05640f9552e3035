"""Hard negatives: a scores file turned into the highest-scored items, of each user or of all."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from msr_adapter.data.audit import Audit, raise_if_any
from msr_adapter.data.corpus import Codes, Log, Rows
from msr_adapter.data.touched import Touched
from msr_adapter.errors import Problem, UserError

_NAMES = {"user": ("user_id", "user"), "item": ("item_id", "item"), "score": ("score",)}
_SUFFIXES = {".csv": ",", ".tsv": "\t"}
_BLOCK = 2**22


@dataclass(frozen=True)
class HardLists:
    """Items by falling score: those of user u are ``items[bounds[u]:bounds[u + 1]]``; user 0 is all, if not by_user."""

    items: Codes
    bounds: Rows
    by_user: bool


def read_hard_lists(path: Path, log: Log, pool: int, audit: Audit) -> HardLists:
    """Read item_id, score and perhaps user_id; keep each list's ``pool`` best. `UserError` with all that is wrong.

    What the user touched is left out before the best are taken. Rows of unknown users and items are counted.
    """
    frame = _known(_read(path), log, audit)
    user, item = frame["user"].to_numpy(), frame["item"].to_numpy()
    order = np.lexsort((item, -frame["score"].to_numpy(), user))
    order = order[np.sort(np.unique(user[order].astype(np.int64) * len(log.items) + item[order], return_index=True)[1])]
    user, item = user[order], item[order]
    by_user = "user_id" in frame.columns
    if by_user:
        untouched = _untouched(log, user, item)
        user, item = user[untouched], item[untouched]
    best = np.arange(len(user)) - np.searchsorted(user, user) < pool
    user, item = user[best], item[best]
    lists = len(log.users) if by_user else 1
    return HardLists(item, np.searchsorted(user, np.arange(lists + 1)), by_user)


def _untouched(log: Log, user: Codes, item: Codes) -> np.ndarray:
    """Return which pairs (sorted by user) no user touched, in blocks of pairs."""
    bounds = log.bounds()
    parts = [slice(begin, begin + _BLOCK) for begin in range(0, len(user), _BLOCK)]
    kept = [~Touched(log, bounds, user[part]).by(np.arange(len(user[part])), item[part]) for part in parts]
    return np.concatenate([np.empty(0, dtype=bool), *kept])


def _read(path: Path) -> pl.DataFrame:
    """Return the file's score and ids as text. `UserError` if it is no such table."""
    where = str(path)
    if not path.is_file():
        raise UserError(Problem(where, "scores", "no such file", "a parquet, csv or tsv file", "Correct `scores`"))
    separator = _SUFFIXES.get(path.suffix.lower())
    try:
        frame = pl.scan_csv(path, separator=separator, infer_schema=False) if separator else pl.scan_parquet(path)
        header = frame.collect_schema().names()
        names = {field: next((name for name in known if name in header), None) for field, known in _NAMES.items()}
        raise_if_any(
            Problem(where, field, f"no column {' or '.join(_NAMES[field])}", f"columns found: {', '.join(header)}")
            for field in ("item", "score")
            if names[field] is None
        )
        wanted = [pl.col(name).alias(_NAMES[field][0]) for field, name in names.items() if name]
        ids = pl.col("^(user|item)_id$").cast(pl.String).str.strip_chars()
        table = frame.select(wanted).with_columns(ids, pl.col("score").cast(pl.Float64, strict=False)).collect()
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise UserError(Problem(where, "scores", f"cannot be read ({error})")) from error
    bad = table.select(~pl.col("score").is_finite().fill_null(False)).to_series()
    if bad.any():
        first = int(bad.arg_max() or 0) + (2 if separator else 1)
        raise UserError(Problem(f"{where}:{first}", "score", f"no number, as in {int(bad.sum()):,} rows", "a number"))
    return table


def _known(table: pl.DataFrame, log: Log, audit: Audit) -> pl.DataFrame:
    """Return the rows of known users and items, with their codes as ``user`` and ``item``; count the others."""
    for field, ids in (("item", log.items), ("user", log.users)):
        if f"{field}_id" not in table.columns:
            table = table.with_columns(pl.lit(0, pl.Int32).alias(field))
            continue
        codes = pl.DataFrame({f"{field}_id": ids, field: np.arange(len(ids), dtype=np.int32)})
        found = table.join(codes, on=f"{field}_id", how="inner", maintain_order="left")
        audit.count(f"hard_scores_dropped_unknown_{field}", table.height - found.height)
        table = found
    return table
