"""Items by falling scores: of a file of the user's own, and of what an earlier run's model scored."""

from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Mask
from msr_adapter.config.schema import NegativesConfig
from msr_adapter.data.audit.ids import near_text
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.id_forms import near_matches
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.pools import HardNegatives, SeenItems
from msr_adapter.data.readers.id_columns import id_text
from msr_adapter.data.readers.parse_errors import places
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.data.readers.table_scan import (
    collect,
    column_names,
    of_a_side_file,
    scan,
    schema_of,
    tell_reading,
    whole_lines,
)
from msr_adapter.data.temporal import EVERYTHING, Horizon
from msr_adapter.errors import Problem, StageError, UserError, plural, raise_if_any
from msr_adapter.filesystem import absent
from msr_adapter.model_scores import MINED
from msr_adapter.schema import read_table

_NAMES = {"user": ("user_id", "user"), "item": ("item_id", "item"), "score": ("score",)}
_BLOCK = 2**22
"""Pairs of a user and an item that are looked up at a time."""


def read_hard_negatives(
    negatives: NegativesConfig, log: Log, audit: Audit, horizon: Horizon = EVERYTHING
) -> HardNegatives:
    """Read item_id, score and perhaps user_id; keep each list's `pool` best. `UserError` with all that is wrong.

    What the user has seen is left out before the best are chosen, if that is excluded, and what there is not to draw.
    Rows of unknown users and items are counted.
    """
    pool, path = negatives.pool, negatives.scores
    assert path is not None, "hard negatives without scores"
    frame = _known(read_scores(path, audit), log, audit)
    by_user = "user_id" in frame.columns
    user, item = _best(frame, pool, log, horizon, but_seen=by_user and negatives.exclude != "target")
    lists = len(log.users) if by_user else 1
    return HardNegatives(item, np.searchsorted(user, np.arange(lists + 1)), by_user)


def read_mined_negatives(path: Path, top: int, log: Log, audit: Audit, horizon: Horizon = EVERYTHING) -> HardNegatives:
    """Read MINED; keep each user's ``top`` best of what the user has not seen, whatever `exclude` says.

    An item that a user interacts with again and again would come out on top, and is what the user likes.
    """
    scored = pl.DataFrame(read_table(path, MINED))
    frame = _known(scored, log, Audit())
    if frame.height < scored.height:  # `check` has compared the two logs: they differ, or the files are of two runs
        raise StageError(
            f"{scored.height - frame.height:,} of {plural(scored.height, 'mined item')} are of another log",
            "files of different runs were mixed", "run again with --force mine",
        )  # fmt: skip
    user, item = _best(frame, top, log, horizon, but_seen=True)
    bounds = np.searchsorted(user, np.arange(len(log.users) + 1))
    lengths = np.diff(bounds)
    users, short = int((lengths > 0).sum()), int(((lengths > 0) & (lengths < top)).sum())
    audit.count("users_with_mined_items", users)
    audit.count("users_with_mined_items_short", short)
    fewer = f", {short:,} of them fewer" if short else ""
    audit.find("info", f"{plural(users, 'user has', 'users have')} up to {top:,} items each to draw mined negatives "
               f"among{fewer}: those that an earlier run's model scored highest.")  # fmt: skip
    return HardNegatives(item, bounds, by_user=True)


def _best(frame: pl.DataFrame, count: int, log: Log, horizon: Horizon, *, but_seen: bool) -> tuple[Codes, Codes]:
    """Return user and item of the ``count`` highest-scored rows of each user, by user and falling score.

    What there is not to draw is left out first, and with ``but_seen`` what the user has seen.
    """
    if horizon.items is not None:
        frame = frame.filter(pl.Series(horizon.items[frame["item"].to_numpy()]))
    user, item = frame["user"].to_numpy(), frame["item"].to_numpy()
    # By user, then falling score; of a pair that comes twice the higher score stays, which is the first in that order.
    order = np.lexsort((item, -frame["score"].to_numpy(), user))
    order = order[np.sort(np.unique(user[order].astype(np.int64) * len(log.items) + item[order], return_index=True)[1])]
    user, item = user[order], item[order]
    if but_seen:
        unseen = _unseen(log, user, item, horizon)
        user, item = user[unseen], item[unseen]
    best = np.arange(len(user)) - np.searchsorted(user, user) < count
    return user[best], item[best]


def _unseen(log: Log, user: Codes, item: Codes, horizon: Horizon) -> Mask:
    """Return in which pairs (sorted by user) the user has not seen the item, in blocks of pairs."""
    bounds = log.bounds()
    parts = [slice(begin, begin + _BLOCK) for begin in range(0, len(user), _BLOCK)]
    kept = [~SeenItems(log, bounds, user[part], horizon).by(np.arange(len(user[part])), item[part]) for part in parts]
    return np.concatenate([np.empty(0, dtype=bool), *kept])


def read_scores(path: Path, audit: Audit | None = None) -> pl.DataFrame:
    """Return the file's score and ids as text. `UserError` if it is no such table."""
    where = str(path)
    if not path.is_file():
        raise UserError(Problem(where, "scores", absent(path), "a parquet, csv or tsv file", "Correct `scores`"))
    file = table_at(path)
    try:
        header = column_names(file)
        names = {field: next((name for name in known if name in header), None) for field, known in _NAMES.items()}
        raise_if_any(
            Problem(where, field, f"no column {' or '.join(_NAMES[field])}", f"columns found: {', '.join(header)}")
            for field in ("item", "score")
            if names[field] is None
        )
        frame = scan(file, [name for name in names.values() if name])
        types = schema_of(file, frame)
        wanted = [
            (pl.col(name).cast(pl.Float64, strict=False) if field == "score" else id_text(name, types[name]))
            .alias(_NAMES[field][0])
            for field, name in names.items() if name
        ]  # fmt: skip
        collect(file, frame.select(**whole_lines(file), rows=pl.len()))  # fails on lines with too many fields
        table = collect(file, frame.select(wanted))
    except UserError as error:
        raise UserError(of_a_side_file(problem, "scores", "Correct the line") for problem in error.problems) from error
    if audit is not None:
        tell_reading(file, audit, table.height)
    bad = table.select(~pl.col("score").is_finite().fill_null(False)).to_series()
    if bad.any():
        first = next(islice(places(file), int(bad.arg_max() or 0), None)).line
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
        given = table[f"{field}_id"].unique(maintain_order=True).drop_nulls()
        near = near_matches(given.filter(given.is_in(ids.implode()).not_()), ids)
        if text := near_text(near, "the log"):
            audit.find("warning", f"Scores of hard negatives are left out, as the log lacks their {field}s.{text}",
                       "near-ids")  # fmt: skip
        table = found
    return table
