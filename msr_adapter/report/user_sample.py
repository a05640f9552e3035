"""Who and what the report shows of single users: which users, and of each the head of the ranked list."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Integers
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.metrics import GroupMetrics
from msr_adapter.report.user_texts import Readings

SHOWN_CANDIDATES = 30
"""Candidates shown of a user, beside the true items."""
USER_LIMIT = 5_000
"""Users in the explorer."""
_TEXT_LIMIT = 12_000_000
"""UTF-8 bytes of preference texts in it, before compression."""
_PER_KIND = 2
_CHUNK = 2**21


@dataclass(frozen=True)
class Ranking:
    """The shown candidates of the shown users, flat, best first within each user."""

    users: Integers
    """Indices into the held-out users, ascending."""
    counts: Integers
    """Shown candidates of each user (users,)."""
    rows: Integers
    """Their rows in CANDIDATES (n,)."""
    places: Integers
    """1 = best (n,); tied candidates stand in the order of the table."""


def pick(result: GroupMetrics) -> list[tuple[str, int]]:
    """Choose (kind, user index) of the best, the typical and the worst cases by rank, then by the target's lead."""
    groups = result.groups
    scores = groups.scores.astype(np.float64)
    rivals = scores.copy()
    rivals[groups.positives] = -np.inf
    with np.errstate(invalid="ignore"):  # infinite scores have no lead
        lead = scores[groups.best] - np.maximum.reduceat(rivals, groups.offsets[:-1])
    order = np.lexsort((-lead, result.ranks))
    middle = max(0, (len(order) - _PER_KIND) // 2)
    kinds = {
        "Best": order[:_PER_KIND],
        "Typical": order[middle : middle + _PER_KIND],
        "Worst": order[::-1][:_PER_KIND],
    }
    chosen = {int(user): kind for kind in ("Typical", "Worst", "Best") for user in kinds[kind]}  # few users: best wins
    return [(kind, int(user)) for kind, users in kinds.items() for user in users if chosen[int(user)] == kind]


def choose_users(result: GroupMetrics, always: Sequence[int], limit: int, seed: int) -> Integers:
    """Return at most ``limit`` user indices, ascending: all users, or ``always`` and a seeded sample of the others."""
    users = np.arange(len(result.ranks))
    if len(users) <= limit:
        return users
    others = np.random.default_rng((seed, 2)).permutation(np.setdiff1d(users, always))
    return np.sort(np.concatenate([always, others[: max(0, limit - len(always))]]).astype(np.int64))


def within_texts(users: Integers, always: Sequence[int], held_out: HeldOut, readings: Readings, seed: int) -> Integers:
    """Drop users, those of ``always`` last, until their preference texts fit into `_TEXT_LIMIT` bytes."""
    texts = (readings.steps.get(int(held_out.example_ids[user]), ()) for user in users)
    sizes = np.array([sum(len(step.text.encode()) for step in steps) for steps in texts])
    if sizes.sum() <= _TEXT_LIMIT:
        return users
    order = np.random.default_rng((seed, 3)).permutation(len(users))
    order = order[np.argsort(~np.isin(users[order], always), kind="stable")]
    return np.sort(users[order[np.cumsum(sizes[order]) <= _TEXT_LIMIT]])


def rank_candidates(users: Integers, result: GroupMetrics, held_out: HeldOut) -> Ranking:
    """Order the candidates of ``users`` by score, ties as they stand; long lists keep their head and the true items.

    O(n log n) for n candidates of these users; memory is a chunk of them and the result.
    """
    sizes, labels = np.diff(held_out.offsets)[users], held_out.labels
    counts, rows, places = [], [], []
    for first, last in _chunks(sizes):
        owner = np.repeat(np.arange(last - first), sizes[first:last])
        inside = np.arange(len(owner)) - (np.cumsum(sizes[first:last]) - sizes[first:last])[owner]
        row = held_out.offsets[users[first:last]][owner] + inside
        row = row[np.lexsort((-result.groups.scores[row], owner))]
        kept = (inside < SHOWN_CANDIDATES) | (labels[row] > 0)
        counts.append(np.bincount(owner[kept], minlength=last - first))
        rows.append(row[kept])
        places.append(inside[kept] + 1)
    return Ranking(users, np.concatenate(counts), np.concatenate(rows), np.concatenate(places))


def _chunks(sizes: Integers) -> Iterator[tuple[int, int]]:
    """Yield ranges of users with about `_CHUNK` candidates each."""
    ends, first = np.cumsum(sizes), 0
    while first < len(sizes):
        begun = ends[first] - sizes[first]
        last = max(first + 1, int(np.searchsorted(ends, begun + _CHUNK, side="right")))
        yield first, last
        first = last
