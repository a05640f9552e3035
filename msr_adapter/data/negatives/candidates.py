"""The candidate lists: a target each, among negatives that are not excluded, drawn in chunks of any size.

A list depends only on the seed, the user's id, the target's id, the items that the user has seen and the
catalogue: never on other users, the order of rows or the chunks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes, Labels, Mask, Rows, contains, ranges
from msr_adapter.data.examples import Examples
from msr_adapter.data.explicit_negatives import explicit_negatives
from msr_adapter.data.impressions import free_of, places_of, shown_with
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.pools import SeenItems, free_items, seen_items
from msr_adapter.data.negatives.sampler import ROUNDS, Slots, fill
from msr_adapter.data.negatives.spec import ListSpec, ListSpecs, Shortages
from msr_adapter.data.temporal import EVERYTHING
from msr_adapter.errors import Problem, plural, raise_if_any
from msr_adapter.seeded_random import Bits, below, hash_ids, keyed, mix, stream

CHUNK = 2**18
"""Candidate rows per chunk: sets the memory, never the sample."""
MOST_ROWS = 50_000_000


@dataclass(frozen=True)
class Candidates:
    """Candidate lists in integer codes: one row per (example, item), the examples in their order."""

    example: Rows
    item: Codes
    label: Labels
    """1 for the target (and for what was clicked beside it, where lists are impressions), at a seeded position."""

    def __len__(self) -> int:
        return len(self.item)

    def of_examples(self, part: slice) -> "Candidates":
        """Return the rows of the examples part.start..part.stop-1."""
        rows = slice(*np.searchsorted(self.example, [part.start, part.stop]).tolist())
        return Candidates(self.example[rows], self.item[rows], self.label[rows])


@dataclass(frozen=True)
class DrawInputs:
    """Everything that decides the candidates."""

    log: Log
    examples: Examples
    specs: ListSpecs
    seed: int
    imported: Candidates | None = None
    """Test lists that were read from a file and are not drawn."""
    rounds: int = ROUNDS
    """Of reject-and-retry, before what is left is drawn exactly."""
    most_rows: int = MOST_ROWS
    """Candidate rows that full ranking may make."""


class ListKeys:
    """The key of a list: of the seed, the user's id and the target's id, and of nothing else.

    Where repeats are kept, of the target's time too: else a user would have one list for every time with an item.
    """

    def __init__(self, log: Log, seed: int) -> None:
        """Hash all ids. O(users + items)."""
        self._users = keyed(hash_ids(log.users), seed, "candidates")
        self._items = mix(hash_ids(log.items))
        self._log = log

    def of(self, user: Codes, target: Rows) -> Bits:
        """Return the keys of the lists of these users and targets (rows of the log)."""
        keys = mix(self._users[user] ^ self._items[self._log.item[target]])
        return mix(keys ^ self._log.time[target].astype(np.uint64)) if self._log.keeps else keys


@dataclass(frozen=True)
class _Lists:
    """A chunk of lists of one split."""

    first: int
    """Its first example."""
    user: Codes
    target: Rows
    """Rows of the log."""
    positive: Codes
    """Their items."""
    times: Rows
    """Of the targets."""
    more: tuple[Rows, Codes]
    """(list, item) of what was clicked in the targets' impressions too, each once."""
    keys: Bits


def draw_candidates(inputs: DrawInputs, shortages: Shortages, rows: int = CHUNK) -> Candidates:
    """Return the candidates of all examples in one piece, 13 bytes a row; see `candidate_chunks`."""
    total = int(list_sizes(inputs).sum())
    whole = Candidates(np.empty(total, np.int64), np.empty(total, np.int32), np.empty(total, np.int8))
    end = 0
    for chunk in candidate_chunks(inputs, shortages, rows):
        part = slice(end, end := end + len(chunk))
        whole.example[part], whole.item[part], whole.label[part] = chunk.example, chunk.item, chunk.label
    # Sizes are upper bounds where lists have what was shown: some of that may be excluded.
    return Candidates(whole.example[:end], whole.item[:end], whole.label[:end])


