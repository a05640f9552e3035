"""The candidates: one positive and negatives that the user never touched, drawn in chunks of any size."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes, Labels, Mask, Rows, ranges
from msr_adapter.data.log import Log
from msr_adapter.data.negatives.candidate_lists import Candidates
from msr_adapter.data.negatives.pools import SeenItems
from msr_adapter.data.negatives.sampler import Slots, fill
from msr_adapter.data.negatives.spec import Draw, ListKeys, ListSpec, Tally, rows_of_lists, shortages
from msr_adapter.errors import raise_if_any
from msr_adapter.seeded_random import Bits, below, hash_ids, mix, stream

CHUNK = 2**18
"""Candidate rows per chunk: sets the memory, never the sample."""


@dataclass(frozen=True)
class _Lists:
    """A chunk of lists of one split."""

    first: int
    """Its first example."""
    user: Codes
    positive: Codes
    keys: Bits


def candidate_chunks(draw: Draw, tally: Tally, rows: int = CHUNK) -> Iterator[Candidates]:
    """Yield the candidates of all examples in order, about ``rows`` at a time, whole lists each.

    A list depends only on the seed, the user's id, the target's id, what the user touched and the catalogue: never on
    other users, the order of rows or the chunks. Memory: O(rows) and the rows of a chunk's users. `UserError` before
    the first chunk if the catalogue is too small, and after the last if a kind could not give its count.
    """
    sizes = rows_of_lists(draw)
    bounds, keys = draw.log.bounds(), ListKeys(draw.log, draw.seed)
    for part in _parts(draw.examples.split, sizes, rows):
        user, positive = draw.examples.user[part], draw.log.item[draw.examples.target[part]]
        split, lists = int(draw.examples.split[part.start]), _Lists(part.start, user, positive, keys.of(user, positive))
        if split == 2 and draw.imported is not None:
            yield draw.imported.of_examples(part)
            continue
        recipe = draw.recipes[split]
        drawn = _everything(draw.log, bounds, lists) if recipe.negatives.kind == "all" else _drawn(
            lists, recipe, SeenItems(draw.log, bounds, user), tally)  # fmt: skip
        if not tally.short:
            yield drawn
    raise_if_any(shortages(tally))


def draw_candidates(draw: Draw, tally: Tally, rows: int = CHUNK) -> Candidates:
    """Return the candidates of all examples in one piece, 13 bytes a row; see `candidate_chunks`."""
    total = int(rows_of_lists(draw).sum())
    whole = Candidates(np.empty(total, np.int64), np.empty(total, np.int32), np.empty(total, np.int8))
    end = 0
    for chunk in candidate_chunks(draw, tally, rows):
        part = slice(end, end := end + len(chunk))
        whole.example[part], whole.item[part], whole.label[part] = chunk.example, chunk.item, chunk.label
    return whole


def _parts(split: Labels, sizes: Rows, rows: int) -> Iterator[slice]:
    """Cut the examples where the split changes and about every ``rows`` candidates."""
    bucket = (np.cumsum(sizes) - sizes) // rows
    cuts = np.flatnonzero((np.diff(bucket) != 0) | (np.diff(split) != 0)) + 1
    starts = [0, *cuts.tolist()] if len(split) else []
    yield from map(slice, starts, [*starts[1:], len(split)])


def _everything(log: Log, bounds: Rows, lists: _Lists) -> Candidates:
    """Return the whole catalogue without what the user touched, in the order of ids, the positive among it."""
    wanted = np.ones((len(lists.user), len(log.items)), dtype=bool)
    touched = bounds[lists.user + 1] - bounds[lists.user]
    list_ = np.arange(len(lists.user))
    wanted[np.repeat(list_, touched), log.item[ranges(bounds[lists.user], touched)]] = False
    wanted[list_, lists.positive] = True
    list_, item = np.nonzero(wanted)
    return Candidates(lists.first + list_, item.astype(np.int32), (item == lists.positive[list_]).astype(np.int8))


def _drawn(lists: _Lists, recipe: ListSpec, touched: SeenItems, tally: Tally) -> Candidates:
    kinds, number = recipe.negatives.kinds(), len(lists.user)
    count = sum(kinds.values())
    slots = Slots(np.repeat(np.arange(number), count), np.tile(np.arange(count), number), np.full(number * count, -1))
    kind_of = np.tile(np.repeat(np.arange(len(kinds)), list(kinds.values())), number)
    for code, kind in enumerate(kinds):
        _fill(slots, kind_of == code, lists, recipe, kind, touched)
    for other in recipe.negatives.fallback:
        empty = slots.empty(slots.chosen < 0)
        _fill(slots, slots.chosen < 0, lists, recipe, other, touched)
        tally.count_fallback(list(kinds), kind_of[empty[slots.chosen[empty] >= 0]], other)
    tally.count_short(recipe.setting, kinds, kind_of, slots)
    return _with_positives(lists, slots.chosen, count)


def _fill(slots: Slots, wanted: Mask, lists: _Lists, recipe: ListSpec, kind: str, touched: SeenItems) -> None:
    keys = lists.keys if kind == "uniform" else mix(lists.keys ^ hash_ids([kind]))
    fill(slots, wanted, keys, recipe.pools[kind](lists.user, lists.positive), touched)


def _with_positives(lists: _Lists, negatives: Rows, count: int) -> Candidates:
    """Put each list's positive at a seeded position among its ``count`` negatives."""
    number = len(lists.user)
    position = below(stream(lists.keys, np.zeros(number, dtype=np.int64)), count + 1)
    label = np.zeros(number * (count + 1), dtype=np.int8)
    label[np.arange(number) * (count + 1) + position] = 1
    item = np.empty(len(label), dtype=np.int32)
    item[label == 1], item[label == 0] = lists.positive, negatives
    return Candidates(np.repeat(np.arange(lists.first, lists.first + number), count + 1), item, label)
