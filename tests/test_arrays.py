"""The vectorised steps, against the loops that they stand for."""

import bisect

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.arrays import contains, first_at_least, ranges, user_blocks

lengths = st.lists(st.integers(0, 6), min_size=1, max_size=12)


@given(pairs=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5)), max_size=10))
def test_ranges_one_after_the_other(pairs: list[tuple[int, int]]) -> None:
    start, length = (np.array([pair[n] for pair in pairs], dtype=np.int64) for n in (0, 1))
    assert ranges(start, length).tolist() == [row for begin, size in pairs for row in range(begin, begin + size)]


@given(ordered=st.lists(st.integers(-5, 20)).map(sorted), values=st.lists(st.integers(-7, 22)))
def test_contains_is_membership(ordered: list[int], values: list[int]) -> None:
    found = contains(np.array(ordered, dtype=np.int64), np.array(values, dtype=np.int64))
    assert found.tolist() == [value in ordered for value in values]


@given(sizes=lengths, draw=st.data())
def test_a_binary_search_of_all_ranges_is_one_of_each(sizes: list[int], draw: st.DataObject) -> None:
    times = [sorted(draw.draw(st.lists(st.integers(0, 9), min_size=size, max_size=size))) for size in sizes]
    wanted = draw.draw(st.lists(st.integers(-1, 10), min_size=len(sizes), max_size=len(sizes)))
    end = np.cumsum(sizes)
    flat = np.array([time for mine in times for time in mine], dtype=np.int64)
    found = first_at_least(flat, end - sizes, end, np.array(wanted))
    assert (found - (end - sizes)).tolist() == [
        bisect.bisect_left(mine, time) for mine, time in zip(times, wanted, strict=True)
    ]
    alike = first_at_least(flat, end - sizes, end, 5)
    assert (alike - (end - sizes)).tolist() == [bisect.bisect_left(mine, 5) for mine in times]


@given(sizes=lengths, rows=st.integers(1, 30))
def test_blocks_hold_whole_users_and_everything_once(sizes: list[int], rows: int) -> None:
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    blocks = list(user_blocks(bounds, rows))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(sum(sizes)))
    assert {block.start for block in blocks} <= set(bounds.tolist())
    assert all(block.stop - block.start < rows + max(sizes) for block in blocks)