def candidate_chunks(inputs: DrawInputs, shortages: Shortages, rows: int = CHUNK) -> Iterator[Candidates]:
    """Yield the candidates of all examples in order, about ``rows`` at a time, whole lists each.

    Memory: O(rows), and the log of a chunk's users. `UserError` before the first chunk if the catalogue is too small,
    and after the last one if a kind could not give its count.
    """
    sizes, log = list_sizes(inputs), inputs.log
    bounds, keys = log.bounds(), ListKeys(log, inputs.seed)
    for part in _parts(inputs.examples.split, sizes, rows):
        user, target = inputs.examples.user[part], inputs.examples.target[part]
        positive, split = log.item[target], int(inputs.examples.split[part.start])
        more = _beside(inputs, part)
        lists = _Lists(part.start, user, target, positive, log.time[target], more, keys.of(user, target))
        if split == 2 and inputs.imported is not None:
            yield inputs.imported.of_examples(part)
            continue
        spec = inputs.specs[split]
        if spec.negatives.kind == "all":
            drawn = _whole_catalogue(log, bounds, lists, spec)
        else:
            seen = SeenItems(log, bounds, user, spec.horizon, lists.times)
            seen = seen if spec.excludes_seen else seen.but_for_positives(lists.positive, lists.more)
            drawn = _drawn(lists, spec, seen, shortages, inputs)
        if not shortages.short:  # else go on only to count what is short
            yield drawn
    raise_if_any(shortages.problems())


def list_sizes(inputs: DrawInputs) -> Rows:
    """Return the number of candidates of each example.

    `UserError` if users have too few items that they have not seen, or if full ranking makes too many rows.
    """
    split, users = inputs.examples.split, inputs.examples.user
    free = _free(inputs)
    drawn = np.ones(len(split), dtype=bool) if inputs.imported is None else split != 2
    codes: dict[str, list[int]] = {}
    for code, spec in enumerate(inputs.specs):
        codes.setdefault(spec.setting, []).append(code)
    problems = []
    for of in codes.values():
        spec = inputs.specs[of[0]]
        # Full ranking and impressions take what there is, but a list needs one negative.
        count = 1 if spec.varies else spec.count or 1
        short = np.isin(split, of) & drawn & (free < count)
        if short.any():
            problems.append(_too_few(spec, count, users[short], free[short], inputs.log))
    raise_if_any(problems)
    asked = np.array([spec.count for spec in inputs.specs])[split]
    counts: Rows = np.where(asked > 0, asked, free)
    everything = np.array([spec.negatives.kind == "all" for spec in inputs.specs])[split] & drawn
    raise_if_any(_too_many(inputs, everything, counts))
    for code, spec in enumerate(inputs.specs):
        mine = split == code
        if spec.varies:
            low, high = inputs.log.impressions.span(inputs.examples.target[mine]) if inputs.log.impressions else (0, 0)
            counts[mine] = np.where(high > low, np.minimum(high - low, spec.count), spec.count)
        if spec.several and inputs.examples.beside is not None:
            counts[mine] += inputs.examples.beside.counts[mine]
    if inputs.imported is not None:
        counts[~drawn] = np.bincount(inputs.imported.example, minlength=len(split))[~drawn] - 1
    return counts + 1


def _free(inputs: DrawInputs) -> Rows:
    """Return for each example how many items there are to draw."""
    examples, times = inputs.examples, inputs.log.time[inputs.examples.target]
    if all(spec.horizon is EVERYTHING and spec.excludes_seen for spec in inputs.specs):
        return free_items(inputs.log, examples.user, times, EVERYTHING)
    free = np.zeros(len(examples), dtype=np.int64)
    for code, spec in enumerate(inputs.specs):
        mine = examples.split == code
        free[mine] = free_items(
            inputs.log, examples.user[mine], times[mine], spec.horizon, seen_too=not spec.excludes_seen
        )
    return free


