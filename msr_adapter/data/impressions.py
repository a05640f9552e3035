"""Impressions: what a user was shown together and clicked, or did not click.

An item that was shown and not clicked is no history, no target and not seen: it may be a negative, and of the kind
`impressions` it is one of the very list that the user chose from. The clicks of one impression are one choice: the last
is the target, the others are positives beside it, and the history ends before the first.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from msr_adapter.arrays import Mask, Rows, ranges
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.pools import Pool
from msr_adapter.data.shown_items import Impressions, Shown
from msr_adapter.data.sorted_ids import places_of_ids

_KEYS = ["user", "group"]


def with_impressions(log: Log, known: pl.Series | None, *, add_items: bool, audit: Audit) -> Log:
    """Return a log that nothing is dropped of any more, with what was shown to its users and not clicked.

    ``known``: the table's items; None = there is no table. ``add_items``: items that nobody clicked are part of the
    catalogue, where they are cold. What was clicked in the same impression is not what was not clicked.
    """
    shown = log.shown
    if shown is None or log.group is None:
        return log
    user = places_of_ids(log.users, shown.users)[shown.user]
    mine = user >= 0
    unknown = np.zeros(len(shown.items), dtype=bool)
    if known is not None:
        unknown = ~np.asarray(shown.items.is_in(known.implode()).to_numpy(), dtype=bool)
        audit.count("shown_dropped_unknown_item", int((mine & unknown[shown.item]).sum()))
    if add_items:
        wanted = np.zeros(len(shown.items), dtype=bool)
        wanted[shown.item[mine]] = True
        log = _with_items(log, shown, wanted & ~unknown, audit)
    codes = places_of_ids(log.items, shown.items)
    item = codes[shown.item]
    kept = mine & (item >= 0) & (shown.group >= 0)
    rows = pl.DataFrame({"user": user[kept], "group": shown.group[kept], "item": item[kept].astype(np.int64)}).unique()
    clicked = pl.DataFrame({"user": log.user.astype(np.int64), "group": log.group, "item": log.item.astype(np.int64)})
    rows = rows.join(clicked, on=[*_KEYS, "item"], how="anti").sort(*_KEYS, "item")
    blocks = rows.group_by(_KEYS, maintain_order=True).agg(size=pl.len()).with_row_index("block")
    of_row = clicked.join(blocks, on=_KEYS, how="left", maintain_order="left")["block"].cast(pl.Int64).fill_null(-1)
    bounds = np.concatenate([[0], np.cumsum(blocks["size"].to_numpy())]).astype(np.int64)
    audit.count("shown_not_clicked", rows.height)
    audit.count("interactions_without_impression", int((of_row == -1).sum()))
    first_era = shown.first_eras(codes, len(log.items))
    found = Impressions(of_row.to_numpy(), bounds, rows["item"].to_numpy().astype(np.int32), first_era)
    return replace(log, shown=None, impressions=found)


def _with_items(log: Log, shown: Shown, wanted: Mask, audit: Audit) -> Log:
    """Return the log with the ``wanted`` items that were shown in its catalogue, although it has no row of them."""
    items = pl.concat([log.items, shown.items.filter(pl.Series(wanted))]).unique().sort()
    audit.count("items_only_shown", len(items) - len(log.items))
    code = places_of_ids(items, log.items).astype(np.int32)
    seen = None if log.seen is None else replace(log.seen, item=code[log.seen.item])
    first = log.first
    if first is not None:
        known, everything = first, np.full(len(items), np.iinfo(np.int64).max)
        place = places_of_ids(items, shown.items)
        there = place[shown.item] >= 0
        np.minimum.at(everything, place[shown.item[there]], shown.time[there])
        everything[code] = known
        first = everything
    return replace(log, items=items, item=code[log.item], seen=seen, first=first)


def shown_with(log: Log, targets: Rows) -> Pool:
    """Return what was shown and not clicked in the impressions of rows of the log, as the pool of a list each."""
    found = log.impressions
    assert found is not None, "impressions are asked for without any"
    low, high = found.span(targets)
    return Pool(found.item, low, high)


def free_of(pool: Pool, excluded: Mask) -> Rows:
    """Return how many items of each list's pool are not ``excluded`` (all places of all pools, list after list)."""
    width = pool.high - pool.low
    owner = np.repeat(np.arange(len(width)), width)
    return np.bincount(owner[~excluded], minlength=len(width)).astype(np.int64)


def places_of(pool: Pool) -> tuple[Rows, Rows]:
    """Return (list, item) of all places of all pools, list after list."""
    width = pool.high - pool.low
    return np.repeat(np.arange(len(width)), width), pool.items[ranges(pool.low, width)].astype(np.int64)
