"""Test candidates from a file: checked against the split and the log, and turned into the stage's own lists."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from msr_adapter.data.audit import LISTED, raise_if_any
from msr_adapter.data.corpus import Log, Rows
from msr_adapter.data.exchange import has_positives, read_lists
from msr_adapter.data.frozen import Candidates
from msr_adapter.data.hashing import below, stream
from msr_adapter.data.recipes import ListKeys
from msr_adapter.data.split import Examples
from msr_adapter.data.touched import Touched
from msr_adapter.errors import Problem

_STEP = "Use the data, k_core, limit, split and seed that the file was made with, or correct the file"


def read_imported(path: Path, log: Log, examples: Examples, seed: int) -> Candidates:
    """Return the test lists of a file, each list in the file's order; Elliot's get the split's targets.

    `UserError` with every problem: unknown or untested users, unknown items, touched negatives, repeated items, not
    exactly one positive, another positive than the split's target, no negative, test users without a list.
    """
    lists = _coded(read_lists(path), log, examples)
    named = has_positives(lists)
    raise_if_any(_problems(str(path), lists, log, examples, named))
    lists = lists.sort("example", maintain_order=True)
    example, item = lists["example"].to_numpy().astype(np.int64), lists["item"].to_numpy()
    if named:
        return Candidates(example, item, lists["label"].to_numpy())
    return _with_targets(example, item, log, examples, seed)


def _coded(lists: pl.DataFrame, log: Log, examples: Examples) -> pl.DataFrame:
    """Add the codes of users and items, the test example, and that example's target; null = there is none."""
    tests = np.flatnonzero(examples.split == 2)
    of_user = {"user": examples.user[tests], "example": tests, "target": log.item[examples.target[tests]]}
    users = pl.DataFrame({"user_id": log.users, "user": np.arange(len(log.users), dtype=np.int32)})
    items = pl.DataFrame({"item_id": log.items, "item": np.arange(len(log.items), dtype=np.int32)})
    return (
        lists.join(users, on="user_id", how="left", maintain_order="left")
        .join(items, on="item_id", how="left", maintain_order="left")
        .join(pl.DataFrame(of_user), on="user", how="left", maintain_order="left")
    )


def _problems(path: str, lists: pl.DataFrame, log: Log, examples: Examples, named: bool) -> Iterator[Problem]:
    """Yield one problem for each bad row or list, so many of a kind, then the count of the others."""
    is_negative, known = pl.col("label") == 0, pl.col("user").is_not_null() & pl.col("item").is_not_null()
    twice = known & (pl.struct("user", "item").cum_count().over("user", "item") > 1)
    rows = lists.with_columns(touched=_touched(lists, log))
    for mask, field, found in (
        (pl.col("label").is_null(), "label", pl.lit("neither 0 nor 1")),
        (pl.col("user").is_null(), "user_id", pl.format("unknown user '{}'", "user_id")),
        (pl.col("user").is_not_null() & pl.col("example").is_null(), "user_id",
         pl.format("the user '{}' is not tested", "user_id")),
        (pl.col("item").is_null(), "item_id", pl.format("unknown item '{}'", "item_id")),
        (known & is_negative & pl.col("touched"), "item_id",
         pl.format("the negative '{}' was touched by the user '{}'", "item_id", "user_id")),
        (twice, "item_id", pl.format("the item '{}' stands twice in the list of '{}'", "item_id", "user_id")),
        (known & ~is_negative & (pl.col("item") != pl.col("target")), "item_id",
         pl.format("the positive '{}' of the user '{}' is not the target of the split", "item_id", "user_id")),
    ):  # fmt: skip
        yield from _listed(path, field, rows.filter(mask).select("line", found.alias("found")))
    yield from _list_problems(path, lists, log, examples, named)


def _list_problems(path: str, lists: pl.DataFrame, log: Log, examples: Examples, named: bool) -> Iterator[Problem]:
    tested = lists.filter(pl.col("example").is_not_null())
    sums = tested.group_by("user_id", "example", maintain_order=True).agg(
        pl.col("line").first(), positives=(pl.col("label") == 1).sum(), negatives=(pl.col("label") == 0).sum()
    )
    if named:
        found = pl.format("{} positives for the user '{}'; exactly one is needed", "positives", "user_id")
        yield from _listed(path, "label", sums.filter(pl.col("positives") != 1).select("line", found=found))
    found = pl.format("no negative for the user '{}'", "user_id")
    yield from _listed(path, "label", sums.filter(pl.col("negatives") == 0).select("line", found=found))
    tests = np.flatnonzero(examples.split == 2)
    missing = tests[~np.isin(tests, sums["example"].to_numpy())]
    if len(missing):
        users = ", ".join(map(repr, log.users.gather(examples.user[missing[:3]]).to_list()))
        found_ = f"{len(missing):,} of {len(tests):,} test users have no list (such as {users})"
        yield Problem(path, "", found_, "a list for every test user", _STEP)


def _touched(lists: pl.DataFrame, log: Log) -> pl.Series:
    """Return whether the user ever touched the item; false where one of them is unknown."""
    known = (lists["user"].is_not_null() & lists["item"].is_not_null()).to_numpy()
    result = np.zeros(len(lists), dtype=bool)
    user, item = (lists[name].fill_null(0).to_numpy()[known] for name in ("user", "item"))
    result[known] = Touched(log, log.bounds(), user).by(np.arange(len(user)), item)
    return pl.Series(result)


def _listed(path: str, field: str, bad: pl.DataFrame) -> Iterator[Problem]:
    for line, found in bad.head(LISTED).iter_rows():
        yield Problem(f"{path}:{line}", field, found, "", _STEP if line == bad["line"][0] else "")
    if bad.height > LISTED:
        yield Problem(path, field, f"and {bad.height - LISTED:,} more like these")


def _with_targets(example: Rows, negatives: Rows, log: Log, examples: Examples, seed: int) -> Candidates:
    """Put the split's target at its seeded position among the negatives of each list, as if they had been drawn."""
    tests, first, counts = np.unique(example, return_index=True, return_counts=True)
    positive = log.item[examples.target[tests]]
    keys = ListKeys(log, seed).of(examples.user[tests], positive)
    position = below(stream(keys, np.zeros(len(tests), dtype=np.int64)), counts + 1)
    label = np.zeros(len(example) + len(tests), dtype=np.int8)
    label[first + np.arange(len(tests)) + position] = 1
    item = np.empty(len(label), dtype=np.int32)
    item[label == 1], item[label == 0] = positive, negatives
    return Candidates(np.repeat(tests, counts + 1), item, label)
