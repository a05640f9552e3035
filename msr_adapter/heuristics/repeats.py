"""Heuristic of repeat consumption: what the user had before, most often first."""

import numpy as np

from msr_adapter.arrays import Codes, Floats, Mask, Rows

_LARGEST = 2**62


def repeat_scores(
    items: Codes, offsets: Rows, history: Codes, history_offsets: Rows, counts: Rows
) -> tuple[Floats, Mask]:
    """Score candidates (n,) by how often the user interacted with the item; return also which are in the history (n,).

    Of equally frequent ones, the one interacted with last is first. What the user never had comes after all of that, by
    ``counts`` (items,): how often training saw the item. O(rows log rows); scores of different users compare too.
    """
    n_items = len(counts)
    assert (len(offsets) + 1) * n_items < _LARGEST, "more users and items than a key can tell apart"
    lengths = np.diff(history_offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    keys = owner * n_items + history
    order = np.argsort(keys, kind="stable")  # of equal keys the latest is the last
    keys = keys[order]
    last = np.append(keys[1:] != keys[:-1], True)[: len(keys)]
    ends = np.flatnonzero(last)
    often = np.diff(ends, prepend=-1)
    place = order[ends] - history_offsets[owner[order[ends]]]
    recency = (place + 1) / (lengths[owner[order[ends]]] + 1)  # between 0 and 1: it only decides between equals
    wanted = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)) * n_items + items
    found = np.searchsorted(keys[ends], wanted)
    had = np.zeros(len(items), dtype=bool)
    inside = found < len(ends)
    had[inside] = keys[ends][found[inside]] == wanted[inside]
    scores = counts[items] / (counts.max(initial=0) + 1) - 1
    scores[had] = (often + recency)[found[had]]
    return scores, had
