"""Who is trained on and who is tested on: the split of users, of rows and of time, and what training may know.

Which examples that gives is `examples`; here is only what decides a split, and what is said of a split that is empty.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from msr_adapter.arrays import Labels, Mask, Rows
from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.choices import TargetRows
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.temporal import EVERYTHING, Horizon, split_bounds
from msr_adapter.errors import Problem, plural
from msr_adapter.heuristics import has_timestamps
from msr_adapter.schema import SPLITS
from msr_adapter.seeded_random import seeded_order


def user_splits(log: Log, split: SplitConfig, seed: int) -> Rows:
    """Return each user's split under user-holdout: shares of a seeded order of the users, rounded."""
    order = seeded_order(log.users.to_list(), seed, "split")
    # Rounded half up, where `round` would go to the even number.
    cuts = np.floor(np.cumsum(split.fractions[:2]) * len(order) + 0.5).astype(np.int64)
    codes = np.empty(len(order), dtype=np.int64)
    # "right": the place of a cut is the first of the next split, and a share of 0 gets no user.
    codes[order] = np.searchsorted(cuts, np.arange(len(order)), side="right")
    return codes


def row_splits(log: Log) -> Labels:
    """Return each row's split as the source says it; a log without them is a bug (`split_column_problems`)."""
    assert log.split is not None, "the source says no split"
    return log.split


def known_to_training(log: Log, split: SplitConfig, held_out: Rows, seed: int) -> Mask:
    """Return which rows of the log training may know of: popularity and baselines learn from nothing else.

    user-holdout: those of training users. leave-last-out: all but the rows ``held_out``, the validation and test
    targets, and with events what follows them. temporal: those before the first held-out moment. column: those of the
    training rows.
    """
    if split.kind == "user-holdout":
        return np.asarray((user_splits(log, split, seed) == 0)[log.user])
    if split.kind == "temporal":
        return np.asarray(log.time < split_bounds(split)[0])
    if split.kind == "column":
        return np.asarray(row_splits(log) == 0)
    known = np.ones(len(log.user), dtype=bool)
    known[held_out] = False
    if log.target is not None:  # what a user looked at after the first of these would tell of it
        first = np.full(len(log.users), len(log.user))
        np.minimum.at(first, log.user[held_out], held_out)
        known &= np.arange(len(log.user)) < first[log.user]
    return known


def learnt_from(log: Log, split: SplitConfig, seed: int) -> tuple[Mask, Mask]:
    """Return which rows of a log training will know of, before examples are made, and which users it is about (users,).

    As `known_to_training`; leave-last-out holds out the last two rows of everybody, whatever their history.
    """
    everyone = np.ones(len(log.users), dtype=bool)
    if split.kind == "user-holdout":
        judged = user_splits(log, split, seed) == 0
        return np.asarray(judged[log.user]), judged
    held_out = np.empty(0, dtype=np.int64)
    if split.kind == "leave-last-out":
        first, end = log.bounds()[:-1], log.bounds()[1:]
        held_out = np.concatenate([end - 1, np.maximum(end - 2, first)])
        if log.target is not None:
            rows = TargetRows.of(log.target)
            found = np.stack([rows.back(end, steps) for steps in (1, 2)])
            held_out = found[found >= first]
    return known_to_training(log, split, held_out, seed), everyone


def horizons(log: Log) -> tuple[Horizon, Horizon, Horizon]:
    """Return what the candidate lists of training, validation and test may know of the log."""
    none = np.zeros(len(log.items), dtype=bool)
    # What nobody interacted with could only ever be a negative in training, which would teach that new means no.
    only, cold = (none if mask is None else mask for mask in (log.table_only, log.cold))
    if log.era is None:
        return _but_for(only | cold), _but_for(cold), EVERYTHING
    training, validation = (_appeared(log, log.era <= era, era) & ~cold for era in (0, 1))
    validation |= only
    return Horizon(0, training), Horizon(1, validation, at_target=True), Horizon(at_target=True)


def _but_for(items: Mask) -> Horizon:
    return Horizon(items=~items) if items.any() else EVERYTHING


def _appeared(log: Log, rows: Mask, era: int) -> Mask:
    """Return which items (items,) the given rows have, or impressions showed to anybody up to an era, and in it."""
    found = np.zeros(len(log.items), dtype=bool)
    found[log.item[rows]] = True
    if log.impressions is not None and log.impressions.first_era is not None:
        found |= log.impressions.first_era <= era
    return found


