"""The candidate lists: one positive, distinct negatives that the user has not seen, the same on every machine."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import NegativesConfig, ProtocolConfig, SplitConfig, TrainNegativesConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import Examples, make_examples
from msr_adapter.data.interaction_log import Log, degree
from msr_adapter.data.negatives.candidates import CHUNK, Candidates, DrawInputs, draw_candidates
from msr_adapter.data.negatives.pools import ItemStatistics
from msr_adapter.data.negatives.spec import Shortages, make_list_specs
from msr_adapter.data.splits import known_to_training
from msr_adapter.errors import UserError
from msr_adapter.seeded_random import below, hash_ids, keyed, mix, stream
from tests.support.data_builders import Row, log_of, logs, random_rows
from tests.support.negatives_builders import digest_of

LAST_OUT = SplitConfig(kind="leave-last-out")

GOLDEN_GROUP = [("i07", 0), ("i09", 1), ("i08", 0), ("i05", 0)]
GOLDEN_DIGEST = "1983384fe4b21c2f7178cf8044b141143702d70a5d9a4b586a86db2ad08e66c1"


def draw(
    rows: list[Row], train: int, test: int, seed: int = 0, split: SplitConfig = LAST_OUT, chunk: int = CHUNK
) -> tuple[Log, Examples, Candidates]:
    log = log_of(rows)
    examples = make_examples(log, split, seed)
    training = known_to_training(log, split, examples.held_out, seed)
    known = ItemStatistics(log.items, degree(log.item[training], len(log.items)), log.items)
    protocol = ProtocolConfig(name="test", negatives=NegativesConfig(count=test))
    specs = make_list_specs(protocol, TrainNegativesConfig(count=train), log, known, Audit())
    return log, examples, draw_candidates(DrawInputs(log, examples, specs, seed), Shortages(), chunk)


def groups(log: Log, examples: Examples, drawn: Candidates) -> dict[tuple[str, str], list[tuple[str, int]]]:
    """Return (user, target) -> [(item, label), ...] in order."""
    names, items = log.users.to_list(), log.items.to_list()
    table: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for example, item, label in zip(drawn.example, drawn.item, drawn.label, strict=True):
        key = names[examples.user[example]], items[log.item[examples.target[example]]]
        table.setdefault(key, []).append((items[item], int(label)))
    return table


def is_feasible(rows: list[Row], negatives: int) -> bool:
    seen = Counter(user for user, _ in {(u, i) for u, i, _ in rows})
    return len({i for _, i, _ in rows}) - max(seen.values()) >= negatives


@settings(deadline=None)
@given(rows=logs(max_users=5, max_items=14), train=st.integers(1, 2), test=st.integers(1, 4), seed=st.integers(0, 5))
def test_one_positive_and_distinct_unseen_negatives(rows: list[Row], train: int, test: int, seed: int) -> None:
    assume(is_feasible(rows, max(train, test)))
    log, examples, drawn = draw(rows, train, test, seed)
    seen = {(user, item) for user, item, _ in rows}
    assert np.array_equal(np.unique(drawn.example), np.arange(len(examples)))
    sizes = np.bincount(drawn.example, minlength=len(examples)) - 1
    assert sizes.tolist() == [train if code == 0 else test for code in examples.split]
    for (user, target), group in groups(log, examples, drawn).items():
        assert [item for item, label in group if label] == [target]
        assert len({item for item, _ in group}) == len(group)
        assert not any((user, item) in seen for item, label in group if not label)


@settings(deadline=None)
@given(rows=logs(max_users=5, max_items=14), shuffler=st.randoms(use_true_random=False))
def test_shuffled_rows_give_the_same_candidates_and_digest(rows: list[Row], shuffler: object) -> None:
    assume(is_feasible(rows, 2))
    shuffled = list(rows)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = draw(rows, 1, 2), draw(shuffled, 1, 2)
    assert groups(*one) == groups(*other)
    assert digest_of(one[0], one[2]) == digest_of(other[0], other[2])


def test_another_user_or_another_chunk_changes_nothing() -> None:
    rows = random_rows(users=30, items=40, length=6)
    every_item = [("zz", f"i{i:03}", 9_000_000 + i) for i in range(40) if i < 30]
    whole = groups(*draw(rows, 1, 8))
    more = groups(*draw(rows + every_item, 1, 8))
    assert {key: more[key] for key in whole} == whole
    for chunk in (1, 7, 64):
        assert groups(*draw(rows, 1, 8, chunk=chunk)) == whole


def test_more_negatives_of_one_split_leave_the_other_as_it_is() -> None:
    rows = random_rows(users=12, items=30, length=5)
    few, many = draw(rows, 1, 5), draw(rows, 4, 5)
    held = [groups(log, ex, c) for log, ex, c in (few, many)]
    test_keys = [key for key, group in held[0].items() if len(group) == 6]
    assert test_keys
    assert all(held[0][key] == held[1][key] for key in test_keys)


def test_seed_and_target_change_the_draw() -> None:
    rows = random_rows(users=5, items=60, length=6)
    assert groups(*draw(rows, 1, 8)) != groups(*draw(rows, 1, 8, seed=1))
    _, examples, drawn = draw(rows, 8, 8)
    first = [drawn.item[(drawn.example == e) & (drawn.label == 0)].tolist() for e in range(len(examples))]
    assert len({tuple(one) for one in first}) == len(first)


def test_the_draw_is_that_of_earlier_versions() -> None:
    """A golden: with another sampler, results could no longer be compared with earlier ones."""
    rows = [(f"u{u}", f"i{(3 * u + 5 * n) % 12:02}", n) for u in range(4) for n in range(4)]
    log, examples, drawn = draw(rows, 1, 3)
    assert groups(log, examples, drawn)["u2", "i09"] == GOLDEN_GROUP
    assert digest_of(log, drawn) == GOLDEN_DIGEST


def test_a_catalogue_just_large_enough_is_filled_exactly() -> None:
    rows = random_rows(users=40, items=25, length=5)
    log, examples, drawn = draw(rows, 20, 20)
    assert len(log.items) == 25
    for (user, _), group in groups(log, examples, drawn).items():
        seen = {item for u, item, _ in rows if u == user}
        assert {item for item, label in group if not label} == set(log.items) - seen


def test_one_free_item_among_thousands_is_found_without_endless_retries() -> None:
    rows = [("all", f"i{i:05}", i) for i in range(5000)] + [("other", "i00000", 1), ("other", "last", 2)]
    log, examples, drawn = draw(rows, 1, 1)
    by_user = {user: group for (user, _), group in groups(log, examples, drawn).items()}
    assert ("last", 0) in by_user["all"]


def test_too_small_a_catalogue_says_who_what_and_the_way_out() -> None:
    rows = random_rows(users=6, items=8, length=5)
    with pytest.raises(UserError) as caught:
        draw(rows, 4, 20)
    train, test = map(str, caught.value.problems)
    assert train.startswith(
        "train.negatives.count: 4 negatives asked for, more than the items that 6 users did not interact with"
    )
    assert test == (
        "evaluate.protocol.negatives.count: 20 negatives asked for, more than the items that 6 users did not "
        "interact with (the catalogue has 8 items); at most 3 for these users. "
        "Ask for 3 or fewer, or keep more items (data.limit.items, data.k_core.items)"
    )


def test_negatives_and_positions_are_uniform() -> None:
    rows = random_rows(users=1500, items=20, length=4)
    _, _, drawn = draw(rows, 1, 4)
    negatives = np.bincount(drawn.item[drawn.label == 0], minlength=20)
    expected = negatives.sum() / 20
    # Chi-square with 19 degrees of freedom: 43.8 is its 99.9th percentile; the seed is fixed.
    assert ((negatives - expected) ** 2 / expected).sum() < 43.8
    sizes = np.bincount(drawn.example)
    first = np.cumsum(sizes) - sizes
    position = np.flatnonzero(drawn.label) - first
    counts = np.bincount(position[sizes == 5], minlength=5)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 18.5  # 99.9th percentile, 4 degrees of freedom


def test_hashing_is_the_published_splitmix64() -> None:
    # First outputs of SplitMix64 seeded with 1234567, as in the reference implementation's published test vector.
    seed = np.array([1234567], dtype=np.uint64)
    outputs = [int(stream(seed, np.array([n]))[0]) for n in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert int(mix(np.array([0], dtype=np.uint64))[0]) == 0


def test_ids_hash_alike_everywhere_and_purposes_differ() -> None:
    assert hash_ids(["7", "007", "\u4e2d"]).tolist() == [
        9407870976149377255,
        13655456112802015817,
        14628826945721186137,
    ]
    bits = hash_ids(["a"])
    assert keyed(bits, 0, "split") != keyed(bits, 0, "limit")
    assert keyed(bits, 0, "split") != keyed(bits, 1, "split")
    assert below(np.array([0, 2**63, 2**64 - 1], dtype=np.uint64), 10).tolist() == [0, 5, 9]
