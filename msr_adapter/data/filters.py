"""What is kept of a log: known items, popular items, the k-core, a sample of users. Every drop is counted.

Under a split by time, degrees and popularity are those of the rows before validation begins, and users who are known
then are drawn first: whatever happens later changes nothing that is kept of those rows. A minimum of 1 is none, and
keeps what appears later.
"""

from dataclasses import replace

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Labels, Mask
from msr_adapter.config.schema import DataConfig, KCoreConfig, SplitConfig
from msr_adapter.data.audit.ids import near_text
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.id_forms import near_matches
from msr_adapter.data.impressions import with_impressions
from msr_adapter.data.interaction_log import Log, degree
from msr_adapter.data.published_split import count_rows
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.seen_pairs import LogPairs, SeenPairs, seen_beside
from msr_adapter.data.splits import learnt_from
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.seeded_random import seeded_order


def clean(log: Log, corpus: Corpus, data: DataConfig, seed: int, audit: Audit, split: SplitConfig | None = None) -> Log:
    """Apply every filter in order: unknown items, `limit.items`, `k_core`, `limit.users`.

    With ``split``, the audit is told what they keep or drop because of what is held out.

    Only whole users and whole items are ever dropped, so that the kept rows of a kept user and what stands in
    `Log.seen` are all that the user has seen in the kept catalogue. What dropped users have seen is in `Log.seen` too.
    Memory: 8 bytes a row beside the logs, and 16 bytes a pair of `Log.seen`.
    """
    whole, seen = log.pairs(), log.seen
    log = known = _drop_unknown(log, corpus, audit)
    if data.limit.items is not None:
        log = _drop(log, _most_popular(log, data.limit.items, _counted(log))[log.item], "item_limit", audit)
    kept = _drop(log, _core(log, data.k_core), "k_core", audit)
    if not len(kept.user):
        raise UserError(_nothing_left(log, data.k_core))
    if split is not None and (data.limit.items is not None or data.k_core != KCoreConfig()):
        _tell_held_out(known, kept, data, split, seed, audit)
    if data.limit.users is not None:
        drawn = seeded_order(kept.users, seed, "limit")
        if kept.era is not None:  # nobody is left out for users who come later
            early = _among(kept.user[kept.era == 0], len(kept.users))[drawn]
            drawn = np.concatenate([drawn[early], drawn[~early]])
        kept = _drop(kept, _among(drawn[: data.limit.users], len(kept.users))[kept.user], "user_limit", audit)
    if kept.era is not None:
        _tell_later(known, kept, data, audit)
    for noun, number in (("interactions", len(kept.user)), ("users", len(kept.users)), ("items", len(kept.items))):
        audit.count(f"{noun}_kept", number)
    kept = replace(kept, seen=_still_seen(whole, seen, kept))
    table = None if corpus.items is None else corpus.items["item_id"]
    # A threshold counts interactions, of which an item that nobody clicked has none.
    no_threshold = data.limit.items is None and data.k_core.items == 1
    kept = with_impressions(kept, table, add_items=no_threshold, audit=audit)
    audit.count("pairs_seen_only", 0 if kept.seen is None else len(kept.seen))
    return kept


def _still_seen(whole: LogPairs, seen: SeenPairs | None, kept: Log) -> SeenPairs | None:
    """Return what users have seen beside the rows of ``kept``: what was known before, and the rows of dropped users."""
    if len(whole.users) == len(kept.users) and len(whole.items) == len(kept.items):
        return seen
    left = ~np.asarray(whole.users.is_in(kept.users.implode()).to_numpy(), dtype=bool)
    gone = left[whole.user]
    users, of_log = (
        (whole.users, np.arange(len(whole.users), dtype=np.int32)) if seen is None else (seen.users, seen.of_log)
    )
    # Of users without a log nobody asks when they saw something: no list is drawn for them.
    parts: list[tuple[Codes, Codes, Labels | None]] = [(of_log[whole.user[gone]], whole.item[gone], None)]
    if seen is not None:
        parts.append((seen.user, seen.item, seen.era))
    return seen_beside(kept.pairs(), users, whole.items, parts, may_be_rows=False)


