"""The split: targets, histories and what training may know, by hand and by property."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.examples import Examples, assert_no_leak, make_examples
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.splits import known_to_training, user_splits
from msr_adapter.schema import SPLITS
from tests.support.data_builders import Row, log_of, logs, pairs_of, random_rows

HOLDOUT, LAST_OUT = "user-holdout", "leave-last-out"

splits = st.builds(
    SplitConfig,
    kind=st.sampled_from([HOLDOUT, LAST_OUT]),
    max_history=st.integers(1, 5),
    min_history=st.integers(1, 3),
    train_targets=st.integers(1, 6),
    fractions=st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.0, 0.0, 1.0)]),
)


def told(log: Log, examples: Examples) -> list[tuple[str, str, str, str]]:
    """Return (split, user, history, target) with histories joined, for tables by hand."""
    users, items = log.users.to_list(), [log.items[int(code)] for code in log.item]
    return [
        (SPLITS[s], users[u], "".join(items[start:target]), items[target])
        for s, u, start, target in zip(examples.split, examples.user, examples.start, examples.target, strict=True)
    ]


def word(user: str, letters: str) -> list[Row]:
    return [(user, letter, time) for time, letter in enumerate(letters)]


def test_leave_last_out_by_hand() -> None:
    log = log_of(word("long", "abcdefg") + word("mid", "abc") + word("one", "z") + word("two", "yx"))
    examples = make_examples(log, SplitConfig(kind=LAST_OUT, max_history=3, train_targets=2), 0)
    assert told(log, examples) == [
        ("train", "long", "abc", "d"),
        ("train", "long", "bcd", "e"),
        ("validation", "long", "cde", "f"),
        ("validation", "mid", "a", "b"),
        ("test", "long", "def", "g"),
        ("test", "mid", "ab", "c"),
        ("test", "two", "y", "x"),
    ]


def test_leave_last_out_training_knows_everything_but_the_held_out_targets() -> None:
    log = log_of(word("long", "abcd") + word("one", "d"))
    split = SplitConfig(kind=LAST_OUT)
    known = known_to_training(log, split, make_examples(log, split, 0).held_out, 0)
    # c and d of "long" are targets; the single interaction of "one" is nobody's target.
    assert [pair for pair, is_known in zip(pairs_of(log), known, strict=True) if is_known] == [
        ("long", "a"),
        ("long", "b"),
        ("one", "d"),
    ]


def test_user_holdout_by_hand() -> None:
    log = log_of(word("u", "abcde") + word("v", "abc"))
    train = make_examples(log, SplitConfig(fractions=(1.0, 0.0, 0.0), max_history=2, min_history=2, train_targets=2), 0)
    assert told(log, train) == [("train", "u", "bc", "d"), ("train", "u", "cd", "e"), ("train", "v", "ab", "c")]
    test = make_examples(log, SplitConfig(fractions=(0.0, 0.0, 1.0), max_history=9, train_targets=5), 0)
    assert told(log, test) == [("test", "u", "abcd", "e"), ("test", "v", "ab", "c")]


def test_user_holdout_training_knows_its_users_only() -> None:
    rows = random_rows(users=30, items=12, length=6)
    log, split = log_of(rows), SplitConfig()
    trained = {log.users[int(code)] for code in np.flatnonzero(user_splits(log, split, 3) == 0)}
    known = known_to_training(log, split, make_examples(log, split, 3).held_out, 3)
    assert len(trained) == 24
    assert {pair for pair, is_known in zip(pairs_of(log), known, strict=True) if is_known} == {
        (user, item) for user, item, _ in rows if user in trained
    }


def test_shares_of_users_are_as_configured_and_follow_the_seed() -> None:
    log = log_of(random_rows(users=200, items=9, length=2))
    parts = user_splits(log, SplitConfig(), 0)
    assert np.bincount(parts).tolist() == [160, 20, 20]
    assert (parts != user_splits(log, SplitConfig(), 1)).any()
    assert np.bincount(user_splits(log, SplitConfig(fractions=(0.0, 0.5, 0.5)), 0)).tolist() == [0, 100, 100]


@settings(deadline=None)
@given(rows=logs(), split=splits, seed=st.integers(0, 3))
def test_no_history_reaches_its_target_and_splits_are_kept_apart(
    rows: list[Row], split: SplitConfig, seed: int
) -> None:
    log = log_of(rows)
    examples = make_examples(log, split, seed)
    assert_no_leak(log, examples)
    when = dict(zip(zip(log.user.tolist(), log.item.tolist(), strict=True), log.time.tolist(), strict=True))
    for user, start, target in zip(examples.user, examples.start, examples.target, strict=True):
        history = log.item[start:target].tolist()
        assert split.min_history <= len(history) or split.max_history < split.min_history
        assert len(history) <= split.max_history
        assert log.item[target] not in history
        assert all(when[user, item] < log.time[target] for item in history)
    if split.kind == HOLDOUT:
        groups = [set(examples.user[examples.split == code].tolist()) for code in range(3)]
        assert sum(map(len, groups)) == len(set.union(*groups))
    pairs = list(zip(examples.user.tolist(), examples.target.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)


@settings(deadline=None)
@given(rows=logs(), split=splits)
def test_every_user_with_enough_items_gives_its_examples(rows: list[Row], split: SplitConfig) -> None:
    log = log_of(rows)
    examples = make_examples(log, split, 0)
    parts = user_splits(log, split, 0)
    for user, length in enumerate(np.bincount(log.user).tolist()):
        positions = range(length - 1, split.min_history - 1, -1)
        if split.kind == LAST_OUT:
            expected = len(positions[: split.train_targets + 2])
        else:
            expected = len(positions[: split.train_targets if parts[user] == 0 else 1])
        assert int((examples.user == user).sum()) == expected


@settings(deadline=None)
@given(rows=logs(), split=splits, shuffler=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter_when_times_differ(
    rows: list[Row], split: SplitConfig, shuffler: object
) -> None:
    shuffled = list(rows)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = log_of(rows), log_of(shuffled)
    assert told(one, make_examples(one, split, 5)) == told(other, make_examples(other, split, 5))


def test_the_guard_against_leaks_can_fail() -> None:
    log = log_of(word("u", "abc") + word("v", "abc"))
    rows = {name: np.array([0]) for name in ("split", "user")}

    def examples(start: int, end: int, target: int) -> Examples:
        return Examples(**rows, target=np.array([target]), start=np.array([start]), end=np.array([end]))

    with pytest.raises(AssertionError, match="empty"):
        assert_no_leak(log, examples(2, 2, 2))
    with pytest.raises(AssertionError, match="another user"):
        assert_no_leak(log, examples(2, 4, 4))
    with pytest.raises(AssertionError, match="reaches its target"):
        assert_no_leak(log, examples(0, 2, 1))
    twice = Log(log.users, log.items, log.user, np.zeros_like(log.item), log.time)
    with pytest.raises(AssertionError, match="twice"):
        assert_no_leak(twice, examples(0, 2, 2))