def _too_few(spec: ListSpec, count: int, users: Codes, free: Rows, log: Log) -> Problem:
    least = int(free.min())
    beside = "" if log.seen is None or not spec.excludes_seen else "; items of rows that a filter dropped count as seen"
    beside += "" if log.era is None else "; only those that had appeared by then are on offer"
    than = f"the items that {plural(len(np.unique(users)), 'user')} did not interact with"
    than = than if spec.excludes_seen else "there are beside the target"
    has = f"the catalogue has {plural(len(log.items), 'item')}{beside}"
    found = f"{plural(count, 'negative')} asked for, more than {than} ({has})"
    step = f"Ask for {least} or fewer, or keep more items (data.limit.items, data.k_core.items)"
    return Problem("", f"{spec.setting}.count", found, f"at most {least} for these users", step)


def _too_many(inputs: DrawInputs, everything: Mask, counts: Rows) -> list[Problem]:
    rows = int((counts + 1)[everything].sum())
    if rows <= inputs.most_rows:
        return []
    lists, items = int(everything.sum()), len(inputs.log.items)
    found = f"all: {lists:,} test and validation lists over {items:,} items make {rows:,} candidates"
    step = "Test fewer users (data.limit.users, split.fractions), keep fewer items, or draw negatives"
    return [Problem("", inputs.specs[2].setting, found, f"at most {inputs.most_rows:,}", step)]


def _parts(split: Labels, sizes: Rows, rows: int) -> Iterator[slice]:
    """Cut the examples where the split changes and about every ``rows`` candidates."""
    bucket = (np.cumsum(sizes) - sizes) // rows  # told by where an example's list begins, so lists stay whole
    cuts = np.flatnonzero((np.diff(bucket) != 0) | (np.diff(split) != 0)) + 1
    starts = [0, *cuts.tolist()] if len(split) else []
    yield from map(slice, starts, [*starts[1:], len(split)])


def _whole_catalogue(log: Log, bounds: Rows, lists: _Lists, spec: ListSpec) -> Candidates:
    """Return the target among all items on offer, or those that the user has not seen, in the order of ids."""
    horizon = spec.horizon
    wanted = np.ones((len(lists.user), len(log.items)), dtype=bool)
    if horizon.items is not None:
        wanted &= horizon.items
    if horizon.at_target and log.first is not None:
        wanted &= log.first <= lists.times[:, None]
    list_ = np.arange(len(lists.user))
    if spec.excludes_seen:
        lengths, items = seen_items(log, bounds, lists.user, horizon.era)
        wanted[np.repeat(list_, lengths), items] = False
    wanted[lists.more] = False
    wanted[list_, lists.positive] = True
    list_, item = np.nonzero(wanted)
    return Candidates(lists.first + list_, item.astype(np.int32), (item == lists.positive[list_]).astype(np.int8))


def _beside(inputs: DrawInputs, part: slice) -> tuple[Rows, Codes]:
    """Return (list, item) of what the users clicked in the impressions of their targets too, each once."""
    if inputs.examples.beside is None:
        return np.empty(0, np.int64), np.empty(0, np.int32)
    list_, rows = inputs.examples.beside.of(part)
    keys = np.unique(list_ * len(inputs.log.items) + inputs.log.item[rows])
    return keys // len(inputs.log.items), (keys % len(inputs.log.items)).astype(np.int32)


def _negatives_of(lists: _Lists, spec: ListSpec, seen: SeenItems, log: Log) -> Rows:
    """Return how many negatives each list is to have (lists,)."""
    everywhere = np.full(len(lists.user), spec.count)
    if not spec.varies:
        return everywhere
    pool = shown_with(log, lists.target)
    list_, item = places_of(pool)
    free = free_of(pool, seen.by(list_, item))
    return np.where(free > 0, np.minimum(free, spec.count), everywhere)