def _counted(log: Log) -> Mask | None:
    """Return the rows that degrees and popularity are counted on; None = all."""
    return None if log.era is None else log.era == 0


def _most_popular(log: Log, number: int, counted: Mask | None) -> Mask:
    """Return the ``number`` most popular items (items,); of equally popular ones the first id."""
    count = degree(log.counted(counted)[1], len(log.items))
    return _among(np.lexsort((np.arange(len(count)), -count))[:number], len(count))


def _core(log: Log, core: KCoreConfig) -> Mask:
    """Return the rows of the k-core of a log; a pair counts once unless repeats are kept."""
    counted = _counted(log)
    if counted is None and (log.keeps or not log.repeats):
        return k_core(*log.counted(), core)
    users, items = _core_ids(log, core, counted)
    return np.asarray(users[log.user] & items[log.item])


def _core_ids(log: Log, core: KCoreConfig, counted: Mask | None) -> tuple[Mask, Mask]:
    """Return the users and items that the k-core of the ``counted`` rows has, and all where the minimum is 1."""
    user, item = log.counted(counted)
    alive = k_core(user, item, core)
    users, items = _among(user[alive], len(log.users)), _among(item[alive], len(log.items))
    if counted is not None:
        users |= core.users == 1
        items |= core.items == 1
    return users, items


def k_core(user: Codes, item: Codes, core: KCoreConfig) -> Mask:
    """Return the rows of the largest sub-log where every user and item has its minimum degree.

    Each round is O(rows left); the fixed point does not depend on the order of removals. Memory: 13 bytes a row.
    """
    rows = len(user)
    alive = np.arange(len(user), dtype=np.int32)  # half the memory of NumPy's own row numbers
    n_users, n_items = int(user.max(initial=-1)) + 1, int(item.max(initial=-1)) + 1
    # Dropping an item takes interactions from its users, who may then be dropped too: repeat until nothing changes.
    while True:
        good = (degree(user, n_users) >= core.users)[user] & (degree(item, n_items) >= core.items)[item]
        if good.all():
            break
        alive, user, item = alive[good], user[good], item[good]
    mask = np.zeros(rows, dtype=bool)
    mask[alive] = True
    return mask


def _nothing_left(log: Log, core: KCoreConfig) -> Problem:
    had = (f"{plural(len(log.user), 'interaction')} of {plural(len(log.users), 'user')} with "
           f"{plural(len(log.items), 'item')}")  # fmt: skip
    if log.era is not None:
        had += f" ({int(np.count_nonzero(log.era == 0)):,} before validation begins, which alone count)"
    found = f"users: {core.users}, items: {core.items} leaves nothing of {had}"
    return Problem("", "data.k_core", found, "", "Lower data.k_core, or raise data.limit.items")


def _tell_held_out(log: Log, kept: Log, data: DataConfig, split: SplitConfig, seed: int, audit: Audit) -> None:
    """Count what `limit.items` and `k_core` kept or dropped of ``log`` only because they counted what is held out.

    What they would keep is told by the same filters, counted on what training may know of the log before them.
    """
    counted, judged = learnt_from(log, split, seed)
    rows = np.ones(len(log.user), dtype=bool)
    if data.limit.items is not None:
        rows = _most_popular(log, data.limit.items, counted)[log.item]
    users, items = _core_ids(log, data.k_core, counted & rows)
    users |= ~judged
    rows &= users[log.user] & items[log.item]
    for noun, now, codes, of in (("users", kept.users, log.user, judged), ("items", kept.items, log.item, None)):
        ids = log.users if noun == "users" else log.items
        is_kept = np.asarray(ids.is_in(now.implode()).to_numpy(), dtype=bool)
        would_be = _among(codes[rows], len(ids))
        differ = is_kept != would_be if of is None else (is_kept != would_be) & of
        audit.count(f"{noun}_kept_by_held_out", int(np.count_nonzero(differ & is_kept)))
        audit.count(f"{noun}_dropped_by_held_out", int(np.count_nonzero(differ & would_be)))


