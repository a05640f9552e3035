"""Every kind of negatives: what may be drawn, how likely it is, what happens when there is too little of it."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from msr_adapter.config.schema import MixtureConfig, NegativesConfig, TrainNegativesConfig
from msr_adapter.data.interaction_log import Log
from msr_adapter.errors import UserError
from msr_adapter.seeded_random import hash_ids
from tests.support.data_builders import Row, logs, random_rows
from tests.support.negatives_builders import Drawn, Groups, draw, skewed_rows

ALL_KINDS = ("uniform", "popularity", "popularity-matched", "same-category", "mixture", "all")
CATEGORIES = {f"i{n}": f"c{n % 3}" for n in range(14)}
ANY: dict[str, Any] = {"fallback": ("popularity", "uniform"), "mixture": MixtureConfig(popularity=1, same_category=2)}


def seen_by_user(rows: list[Row]) -> dict[str, set[str]]:
    table: dict[str, set[str]] = {}
    for user, item, _ in rows:
        table.setdefault(user, set()).add(item)
    return table


def is_feasible(rows: list[Row], count: int) -> bool:
    seen = seen_by_user(rows)
    return len(set().union(*seen.values())) - max(map(len, seen.values())) >= count


@given(rows=logs(max_users=5, max_items=14), kind=st.sampled_from(ALL_KINDS), count=st.integers(1, 4))
def test_every_kind_gives_one_positive_and_distinct_unseen_negatives(rows: list[Row], kind: str, count: int) -> None:
    assume(is_feasible(rows, count))
    drawn = draw(rows, NegativesConfig(kind=kind, count=count, **ANY), categories=CATEGORIES)
    seen, everything = seen_by_user(rows), {item for _, item, _ in rows}
    for code in range(3):
        for (user, target), group in drawn.groups(code).items():
            negatives = [item for item, label in group if not label]
            assert [item for item, label in group if label] == [target]
            assert len(set(negatives)) == len(negatives)
            assert not seen[user] & set(negatives)
            if code and kind == "all":
                assert set(negatives) == everything - seen[user]
            else:
                assert len(negatives) == (count if code else 1)


@given(
    rows=logs(max_users=6, max_items=14),
    kind=st.sampled_from(ALL_KINDS),
    chunk=st.integers(1, 40),
    shuffler=st.randoms(use_true_random=False),
)
def test_neither_chunks_nor_the_order_of_rows_change_any_kind(
    rows: list[Row], kind: str, chunk: int, shuffler: Any
) -> None:
    assume(is_feasible(rows, 2))
    negatives = NegativesConfig(kind=kind, count=2, **ANY)
    whole = draw(rows, negatives, categories=CATEGORIES)
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    other = draw(shuffled, negatives, categories=CATEGORIES, chunk=chunk)
    assert other.groups() == whole.groups()
    assert other.digest == whole.digest
    assert other.shortages == whole.shortages


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def test_popularity_draws_in_proportion_to_a_power_of_popularity() -> None:
    rows = skewed_rows(users=4000, items=12, length=4)
    for alpha in (0.0, 0.5, 1.0):
        drawn = draw(rows, NegativesConfig(kind="popularity", alpha=alpha, count=1))
        weight = drawn.popularity.astype(float) ** alpha
        observed, expected = np.zeros(12), np.zeros(12)
        seen = seen_by_user(rows)
        names = drawn.log.items.to_list()
        for (user, _), (item,) in drawn.negatives(2).items():
            free = np.array([name not in seen[user] for name in names])
            expected += np.where(free, weight, 0) / weight[free].sum()
            observed[names.index(item)] += 1
        assert chi_square(observed, expected) < 31.3, alpha  # 99.9th percentile, 11 degrees of freedom


def exact_pairs(weight: np.ndarray) -> dict[tuple[int, int], float]:
    """Return the probability of each unordered pair that is drawn one after the other, without replacement."""
    share = weight / weight.sum()
    table: Counter[tuple[int, int]] = Counter()
    for a, b in itertools.permutations(range(len(weight)), 2):
        table[min(a, b), max(a, b)] += share[a] * share[b] / (1 - share[a])
    return table


@pytest.mark.parametrize("rounds", [24, 0])
def test_two_draws_follow_sampling_without_replacement_also_in_the_exact_finish(rounds: int) -> None:
    names = "abcdef"
    weights = np.array([1, 2, 3, 5, 8, 13])
    background = [(f"b{n}{k}", name, 5) for n, name in enumerate(names) for k in range(int(weights[n]))]
    rows = background + [(f"u{n}", item, t) for n in range(4000) for t, item in enumerate(("y", "z"))]
    drawn = draw(rows, NegativesConfig(kind="popularity", count=2), rounds=rounds)
    assert [drawn.popularity_of()[name] for name in names] == weights.tolist()
    # y is everybody's history: no user of the test has anything else in common with the letters.
    found = Counter(tuple(sorted(names.index(item) for item in pair)) for pair in drawn.negatives(2).values())
    exact = exact_pairs(weights.astype(float))
    assert set(found) <= set(exact)
    observed = np.array([found[pair] for pair in exact], dtype=float)
    expected = np.array(list(exact.values())) * 4000
    assert chi_square(observed, expected) < 36.1  # 99.9th percentile, 14 degrees of freedom


def test_popularity_never_draws_what_training_never_saw() -> None:
    rows = [*skewed_rows(users=60, items=20, length=4), ("zz", "a", 1), ("zz", "only-tested", 2)]
    drawn = draw(rows, NegativesConfig(kind="popularity", count=8, fallback=("uniform",)))
    assert drawn.popularity_of()["only-tested"] == 0
    assert not drawn.shortages.fallbacks
    assert "only-tested" not in {item for group in drawn.negatives(2).values() for item in group}


def test_a_pool_is_drawn_from_evenly() -> None:
    rows = [(f"u{n}", item, t) for n in range(3000) for t, item in enumerate(("y", "z"))]
    rows += [(f"b{n}{k}", f"m{n}", 5) for n in range(9) for k in range(2)]
    drawn = draw(rows, NegativesConfig(kind="popularity-matched", count=1, pool=10))
    found = Counter(item for (item,) in drawn.negatives(2).values())
    assert set(found) == {f"m{n}" for n in range(9)}
    assert chi_square(np.array(list(found.values())), np.full(9, 3000 / 9)) < 26.1  # 99.9 %, 8 degrees of freedom


def test_same_category_stays_within_it_and_says_when_it_cannot() -> None:
    rows = random_rows(users=40, items=30, length=4)
    categories = {f"i{n:03}": f"c{n % 3}" for n in range(29)}  # the last item has none
    with_uniform = NegativesConfig(kind="same-category", count=5, fallback=("uniform",))
    drawn = draw(rows, with_uniform, categories=categories)
    without = 0
    for (_, target), negatives in drawn.negatives(2).items():
        if target in categories:
            assert {categories.get(item) for item in negatives} == {categories[target]}
        without += target not in categories
    assert without
    held_out = sum(target not in categories for code in (1, 2) for _, target in drawn.negatives(code))
    assert drawn.shortages.fallbacks == {("same-category", "uniform"): 5 * held_out}
    with pytest.raises(UserError) as caught:
        draw(rows, NegativesConfig(kind="same-category", count=5), categories=categories)
    assert str(caught.value) == (
        f"evaluate.protocol.negatives: same-category: 5 negatives asked for, too many for {held_out} lists "
        "(at worst, 0); items that the kind allows and the user has not interacted with. "
        "Ask for fewer, merge small categories, or set fallback: [popularity-matched, uniform]"
    )
    with pytest.raises(UserError, match=r"train.negatives: same-category, but the source has no item categories"):
        draw(rows, NegativesConfig(count=1), TrainNegativesConfig(kind="same-category"))


def test_fallbacks_are_tried_in_order() -> None:
    rows = random_rows(users=30, items=20, length=4)
    categories = {f"i{n:03}": ("small" if n < 3 else "large") for n in range(20)}
    negatives = NegativesConfig(kind="same-category", count=9, fallback=("popularity", "uniform"))
    known = np.array([0] * 12 + [5] * 8)  # what training never saw has no weight for the first fallback
    drawn = draw(rows, negatives, categories=categories, popularity=known)
    assert {kind for kind, _ in drawn.shortages.fallbacks} == {"same-category"}
    assert {other for _, other in drawn.shortages.fallbacks} == {"popularity", "uniform"}
    assert all(len(group) == 9 for code in (1, 2) for group in drawn.negatives(code).values())


@pytest.mark.parametrize(
    ("mixture", "count", "expected"),
    [
        (MixtureConfig(uniform=10, hard=10), 20, {"uniform": 10, "hard": 10}),
        (MixtureConfig(uniform=1, popularity=1), 5, {"uniform": 3, "popularity": 2}),
        (MixtureConfig(uniform=0.7, popularity_matched=0.2, same_category=0.1), 10,
         {"uniform": 7, "popularity-matched": 2, "same-category": 1}),
        (MixtureConfig(uniform=9, popularity=1), 1, {"uniform": 1}),
    ],
)  # fmt: skip
def test_a_mixture_is_scaled_to_the_count(mixture: MixtureConfig, count: int, expected: dict[str, int]) -> None:
    negatives = NegativesConfig(kind="mixture", count=count, mixture=mixture, scores=Path("s.csv"))
    assert negatives.kinds() == expected


def test_a_mixture_holds_its_kinds() -> None:
    rows = random_rows(users=40, items=40, length=4)
    categories = {f"i{n:03}": f"c{n % 2}" for n in range(40)}
    drawn = draw(rows, NegativesConfig(kind="mixture", count=8, mixture=MixtureConfig(uniform=2, same_category=6)),
                 categories=categories)  # fmt: skip
    same = [
        sum(categories[item] == categories[target] for item in group)
        for (_, target), group in drawn.negatives(2).items()
    ]
    assert min(same) >= 6
    assert 6.5 < np.mean(same) < 7.5  # half of the two uniform ones
    assert all(len(set(group)) == 8 for group in drawn.negatives(2).values())


def test_full_ranking_has_a_limit_that_says_the_way_out() -> None:
    rows = random_rows(users=20, items=30, length=4)
    with pytest.raises(UserError) as caught:
        draw(rows, NegativesConfig(kind="all"), most_rows=499)
    assert str(caught.value) == (
        "evaluate.protocol.negatives: all: 40 test and validation lists over 28 items make 1,000 candidates; "
        "at most 499. Test fewer users (data.limit.users, split.fractions), keep fewer items, or draw negatives"
    )
    one = [("u", item, time) for time, item in enumerate("abc")]
    with pytest.raises(UserError, match="1 negative asked for, more than the items that 1 user did not"):
        draw([*one, ("v", "a", 1)], NegativesConfig(kind="all"))


def write_scores(folder: Path, name: str, table: dict[str, list[Any]]) -> Path:
    path, frame = folder / name, pl.DataFrame(table)
    frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(
        path, separator="\t" if path.suffix == ".tsv" else ","
    )
    return path


@pytest.mark.parametrize("name", ["scores.parquet", "scores.csv", "scores.tsv"])
def test_hard_negatives_are_the_best_scored_that_the_user_has_not_seen(tmp_path: Path, name: str) -> None:
    rows = random_rows(users=20, items=25, length=4)
    rng = np.random.default_rng(0)
    pairs = [(f"u{u:03}", f"i{i:03}") for u in range(20) for i in range(25)]
    score = rng.permutation(len(pairs)).astype(float)
    table = {"user_id": [u for u, _ in pairs] + ["ghost"], "item_id": [i for _, i in pairs] + ["i001"],
             "score": [*score.tolist(), 5.0]}  # fmt: skip
    negatives = NegativesConfig(kind="hard", count=3, pool=3, scores=write_scores(tmp_path, name, table))
    drawn = draw(rows, negatives)
    seen = seen_by_user(rows)
    for (user, _), found in drawn.negatives(2).items():
        mine = sorted(((s, i) for (u, i), s in zip(pairs, score, strict=True) if u == user), reverse=True)
        assert set(found) == set([item for _, item in mine if item not in seen[user]][:3])
    assert drawn.audit.counts == {"hard_scores_dropped_unknown_item": 0, "hard_scores_dropped_unknown_user": 1}


def test_one_list_of_hard_items_serves_all_and_doubles_count_once(tmp_path: Path) -> None:
    rows = random_rows(users=20, items=25, length=4)
    table = {"item": [f"i{n:03}" for n in range(12)] * 2, "score": [float(n) for n in range(24)]}
    path = write_scores(tmp_path, "scores.csv", table)
    drawn = draw(rows, NegativesConfig(kind="hard", count=3, pool=10, scores=path))
    best = {f"i{n:03}" for n in range(2, 12)}
    assert all(set(group) <= best for group in drawn.negatives(2).values())
    assert len({item for group in drawn.negatives(2).values() for item in group}) > 5
    with pytest.raises(UserError, match="hard: 11 negatives asked for, too many for 40 lists"):
        draw(rows, NegativesConfig(kind="hard", count=11, pool=10, scores=path))


def test_a_scores_file_that_is_none_is_told(tmp_path: Path) -> None:
    rows = random_rows(users=5, items=12, length=4)

    def told(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            draw(rows, NegativesConfig(kind="hard", count=1, scores=path))
        return str(caught.value).replace(str(tmp_path) + "/", "")

    assert told(tmp_path / "none.csv").startswith("none.csv scores: no such file")
    path = write_scores(tmp_path, "a.csv", {"thing": ["a"], "score": [1.0]})
    assert told(path) == "a.csv item: no column item_id or item; columns found: thing, score"
    path = write_scores(tmp_path, "b.csv", {"item": ["i000", "i001", "i002"], "score": ["1", "x", ""]})
    assert told(path) == "b.csv:3 score: no number, as in 2 rows; a number"
    (tmp_path / "c.parquet").write_bytes(b"no parquet")
    assert told(tmp_path / "c.parquet").startswith("c.parquet scores: cannot be read")


def sharded(drawn: Drawn, shards: int) -> list[Log]:
    """Cut the log into shards of whole users, by a hash of the user; the catalogue stays whole."""
    log = drawn.log
    shard_of = (hash_ids(log.users) % np.uint64(shards)).astype(np.int64)
    pieces = []
    for shard in range(shards):
        users = np.flatnonzero(shard_of == shard)
        rows = np.isin(log.user, users)
        new = np.searchsorted(users, log.user[rows]).astype(np.int32)
        pieces.append(Log(log.users.gather(users), log.items, new, log.item[rows], log.time[rows]))
    return pieces


@pytest.mark.parametrize("kind", ["uniform", "popularity", "popularity-matched", "same-category", "mixture", "all"])
def test_one_four_and_sixteen_shards_of_users_draw_the_same(kind: str) -> None:
    rows = skewed_rows(users=60, items=40, length=6)
    categories = {f"i{n:03}": f"c{n % 2}" for n in range(40)}
    negatives = NegativesConfig(kind=kind, count=6, pool=20, **ANY)
    whole = draw(rows, negatives, categories=categories)
    for shards in (1, 4, 16):
        together: Groups = {}
        for log in sharded(whole, shards):
            if len(log.users):
                together |= draw(log, negatives, categories=categories, popularity=whole.popularity).groups()
        assert together == whole.groups()
        size = -(-len(whole.candidates) // shards)
        assert draw(rows, negatives, categories=categories, chunk=size).digest == whole.digest
