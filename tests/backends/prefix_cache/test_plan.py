"""The grouping of prompts: as good as trying all groupings, and counted exactly."""

from collections.abc import Iterator, Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from msr_adapter.backends.prefix_cache.prompt_grouping import Group, make_plan

rows_of_tokens = st.lists(st.lists(st.integers(-2, 1), min_size=1, max_size=7), min_size=1, max_size=6)


def partitions(rows: Sequence[tuple[int, ...]]) -> Iterator[list[list[tuple[int, ...]]]]:
    if not rows:
        yield []
        return
    for parts in partitions(rows[1:]):
        yield [[rows[0]], *parts]
        for place in range(len(parts)):
            yield [*parts[:place], [rows[0], *parts[place]], *parts[place + 1 :]]


def cost(parts: Sequence[Sequence[tuple[int, ...]]], least_shared: int) -> int:
    """Tokens of a grouping: each part shares the longest prefix that leaves every row a token of its own."""
    total = 0
    for part in parts:
        shared = min(len(row) for row in part) - 1
        while any(row[:shared] != part[0][:shared] for row in part):
            shared -= 1
        shared = 0 if len(part) == 1 or shared < least_shared else shared
        total += shared + sum(len(row) - shared for row in part)
    return total


@settings(deadline=None, max_examples=150)
@given(rows_of_tokens, st.integers(1, 3))
@example([[0], [0, 1], [0, 1, 1], [0, 1, 1, 1]], 1)
@example([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 0, 1], [1, 0]], 1)
def test_no_grouping_has_fewer_tokens(rows: list[list[int]], least_shared: int) -> None:
    plan = make_plan(rows, least_shared)
    distinct = sorted({tuple(row) for row in rows})
    assert plan.planned == min(cost(parts, least_shared) for parts in partitions(distinct))
    assert plan.flat == sum(map(len, rows))
    assert plan.least == len({tuple(row[:end]) for row in rows for end in range(1, len(row) + 1)})
    assert plan.least <= plan.planned <= plan.flat


@settings(deadline=None, max_examples=150)
@given(rows_of_tokens, st.integers(1, 3))
def test_every_row_is_computed_once_after_what_it_begins_with(rows: list[list[int]], least_shared: int) -> None:
    plan = make_plan(rows, least_shared)
    grouped = [row for group in plan.groups for row in group.rows]
    assert sorted([*grouped, *plan.duplicates]) == list(range(len(rows)))
    assert all(rows[row] == rows[original] and original in grouped for row, original in plan.duplicates.items())
    for group in plan.groups:
        assert group.shared == 0 or (group.shared >= least_shared and len(group.rows) > 1)
        assert len({tuple(rows[row][: group.shared]) for row in group.rows}) == 1
        assert all(len(rows[row]) > group.shared for row in group.rows)


def test_users_first_and_items_first_by_hand() -> None:
    head, ask = [1] * 10, [2] * 5
    users = [[100 + user] * 50 for user in range(3)]
    items = [[-1 - item] * 20 + [200 + item] * 4 for item in range(4)]
    user_first = make_plan([head + user + item + ask for user in users for item in items])
    assert user_first.groups == tuple(Group(60, tuple(range(4 * user, 4 * user + 4))) for user in range(3))
    assert (user_first.flat, user_first.planned) == (12 * 89, 3 * 60 + 12 * 29)
    assert user_first.least == 10 + 3 * 50 + 12 * 29
    item_first = make_plan([head + item + user + ask for user in users for item in items])
    assert item_first.groups == tuple(Group(34, (item, item + 4, item + 8)) for item in range(4))
    assert (item_first.flat, item_first.planned) == (12 * 89, 4 * 34 + 12 * 55)


def test_a_deeper_group_of_some_and_a_shallower_one_of_the_rest() -> None:
    rows = [[1] * 10 + [2] * 90 + [3], [1] * 10 + [2] * 90 + [4], [1] * 10 + [5], [1] * 10 + [6]]
    assert make_plan(rows).groups == (Group(100, (0, 1)), Group(10, (2, 3)))


def test_nothing_in_common_is_one_plain_group_and_equal_rows_are_computed_once() -> None:
    plan = make_plan([[1, 2, 3], [4, 5], [1, 2, 3], [4, 5]])
    assert plan.groups == (Group(0, (0, 1)),)
    assert plan.duplicates == {2: 0, 3: 1}
    assert (plan.flat, plan.planned, plan.least) == (10, 5, 5)
    assert make_plan([]).groups == ()


def test_a_prefix_that_saves_too_little_is_not_shared() -> None:
    one, other = [*range(10), *range(100, 190)], [*range(10), *range(200, 290)]  # 10 of 200 tokens are saved
    assert make_plan([one, other]).groups == (Group(10, (0, 1)),)
    assert make_plan([one, other], least_saved=0.05).groups == (Group(10, (0, 1)),)
    plan = make_plan([one, [7, 7], other], least_saved=0.06)
    assert plan.groups == (Group(0, (0, 1, 2)),)
    assert (plan.planned, plan.least) == (202, 192)
