"""A split that the source publishes: its rows by split from the file to the targets, and what of it is lost on the way.

The counts are `{split}_rows_{what}` of `audit.json`: `test_rows_read`, `test_rows_dropped_k_core`.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Mask
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.reader import FILTERED, NOT_CLICKED
from msr_adapter.errors import plural
from msr_adapter.schema import SPLITS

_REASONS = {
    "low_rating": "rated too low",
    "no_time": "without a time",
    "duplicate": "repeat an earlier training row",
    "unknown_item": "of items that the table of items lacks",
    "item_limit": "of items beyond data.limit.items",
    "k_core": "below data.k_core",
    "user_limit": "of users beyond data.limit.users",
}
"""Reason of a drop -> how a message ends."""


def count_rows(audit: Audit, what: str, rows: Codes | None, left: Codes | None = None) -> None:
    """Count rows by their split; with ``left``, those that are no longer there. Nothing where there is no split."""
    if rows is None:
        return
    for code, name in enumerate(SPLITS):
        gone = 0 if left is None else int(np.count_nonzero(left == code))
        audit.count(f"{name}_rows_{what}", int(np.count_nonzero(rows == code)) - gone)


def count_filtered(audit: Audit, filtered: Codes, split: Codes | None) -> None:
    """Count the rows that a filter of the source drops (places in `FILTERED`), by their split where there is one."""
    for code, reason in enumerate(FILTERED):
        if number := int(np.count_nonzero(filtered == code)):
            audit.count(f"interactions_dropped_{reason}", number)
            if code != NOT_CLICKED:  # a published split loses nothing by what is no interaction
                count_rows(audit, f"dropped_{reason}", None if split is None else split[filtered == code])


@dataclass(frozen=True)
class HeldOutRows:
    """The kept rows of a log whose source publishes a split, and which of them are targets."""

    user: Codes
    item: Codes
    split: Codes
    is_target: Mask
    keeps: bool
    """Whether repeats are interactions like others (`Log.keeps`)."""


def tell_what_is_lost(rows: HeldOutRows, audit: Audit) -> None:
    """Warn of rows of a published split that are dropped or tested no longer; count the targets that repeat an item.

    O(rows) and, for the targets, O(targets log targets).
    """
    for code, name in enumerate(SPLITS):
        read, prefix = audit.counts[f"{name}_rows_read"], f"{name}_rows_dropped_"
        lost = {key.removeprefix(prefix): number for key, number in audit.counts.items() if key.startswith(prefix)}
        lost = {reason: number for reason, number in lost.items() if number}
        if lost:
            why = ", ".join(f"{number:,} {_REASONS.get(reason, reason)}" for reason, number in lost.items())
            audit.find("warning", f"The published split loses {sum(lost.values()):,} of its "
                       f"{plural(read, f'{name} row')}: {why}. Numbers are not those of the whole split.")  # fmt: skip
        if code:
            _tell_untested(rows, code, audit)


def _tell_untested(rows: HeldOutRows, code: int, audit: Audit) -> None:
    """Warn of held-out rows that are no targets, and note targets whose item the user has in another row."""
    name = SPLITS[code]
    users = int(rows.user.max(initial=-1)) + 1
    # Where all rows of a user say the same, the split is one of users: the rows before the last are its history.
    by_row = np.zeros(users, dtype=bool)
    by_row[rows.user[rows.split < code]] = True
    held_out = (rows.split == code) & by_row[rows.user]
    untested = int(np.count_nonzero(held_out & ~rows.is_target))
    audit.count(f"{name}_rows_no_target", untested)
    if untested:
        are = "is no target" if untested == 1 else "are no targets"
        audit.find("warning", f"{untested:,} of {plural(int(held_out.sum()), f'{name} row')} of the published split "
                   f"{are}: of each user the last one is, with split.min_history items before it. Numbers are not "
                   "those of the whole split.")  # fmt: skip
    repeated = _repeated_targets(rows, code, users)
    audit.count(f"{name}_targets_repeated", repeated)
    if repeated:
        audit.find("info", f"{plural(repeated, f'{name} target')} of the published split "
                   f"{'is an item' if repeated == 1 else 'are items'} that the user has in another row too: that row "
                   f"stays where it is{'' if rows.keeps else ', but not in the history of this target'}.")  # fmt: skip


def _repeated_targets(rows: HeldOutRows, code: int, users: int) -> int:
    """Count the targets of a split (one of each user at most) whose item their user has in another row."""
    targets = np.flatnonzero(rows.is_target & (rows.split == code))
    wanted = np.full(users, -1, dtype=np.int64)
    wanted[rows.user[targets]] = rows.item[targets]
    others = (wanted[rows.user] == rows.item) & ~(rows.is_target & (rows.split == code))
    return len(np.unique(rows.user[others]))


def unused_split(interactions: pl.LazyFrame, kind: str, audit: Audit) -> None:
    """Warn that the source says a split which the pipeline does not use."""
    if kind == "column" or "split" not in interactions.collect_schema().names():
        return
    named = [f"the column {one.columns['split']} of {one.file}" for one in audit.recognised if "split" in one.columns]
    audit.find("warning", f"The source publishes a split: {named[0] if named else 'it'} says train, validation or test "
               f"of every row. split.kind: {kind} makes another one; set split.kind: column to keep the published "
               "split.")  # fmt: skip