def split_column_problems(interactions: pl.LazyFrame) -> list[Problem]:
    """Return a problem where `split.kind: column` lacks its column, or has events; a reader has checked its values."""
    there = interactions.collect_schema().names()
    if "event" in there:  # a held-out row may be no target, and which row then is, the source does not say
        found, step = "column, together with data.source.events", "Choose another split.kind, or leave the events out"
        return [Problem("", "split.kind", found, "user-holdout, leave-last-out or temporal", step)]
    if "split" in there:
        return []
    step = (
        "Add one, name it in data.source.columns.split (its other values are then told), or choose another split.kind"
    )
    found = "column, but no column of splits says train, validation or test in every row"
    return [Problem("", "split.kind", found, "a column `split`, `x_label` or `subset` that does", step)]


def empty_splits(log: Log, split: SplitConfig, sizes: Sequence[int], audit: Audit) -> list[Problem]:
    """Return a problem for an empty training or test split that was not asked to be empty; note the others.

    ``sizes`` are the numbers of examples of each split. A problem says what the split asks for, what the log has
    instead, and the way out.
    """
    problems = list(_empty(log, split, sizes, audit))
    if problems and split.kind == "temporal" and not has_timestamps(log.time):
        found = "temporal, but the log has no timestamps: its times are positions or row numbers"
        step = "Name a column of times in data.source.columns.timestamp, or choose another split.kind"
        return [Problem("", "split.kind", found, "timestamps that all users share", step)]
    return problems


def _empty(log: Log, split: SplitConfig, sizes: Sequence[int], audit: Audit) -> Iterator[Problem]:
    for code, name in enumerate(SPLITS):
        if sizes[code]:
            continue
        if split.kind == "user-holdout" and split.fractions[code] == 0:
            audit.find("info", f"split.fractions leaves no user to {name}, as configured.")
        elif split.kind == "temporal" and name == "validation" and split.validation_from is None:
            audit.find("info", "Without split.validation_from there is no validation, as configured.")
        elif name == "validation" and any(sizes):
            audit.find("warning", f"No validation example: {_needs(log, split, code)}. {_step(split)} to have one.")
        else:
            users, rows = plural(len(log.users), "user"), plural(len(log.user), "interaction")
            found = f"no {name} example from {users} with {rows}{_dropped(audit)}"
            yield Problem("", "split", found, _needs(log, split, code), _step(split))


def _needs(log: Log, split: SplitConfig, code: int) -> str:
    """Say what an example of a split needs under the kind of split that is configured."""
    if split.kind == "temporal":
        bounds = ((None, split.validation_from or split.test_from), (split.validation_from, split.test_from),
                  (split.test_from, split.until))[code]  # fmt: skip
        words = [f"{word} {moment}" for word, moment in zip(("from", "before"), bounds, strict=True) if moment]
        first, last = np.array([log.time.min(), log.time.max()]).astype("datetime64[ms]").astype("datetime64[s]")
        return (f"temporal makes one of an interaction {' and '.join(words)} with {split.min_history} before it; "
                f"the log is of {first} to {last}")  # fmt: skip
    if split.kind == "column":
        rows = int((row_splits(log) == code).sum())
        return (f"column makes one of a row that says {SPLITS[code]} with {split.min_history} before it; "
                f"{plural(rows, 'row')} {'says' if rows == 1 else 'say'} so")  # fmt: skip
    least = split.min_history + (3 - code if split.kind == "leave-last-out" else 1)
    needs = f"needs a user with at least {least} interactions"
    if split.kind == "leave-last-out":
        return f"leave-last-out {needs}"
    return f"user-holdout gives {SPLITS[code]} {split.fractions[code]:.0%} of the users and {needs}"


def _step(split: SplitConfig) -> str:
    first = {
        "temporal": "Move the dates",
        "column": "Say so in more rows",
        "user-holdout": "Keep more users, change split.fractions",
        "leave-last-out": "Keep longer logs",
    }[split.kind]
    others = ["keep longer logs"] if split.kind != "leave-last-out" else []
    others += ["lower split.min_history"] if split.min_history > 1 else []
    return ", or ".join([first, *others])


def _dropped(audit: Audit) -> str:
    """Say what was dropped before: a log that shrank on the way here has its cause there."""
    prefix = "interactions_dropped_"
    reasons = [f"{name.removeprefix(prefix).replace('_', ' ')} {number:,}" for name, number in audit.counts.items()
               if name.startswith(prefix) and number]  # fmt: skip
    return f" (of {audit.counts['interactions_read']:,}; dropped: {', '.join(reasons)})" if reasons else ""
