"""Duplicates, unknown items, limits and the k-core: what is kept, and that the ledger adds up."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import DataConfig, KCoreConfig, LimitConfig, SyntheticSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.filters import clean, k_core
from msr_adapter.data.interaction_log import Log, Parts, encode
from msr_adapter.errors import UserError
from tests.support.data_builders import Row, corpus_of, log_of, logs, pairs_of, random_rows


def data(users: int = 1, items: int = 1, limit: LimitConfig | None = None) -> DataConfig:
    return DataConfig(
        source=SyntheticSourceConfig(kind="synthetic"),
        k_core=KCoreConfig(users=users, items=items),
        limit=limit or LimitConfig(),
    )


def cleaned(
    rows: list[Row], config: DataConfig, titles: dict[str, str] | None = None, seed: int = 0
) -> tuple[Log, Audit]:
    read, audit = corpus_of(rows, titles), Audit()
    return clean(encode(read, audit), read, config, seed, audit), audit


def brute_k_core(pairs: set[tuple[str, str]], users: int, items: int) -> set[tuple[str, str]]:
    while True:
        user_degree = Counter(user for user, _ in pairs)
        item_degree = Counter(item for _, item in pairs)
        left = {(u, i) for u, i in pairs if user_degree[u] >= users and item_degree[i] >= items}
        if left == pairs:
            return pairs
        pairs = left


def test_of_a_repeated_pair_the_earliest_stays() -> None:
    rows = [("u", "a", 50), ("u", "b", 20), ("u", "a", 10), ("v", "a", 5), ("u", "b", 20)]
    audit = Audit()
    log = encode(corpus_of(rows), audit)
    assert pairs_of(log) == [("u", "a"), ("u", "b"), ("v", "a")]
    assert log.time.tolist() == [10, 20, 5]
    assert audit.counts == {
        "interactions_read": 5, "users_read": 2, "items_read": 2, "interactions_dropped_duplicate": 2
    }  # fmt: skip


def test_equal_times_keep_the_order_of_the_rows() -> None:
    log = log_of([("u", "c", 7), ("u", "a", 7), ("u", "b", 7), ("u", "z", 1)])
    assert [item for _, item in pairs_of(log)] == ["z", "c", "a", "b"]


@settings(deadline=None)
@given(rows=logs(), times=st.integers(1, 4), shard=st.integers(1, 9), batch=st.integers(1, 9))
def test_batches_and_shards_change_nothing(rows: list[Row], times: int, shard: int, batch: int) -> None:
    tied = [(user, item, time // 10 % times) for user, item, time in rows]
    whole = log_of(tied)
    log = encode(corpus_of(tied), Audit(), parts=Parts(batch, shard))
    assert pairs_of(log) == pairs_of(whole)
    assert log.time.tolist() == whole.time.tolist()
    earliest = {}
    for user, item, time in sorted(tied, key=lambda row: (row[0], row[2])):
        earliest.setdefault((user, item), time)
    assert list(zip(pairs_of(log), log.time.tolist(), strict=True)) == list(earliest.items())


def test_k_core_cascades() -> None:
    # Worked by hand: c has one user; without it u3 has one item; without u3, b has two users left, a has two.
    rows = [("u1", "a", 1), ("u1", "b", 2), ("u2", "a", 3), ("u2", "b", 4), ("u3", "b", 5), ("u3", "c", 6)]
    log, audit = cleaned(rows, data(users=2, items=2))
    assert set(pairs_of(log)) == {("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "b")}
    assert audit.counts["interactions_dropped_k_core"] == 2
    assert audit.counts["users_dropped_k_core"] == 1
    assert audit.counts["items_dropped_k_core"] == 1


@settings(deadline=None)
@given(rows=logs(), users=st.integers(1, 4), items=st.integers(1, 4))
def test_k_core_equals_brute_force(rows: list[Row], users: int, items: int) -> None:
    log = log_of(rows)
    mask = k_core(log.user, log.item, KCoreConfig(users=users, items=items))
    assert set(pairs_of(log.keep(mask))) == brute_k_core({(u, i) for u, i, _ in rows}, users, items)


@settings(deadline=None)
@given(rows=logs(), users=st.integers(1, 3), items=st.integers(1, 3), drawn=st.integers(1, 8), known=st.integers(1, 10))
def test_the_ledger_adds_up(rows: list[Row], users: int, items: int, drawn: int, known: int) -> None:
    titles = {f"i{i}": "" for i in range(known)}
    try:
        log, audit = cleaned(rows, data(users, items, LimitConfig(users=drawn, items=6)), titles)
    except UserError:
        return
    for noun, left in (("interactions", len(log.user)), ("users", len(log.users)), ("items", len(log.items))):
        dropped = sum(n for name, n in audit.counts.items() if name.startswith(f"{noun}_dropped_"))
        assert audit.counts[f"{noun}_read"] - dropped == audit.counts[f"{noun}_kept"] == left


@settings(deadline=None)
@given(rows=logs(), drawn=st.integers(1, 8), popular=st.integers(2, 10))
def test_a_kept_user_keeps_all_that_the_catalogue_still_has(rows: list[Row], drawn: int, popular: int) -> None:
    try:
        log, _ = cleaned(rows, data(2, 1, LimitConfig(users=drawn, items=popular)))
    except UserError:
        return
    users, items = set(log.users), set(log.items)
    assert set(pairs_of(log)) == {(u, i) for u, i, _ in rows if u in users and i in items}


def test_an_empty_core_says_what_was_there() -> None:
    with pytest.raises(UserError, match=r"data.k_core: users: 3, items: 1 leaves nothing of 2 interactions of 2 users"):
        cleaned([("u", "a", 1), ("v", "b", 2)], data(users=3))


def test_unknown_items_are_dropped_and_counted() -> None:
    log, audit = cleaned([("u", "a", 1), ("u", "x", 2), ("v", "x", 3), ("v", "y", 4)], data(), {"a": "A"})
    assert pairs_of(log) == [("u", "a")]
    assert audit.counts["interactions_dropped_unknown_item"] == 3
    assert audit.counts["users_dropped_unknown_item"] == 1
    assert audit.counts["items_dropped_unknown_item"] == 2
    assert audit.findings[0]["text"].startswith("Dropped 3 interactions with 2 items that the table of items lacks")


def test_only_unknown_items_stop_with_examples_of_both_sides() -> None:
    with pytest.raises(UserError) as caught:
        cleaned([("u", "1", 1), ("u", "2", 2)], data(), {"001": "A", "002": "B"})
    text = str(caught.value)
    assert "none of the 2 items of the log is in the table of items (log: '1', '2'; table: '001', '002')" in text
    assert "leading zeros count" in text


def test_the_item_limit_keeps_the_most_popular_and_breaks_ties_by_id() -> None:
    rows = [("u", "c", 1), ("u", "b", 2), ("u", "a", 3), ("v", "c", 4)]
    log, audit = cleaned(rows, data(limit=LimitConfig(items=2)))
    assert log.items.to_list() == ["a", "c"]
    assert audit.counts["items_dropped_item_limit"] == 1


def test_the_user_limit_draws_users_whole_and_by_seed() -> None:
    rows = random_rows(users=40, items=30, length=5)
    limited = data(limit=LimitConfig(users=10))
    some, audit = cleaned(rows, limited, seed=1)
    shuffled, _ = cleaned(rows[::-1], limited, seed=1)
    other, _ = cleaned(rows, limited, seed=2)
    assert len(some.users) == 10
    assert len(some.user) == 50
    assert some.users.to_list() == shuffled.users.to_list()
    assert some.users.to_list() != other.users.to_list()
    assert audit.counts["users_dropped_user_limit"] == 30
    assert set(some.items) == {item for user, item, _ in rows if user in set(some.users)}


def test_the_user_limit_is_uniform_over_seeds() -> None:
    rows = random_rows(users=10, items=30, length=3)
    limited = data(limit=LimitConfig(users=3))
    drawn = Counter(user for seed in range(300) for user in cleaned(rows, limited, seed=seed)[0].users)
    # 300 x 3/10 = 90 expected, standard deviation 7.9: five of them on either side.
    assert all(50 < drawn[user] < 130 for user in {user for user, _, _ in rows})
