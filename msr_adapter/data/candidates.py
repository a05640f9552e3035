"""The frozen candidates: one positive and n uniform negatives that the user never touched."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msr_adapter.data.audit import raise_if_any
from msr_adapter.data.corpus import Codes, Log, Mask, Rows, degree
from msr_adapter.data.hashing import Bits, below, hash_ids, keyed, mix, stream
from msr_adapter.data.split import Examples
from msr_adapter.errors import Problem
from msr_adapter.files import digest

_CHUNK = 16_384
"""Examples per chunk: sets the memory, never the sample."""
_ROUNDS = 24
"""Rounds of reject-and-retry before the few slots left are filled from the list of free items."""


@dataclass(frozen=True)
class Candidates:
    """One row per (example, item), grouped by example in order; the positive at a seeded position."""

    example: Rows
    item: Codes
    label: NDArray[np.int8]


def draw_candidates(log: Log, examples: Examples, train_negatives: int, negatives: int, seed: int) -> Candidates:
    """Draw the candidates of every example: distinct, uniform over the catalogue minus what the user touched.

    A draw depends only on (seed, user id, target id) and on the catalogue. `UserError` if the catalogue is too small.
    """
    counts = np.where(examples.split == 0, train_negatives, negatives)
    raise_if_any(_too_few_items(log, examples, counts))
    keys = _keys(log, examples, seed)
    first = np.concatenate([[0], np.cumsum(counts + 1)])
    positive = np.zeros(first[-1], dtype=bool)
    positive[first[:-1] + below(stream(keys, np.zeros_like(counts)), counts + 1)] = True
    item = np.empty(first[-1], dtype=np.int32)
    item[positive] = log.item[examples.target]
    item[~positive] = _negatives(log, keys, examples.user, counts)
    return Candidates(np.repeat(np.arange(len(examples)), counts + 1), item, positive.astype(np.int8))


def candidates_digest(log: Log, examples: Examples, candidates: Candidates) -> str:
    """Identify the frozen candidates: the same log, split and seed give the same digest on every machine."""
    group = [examples.split, examples.user, examples.target - log.bounds()[examples.user]]
    rows = [*group, candidates.example, candidates.item, candidates.label]
    return digest([log.users.to_list(), log.items.to_list(), [digest(row.astype("<i8").tobytes()) for row in rows]])


def _too_few_items(log: Log, examples: Examples, counts: Rows) -> list[Problem]:
    free = len(log.items) - degree(log.user, len(log.users))[examples.user]
    problems = []
    for setting, mask in (("train.negatives", examples.split == 0),
                          ("evaluate.protocol.negatives.count", examples.split > 0)):  # fmt: skip
        short = mask & (free < counts)
        if short.any():
            users = len(np.unique(examples.user[short]))
            least = int(free[short].min())
            found = (f"{int(counts[short][0])} negatives asked for, but {users:,} users have fewer items that they "
                     f"never touched (the catalogue has {len(log.items):,} items)")  # fmt: skip
            step = f"Ask for {least} or fewer, or keep more items (data.limit.items, data.k_core.items)"
            problems.append(Problem("", setting, found, f"at most {least} for these users", step))
    return problems


def _keys(log: Log, examples: Examples, seed: int) -> Bits:
    users = keyed(hash_ids(log.users.to_list()), seed, "candidates")
    items = mix(hash_ids(log.items.to_list()))
    return mix(users[examples.user] ^ items[log.item[examples.target]])


def _negatives(log: Log, keys: Bits, users: Rows, counts: Rows) -> Codes:
    """Return the negatives of all examples, one after the other, chunk by chunk."""
    touched = np.sort(log.pair_keys())
    chunks = [slice(begin, begin + _CHUNK) for begin in range(0, len(keys), _CHUNK)]
    drawn = [_draw_chunk(keys[c], users[c], counts[c], touched, len(log.items)) for c in chunks]
    return np.concatenate([np.empty(0, dtype=np.int32), *drawn])


def _draw_chunk(keys: Bits, users: Rows, counts: Rows, touched: Rows, n_items: int) -> Codes:
    """Draw ``counts`` distinct untouched items per example: reject and retry, then fill what is left exactly."""
    example = np.repeat(np.arange(len(keys)), counts)
    slot = np.arange(len(example)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = np.full(len(example), -1, dtype=np.int64)
    for attempt in range(_ROUNDS):
        empty = np.flatnonzero(chosen < 0)
        if not len(empty):
            break
        counter = (attempt << 32) + slot[empty] + 1
        drawn = below(stream(keys[example[empty]], counter), n_items)
        drawn[_contains(touched, users[example[empty]] * n_items + drawn)] = -1
        _accept(chosen, empty, drawn, example, n_items)
    for one in np.unique(example[chosen < 0]):
        mine = np.flatnonzero(example == one)
        chosen[mine] = _fill(keys[one], chosen[mine], _items_of(touched, users[one], n_items), n_items)
    return chosen.astype(np.int32)


def _accept(chosen: Rows, empty: Rows, drawn: Rows, example: Rows, n_items: int) -> None:
    """Put draws into their empty slots unless the example has the item already; the lowest slot wins a tie."""
    unfinished = np.zeros(example[-1] + 1, dtype=bool)
    unfinished[example[empty]] = True
    earlier = np.flatnonzero((chosen >= 0) & unfinished[example])
    new, drawn = empty[drawn >= 0], drawn[drawn >= 0]
    pairs = example[np.concatenate([earlier, new])] * n_items + np.concatenate([chosen[earlier], drawn])
    _, first = np.unique(pairs, return_index=True)
    fresh = first[first >= len(earlier)] - len(earlier)
    chosen[new[fresh]] = drawn[fresh]


def _fill(key: np.uint64, chosen: Rows, touched: Rows, n_items: int) -> Rows:
    """Fill the empty slots of one example with free items in a seeded order. O(n_items log n_items)."""
    free = np.setdiff1d(np.arange(n_items), np.concatenate([touched, chosen[chosen >= 0]]))
    order = np.argsort(stream(np.full(len(free), key), (_ROUNDS << 32) + free), kind="stable")
    filled = chosen.copy()
    filled[chosen < 0] = free[order[: int((chosen < 0).sum())]]
    return filled


def _items_of(touched: Rows, user: int, n_items: int) -> Rows:
    begin, end = np.searchsorted(touched, [user * n_items, (user + 1) * n_items])
    return touched[begin:end] - user * n_items


def _contains(ordered: Rows, values: Rows) -> Mask:
    """Return which values are in the sorted array. O(values log ordered)."""
    place = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: Mask = ordered[place] == values
    return found
