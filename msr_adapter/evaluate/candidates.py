"""The candidate lists of a held-out split, and scores that fit them row by row."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Integers, Labels
from msr_adapter.errors import StageError, plural
from msr_adapter.model_scores import read_model_scores
from msr_adapter.schema import CANDIDATES, EXAMPLES, candidates_digest, read_listed, read_table
from msr_adapter.seeded_random import draw

MOST_WEIGHED = 2_000
"""Validation users whose lists fitted baselines score for a hybrid: the most that one may be fitted on."""


@dataclass(frozen=True)
class HeldOut:
    """Candidates of the test split (or of validation): n rows, grouped by example; one example is one user."""

    example_ids: Integers
    """(users,), ascending."""
    user_ids: pa.Array
    """(users,)"""
    offsets: Integers
    """(users + 1,): the rows of each example."""
    table: pa.Table
    """CANDIDATES of the split (n rows)."""
    digest: str
    """That of the rows (`schema.candidates_digest`)."""

    @property
    def labels(self) -> Labels:
        """1 = the target (n,)."""
        return np.asarray(self.table["label"].to_numpy(), dtype=np.int8)

    @property
    def items(self) -> pa.Array:
        """Item ids (n,)."""
        return flat(self.table["item_id"])


def flat(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one contiguous array."""
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def read_held_out(data_dir: Path, split: str = "test") -> HeldOut:
    """Read a split's candidates. Raises StageError if there are none or examples and candidates disagree."""
    examples = read_table(data_dir / "examples.parquet", EXAMPLES)
    test = examples.filter(pc.equal(examples["split"], split)).select(["example_id", "user_id"])
    rows = read_table(data_dir / "candidates.parquet", CANDIDATES)
    rows = rows.filter(pc.is_in(rows["example_id"], value_set=flat(test["example_id"])))
    if not test.num_rows:
        raise StageError(
            f"the {split} split is empty", "too few users for the split", "use more users or another split"
        )
    ids = rows["example_id"].to_numpy()
    # The first row begins a list, where there is one at all.
    starts = np.flatnonzero(np.concatenate([[len(ids) > 0], ids[1:] != ids[:-1]]))
    expected = test["example_id"].to_numpy()
    if not np.array_equal(ids[starts], expected):
        missing = len(np.setdiff1d(expected, ids))
        cause = f"{missing} of {len(expected)} {split} examples have no candidates, or rows are not grouped in order"
        raise StageError(f"candidates do not fit the {split} examples", cause, "run again with `--force data`")
    offsets = np.append(starts, len(ids)).astype(np.int64)
    digest = candidates_digest(lambda name: rows[name].chunks)
    return HeldOut(expected, flat(test["user_id"]), offsets, rows, digest)


def read_some(data_dir: Path, wanted: int, seed: int) -> HeldOut | None:
    """Return the lists of at most ``wanted`` validation users, drawn by ``seed``; None where the split has none.

    Whoever wants more gets the same users and others.
    """
    split = read_table(data_dir / "examples.parquet", EXAMPLES, ["split"])["split"]
    if not pc.any(pc.equal(split, "validation")).as_py():
        return None
    every = read_held_out(data_dir, "validation")
    examples = draw(every.example_ids, wanted, seed)
    places = np.searchsorted(every.example_ids, examples)
    table = every.table.filter(pc.is_in(every.table["example_id"], value_set=pa.array(examples)))
    offsets = np.concatenate([[0], np.cumsum(np.diff(every.offsets)[places])]).astype(np.int64)
    return HeldOut(examples, every.user_ids.take(pa.array(places)), offsets, table, every.digest)


def read_items(data_dir: Path) -> pa.Table:
    """Read what of ITEMS lists and full rankings may have: the catalogue of the protocol."""
    return read_listed(data_dir / "items.parquet")


def item_codes(ids: pa.Array, items: pa.Array) -> Integers:
    """Return the row of ITEMS of every id. Raises StageError, with the count, on ids that are no item."""
    rows = pc.index_in(ids, value_set=items)
    if rows.null_count:
        are = "is" if rows.null_count == 1 else "are"
        found = f"{plural(rows.null_count, 'id')} {are} not in the table of items"
        raise StageError(found, next_step="run again with `--force data`")
    return np.asarray(rows.to_numpy(), dtype=np.int64)


def read_scores(held_out: HeldOut, model: str, folder: Path) -> pa.Table:
    """Read SCORES, or RATIOS, (n rows) of ``model``, one for each candidate and in the same order.

    Raises StageError with counts of missing, unexpected, repeated, misplaced or NaN scores: none of them ever becomes
    a zero, and rows are matched by their ids, never by position alone.
    """
    table = read_model_scores(folder / "scores.parquet")
    same_length = table.num_rows == held_out.table.num_rows
    if not (same_length and all(table[key].equals(held_out.table[key]) for key in ("example_id", "item_id"))):
        raise StageError(
            f"scores of {model!r} do not fit the candidates: {_differences(held_out.table, table)}",
            "they belong to other candidates, or a file was changed by hand",
            f"run again with `--force {folder.name}`",
        )
    # A null in a column of floats comes to NumPy as NaN, so it is counted too.
    numbers = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    bad = {name: int(np.isnan(table[name].to_numpy()).sum()) for name in numbers}
    if any(bad.values()):
        counts = ", ".join(f"{count} {name}" for name, count in bad.items() if count)
        cause = "the model's outputs overflowed; half precision is the usual reason"
        raise StageError(f"NaN among the {table.num_rows} scores of {model!r}: {counts}", cause, "use another dtype")
    return table


def _differences(candidates: pa.Table, scores: pa.Table) -> str:
    wanted, found = _keys(candidates), _keys(scores)
    counts = {
        "missing": len(set(wanted) - set(found)),
        "unexpected": len(set(found) - set(wanted)),
        "repeated": len(found) - len(set(found)),
    }
    if not any(counts.values()):
        counts["out of order"] = sum(a != b for a, b in zip(wanted, found, strict=False))
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _keys(table: pa.Table) -> list[tuple[int, str]]:
    return list(zip(table["example_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))