def _drawn(lists: _Lists, spec: ListSpec, seen: SeenItems, shortages: Shortages, inputs: DrawInputs) -> Candidates:
    kinds, number = spec.negatives.kinds(), len(lists.user)
    counts = _negatives_of(lists, spec, seen, inputs.log)
    within = ranges(np.zeros(number, dtype=np.int64), counts)
    slots = Slots(np.repeat(np.arange(number), counts), within, np.full(len(within), -1))
    kind_of = np.repeat(np.arange(len(kinds)), list(kinds.values()))[within]

    def fill_from(kind: str, wanted: Mask) -> None:
        # Uniform draws keep the list's own key: a list is the same whichever kinds stand beside.
        keys = lists.keys if kind == "uniform" else mix(lists.keys ^ hash_ids([kind]))
        pool_of = spec.pools.get(kind)
        pool = shown_with(inputs.log, lists.target) if pool_of is None else pool_of(lists.user, lists.positive)
        fill(slots, wanted, keys, pool, seen, inputs.rounds)

    if spec.negatives.rejected == "first" and inputs.log.rejected is not None:
        _put_explicit(lists, slots, spec, inputs.log)
        shortages.count_explicit(spec.setting, slots)
    for code, kind in enumerate(kinds):
        fill_from(kind, kind_of == code)
    for other in spec.negatives.fallback:
        empty = slots.empty(slots.chosen < 0)
        fill_from(other, slots.chosen < 0)
        shortages.count_fallback(list(kinds), kind_of[empty[slots.chosen[empty] >= 0]], other)
    shortages.count_short(spec.setting, kinds, kind_of, slots)
    if spec.several:
        return _with_positives(lists, slots)
    example = np.repeat(np.arange(lists.first, lists.first + number), counts + 1)
    return with_targets(example, lists.positive, slots.chosen, counts, lists.keys)


def _put_explicit(lists: _Lists, slots: Slots, spec: ListSpec, log: Log) -> None:
    """Put what the users had rejected by the targets' times into the first slots of their lists, the last first."""
    list_, item = explicit_negatives(log, lists.user, lists.times, spec.horizon)
    keys = np.concatenate([np.arange(len(lists.user)) * len(log.items) + lists.positive,
                           lists.more[0] * len(log.items) + lists.more[1]])  # fmt: skip
    free = ~contains(np.sort(keys), list_ * len(log.items) + item)
    list_, item = list_[free], item[free]
    place = np.arange(len(list_)) - np.searchsorted(list_, list_)
    sizes = np.bincount(slots.list_, minlength=len(lists.user))
    there = place < sizes[list_]
    slots.chosen[np.searchsorted(slots.list_, list_[there]) + place[there]] = item[there]


def _with_positives(lists: _Lists, slots: Slots) -> Candidates:
    """Put the target and what was clicked beside it among the negatives of each list, in a seeded order."""
    number = len(lists.user)
    list_ = np.concatenate([np.arange(number), lists.more[0], slots.list_])
    item = np.concatenate([lists.positive, lists.more[1], slots.chosen])
    label = np.zeros(len(item), dtype=np.int8)
    label[: number + len(lists.more[0])] = 1
    order = np.lexsort((stream(mix(lists.keys ^ hash_ids(["order"]))[list_], item), list_))
    return Candidates(lists.first + list_[order], item[order].astype(np.int32), label[order])


def with_targets(example: Rows, targets: Codes, negatives: Codes, counts: Rows, keys: Bits) -> Candidates:
    """Put the target of each list at its seeded position among its ``counts`` negatives (flat, list after list)."""
    position = below(stream(keys, np.zeros(len(keys), dtype=np.int64)), counts + 1)
    label = np.zeros(len(example), dtype=np.int8)
    label[np.cumsum(counts + 1) - (counts + 1) + position] = 1
    item = np.empty(len(label), dtype=np.int32)
    item[label == 1], item[label == 0] = targets, negatives
    return Candidates(example, item, label)
