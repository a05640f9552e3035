"""Where passes end: the cheapest cut within the limits; what did not fit once is asked for in halves from then on."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer


def cost(lengths: Sequence[int], ends: Sequence[int], pass_cost: int) -> int:
    return sum((end - start) * lengths[start] + pass_cost for start, end in pairwise([0, *ends]))


def allowed(lengths: Sequence[int], sizer: BatchSizer) -> list[list[int]]:
    """Every way of cutting the rows that keeps the limits, by brute force."""
    ways = []
    for chosen in range(2 ** (len(lengths) - 1)):
        ends = [end for end in range(1, len(lengths)) if chosen >> (end - 1) & 1] + [len(lengths)]
        if all(end - start <= sizer.fitting(lengths[start]) for start, end in pairwise([0, *ends])):
            ways.append(ends)
    return ways


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=9).map(lambda found: sorted(found, reverse=True)),
    rows=st.integers(1, 10), tokens=st.none() | st.integers(1, 900), pass_cost=st.integers(0, 500),
)  # fmt: skip
def test_the_cut_is_the_cheapest_of_all_within_the_limits(
    lengths: list[int], rows: int, tokens: int | None, pass_cost: int
) -> None:
    sizer = BatchSizer(rows, tokens, pass_cost)
    ends = sizer.ends(lengths)
    ways = allowed(lengths, sizer)
    assert ends in ways
    assert cost(lengths, ends, pass_cost) == min(cost(lengths, way, pass_cost) for way in ways)


def test_padding_is_worth_a_pass_or_not() -> None:
    lengths = [100, 100, 20, 20, 20]
    assert BatchSizer(8, pass_cost=10).ends(lengths) == [2, 5]
    assert BatchSizer(8, pass_cost=1_000).ends(lengths) == [5]


def test_rows_come_once_and_in_order_and_what_memory_allowed_is_remembered() -> None:
    sizer = BatchSizer(8, pass_cost=10_000)
    asked: list[int] = []

    def call(piece: Sequence[int]) -> int:
        asked.append(len(piece))
        if len(piece) > 3:
            raise torch.OutOfMemoryError
        return sum(piece)

    work = list(range(10, 0, -1))
    found = list(sizer.each(work, lambda one: one, call))
    assert [one for piece, _ in found for one in piece] == work
    assert sum(total for _, total in found) == sum(work)
    failed = [size for size in asked if size > 3]
    assert failed
    assert asked[: len(failed)] == failed, "only smaller pieces are tried after one that fits"
    assert failed == sorted(set(failed), reverse=True)
    assert 1 <= sizer.rows <= 3
    asked.clear()
    list(sizer.each(work, lambda one: one, call))
    assert max(asked) <= 3


def test_a_row_that_does_not_fit_alone_is_an_error() -> None:
    def never(_: Sequence[int]) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        list(BatchSizer(4).each([5, 4, 3], lambda one: one, never))
