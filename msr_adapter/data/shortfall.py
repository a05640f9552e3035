"""A split without an example: what it asks for, what the log has instead, and the way out."""

from collections.abc import Iterator

import numpy as np

from msr_adapter.config.models import Split
from msr_adapter.data.audit import Audit
from msr_adapter.data.corpus import Log
from msr_adapter.data.split import SPLITS, Examples, parts_of
from msr_adapter.errors import Problem
from msr_adapter.shortcuts import has_clock


def empty_splits(log: Log, split: Split, examples: Examples, audit: Audit) -> list[Problem]:
    """Return a problem for an empty training or test split that was not asked to be empty; note the others."""
    problems = list(_lacking(log, split, examples, audit))
    if problems and split.kind == "temporal" and not has_clock(log.time):
        return [_no_clock()]
    return problems


def _lacking(log: Log, split: Split, examples: Examples, audit: Audit) -> Iterator[Problem]:
    for code, name in enumerate(SPLITS):
        if (examples.split == code).any():
            continue
        if split.kind == "user-holdout" and split.fractions[code] == 0:
            audit.find("info", f"split.fractions leaves no user to {name}, as configured.")
        elif split.kind == "temporal" and name == "validation" and split.validation_from is None:
            audit.find("info", "Without split.validation_from there is no validation, as configured.")
        elif name == "validation" and len(examples):
            audit.find("warning", f"No validation example: {_needs(log, split, code)}. {_step(split)} to have one.")
        else:
            found = f"no {name} example from {_some(len(log.users), 'user')} with {_some(len(log.user), 'interaction')}"
            yield Problem("", "split", found + _dropped(audit), _needs(log, split, code), _step(split))


def _needs(log: Log, split: Split, code: int) -> str:
    if split.kind == "temporal":
        bounds = ((None, split.validation_from or split.test_from), (split.validation_from, split.test_from),
                  (split.test_from, split.until))[code]  # fmt: skip
        words = [f"{word} {moment}" for word, moment in zip(("from", "before"), bounds, strict=True) if moment]
        first, last = np.array([log.time.min(), log.time.max()]).astype("datetime64[ms]").astype("datetime64[s]")
        return (f"temporal takes one from an interaction {' and '.join(words)} with {split.min_history} before it; "
                f"the log is of {first} to {last}")  # fmt: skip
    if split.kind == "column":
        rows = _some(int((parts_of(log) == code).sum()), "row")
        return f"column takes one from a row that says {SPLITS[code]} with {split.min_history} before it; {rows} say so"
    least = split.min_history + (3 - code if split.kind == "leave-last-out" else 1)
    takes = f"takes one from a log of at least {least} interactions"
    if split.kind == "leave-last-out":
        return f"leave-last-out {takes}"
    return f"user-holdout gives {SPLITS[code]} {split.fractions[code]:.0%} of the users and {takes}"


def _step(split: Split) -> str:
    first = {
        "temporal": "Move the dates",
        "column": "Say so in more rows",
        "user-holdout": "Keep more users, change split.fractions",
        "leave-last-out": "Keep longer logs",
    }[split.kind]
    others = ["keep longer logs"] if split.kind != "leave-last-out" else []
    others += ["lower split.min_history"] if split.min_history > 1 else []
    return ", or ".join([first, *others])


def _no_clock() -> Problem:
    found = "temporal, but the log has no clock: its times are positions or row numbers"
    step = "Name a column of times in data.source.columns.timestamp, or choose another split.kind"
    return Problem("", "split.kind", found, "times of a clock that all users share", step)


def _dropped(audit: Audit) -> str:
    """Say what was dropped before: a log that shrank on the way here has its cause there."""
    prefix = "interactions_dropped_"
    reasons = [f"{name.removeprefix(prefix).replace('_', ' ')} {number:,}" for name, number in audit.counts.items()
               if name.startswith(prefix) and number]  # fmt: skip
    return f" (of {audit.counts['interactions_read']:,}; dropped: {', '.join(reasons)})" if reasons else ""


def _some(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