def _tell_later(log: Log, kept: Log, data: DataConfig, audit: Audit) -> None:
    """Count the rows that filters dropped because their user or item was not known when training ends."""
    assert log.era is not None
    for noun, ids, codes, now, core, limit in (
        ("user", log.users, log.user, kept.users, data.k_core.users, data.limit.users),
        ("item", log.items, log.item, kept.items, data.k_core.items, data.limit.items),
    ):
        new = ~_among(codes[log.era == 0], len(ids))
        gone = new & ~np.asarray(ids.is_in(now.implode()).to_numpy(), dtype=bool)
        audit.count(f"{noun}s_first_seen_after_training", int(new.sum()) - int(gone.sum()))
        gone &= core > 1 or limit is not None  # else they went with the others, not for being new
        rows, of = int(np.count_nonzero(gone[codes])), int(gone.sum())
        audit.count(f"later_interactions_dropped_of_new_{noun}s", rows)
        if rows:
            keys = f"data.k_core.{noun}s: 1 and data.limit.{noun}s: null keep them"
            audit.find("info", f"Left out {plural(rows, 'interaction')} of {plural(of, noun)} that first appeared "
                       f"after training ends: k_core and limit count what was known then. {keys}.")  # fmt: skip


def _drop_unknown(log: Log, corpus: Corpus, audit: Audit) -> Log:
    if corpus.items is None:
        return log
    # Imploded: Polars deprecates a plain series of the same type here, which could mean one value for each row.
    known = log.items.is_in(corpus.items["item_id"].implode())
    unknown = log.items.filter(known.not_())
    if unknown.is_empty():
        return _drop(log, known.to_numpy()[log.item], "unknown_item", audit)
    if len(unknown) == len(log.items):
        raise UserError(_all_unknown(log.items, corpus.items["item_id"]))
    kept = _drop(log, known.to_numpy()[log.item], "unknown_item", audit)
    rows = len(log.user) - len(kept.user)
    audit.name("items_dropped_unknown_item", unknown)
    near = near_matches(unknown, corpus.items["item_id"])
    audit.count("items_unknown_but_for_their_form", len(near))
    step = near_text(near, "the table") or " Add those items to the table to keep them."
    audit.find("warning", f"Dropped {plural(rows, 'interaction')} with {plural(len(unknown), 'item')} that the table "
               f"of items lacks (such as {_some(unknown)}).{step}", "near-ids" if near else "source")  # fmt: skip
    return kept


def _all_unknown(log_items: pl.Series, table_items: pl.Series) -> Problem:
    found = f"none of the {len(log_items):,} items of the log is in the table of items"
    near = near_matches(log_items, table_items)
    return Problem(
        "",
        "data.source",
        f"{found} (log: {_some(log_items)}; table: {_some(table_items)})",
        "both must use the same ids, as text (leading zeros count)",
        near_text(near, "the table").strip() or "Compare the two id columns, or set data.source.columns.item",
    )


def _some(ids: pl.Series) -> str:
    return ", ".join(map(repr, ids.head(3).to_list())) or "no rows"


def _among(codes: Codes, size: int) -> Mask:
    """Return for each code below ``size`` whether it is one of ``codes``."""
    mask = np.zeros(size, dtype=bool)
    mask[codes] = True
    return mask


def _drop(log: Log, rows: Mask, reason: str, audit: Audit) -> Log:
    kept = log.keep(rows)
    audit.count(f"interactions_dropped_{reason}", len(log.user) - len(kept.user))
    count_rows(audit, f"dropped_{reason}", log.split, kept.split)
    audit.count(f"users_dropped_{reason}", len(log.users) - len(kept.users))
    audit.count(f"items_dropped_{reason}", len(log.items) - len(kept.items))
    return kept
