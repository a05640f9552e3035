"""Items of the table that no row of the source names: tomorrow's catalogue.

They are kept, so that they can be described, embedded, retrieved and recommended, and counted apart. Candidate lists
and full rankings have them only under `evaluate.protocol.catalogue: all`, and training lists never: an item without an
interaction could only be a negative there. An item whose rows a filter dropped is none of them: something was known
of it, and the filter says that it is not wanted.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from msr_adapter.config.schema import LimitConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.temporal import ERAS
from msr_adapter.errors import plural
from msr_adapter.seeded_random import seeded_order


def kept_unseen(log: Log, limit: LimitConfig, seed: int, audit: Audit) -> pl.Series:
    """Return the ids, sorted, of the items without an interaction that `limit` keeps; count them and the others."""
    if log.unseen is None:
        return pl.Series(dtype=pl.String)
    found = log.unseen
    audit.count("items_without_interaction", len(found))
    # The most popular items are asked for: what nobody interacted with is none of them.
    most = limit.unseen_items if limit.unseen_items is not None else 0 if limit.items is not None else len(found)
    kept = found
    if most < len(found):
        kept = found.gather(np.sort(seeded_order(found.to_list(), seed, "unseen items")[:most]))
        why = "data.limit.unseen_items" if limit.unseen_items is not None else "data.limit.items"
        audit.find("info", f"Left out {len(found) - most:,} of {plural(len(found), 'item')} of the table without an "
                   f"interaction: {why}. data.limit.unseen_items says how many of them are kept.")  # fmt: skip
    audit.count("items_without_interaction_kept", len(kept))
    return kept


def with_unseen(log: Log, ids: pl.Series) -> Log:
    """Return the log with the items ``ids``, of which it has no row, in its catalogue: lists may have them.

    Under a split by time they are on offer all the time: of what nobody interacted with, nothing says since when.
    """
    if not len(ids):
        return log
    items = pl.concat([log.items, ids]).sort()
    code = items.search_sorted(log.items).to_numpy().astype(np.int32)
    only = np.ones(len(items), dtype=bool)
    only[code] = False
    first, impressions = log.first, log.impressions
    if first is not None:
        extended = np.full(len(items), np.iinfo(np.int64).min)
        extended[code] = first
        first = extended
    if impressions is not None:
        eras = impressions.first_era
        if eras is not None:
            later = np.full(len(items), ERAS, dtype=np.int8)
            later[code] = eras
            eras = later
        impressions = replace(impressions, item=code[impressions.item], first_era=eras)
    seen = None if log.seen is None else replace(log.seen, item=code[log.seen.item])
    return replace(log, items=items, item=code[log.item], seen=seen, first=first, impressions=impressions,
                   table_only=only)  # fmt: skip
