"""Popularity-matched lists have no tell: nobody who knows popularity only finds the target, at the head neither."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.config.schema import (
    DataConfig,
    KCoreConfig,
    MicroLensSourceConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TrainNegativesConfig,
)
from msr_adapter.data.negatives.popularity_strata import popularity_strata
from msr_adapter.errors import UserError
from msr_adapter.evaluate.candidates import flat, item_codes, read_held_out, read_items
from msr_adapter.metrics import evaluate_groups
from tests.support.data_builders import build_in, table_data
from tests.support.negatives_builders import Drawn, draw
from tests.support.paths import shared_data

MATCHED = NegativesConfig(kind="popularity-matched", count=20)
CHANCE = 5 / 21

Listwise = Callable[[np.ndarray], np.ndarray]
"""(lists, candidates) of popularity -> scores of the same shape; each row may use all of its list."""
LISTWISE: dict[str, Listwise] = {
    "popular": lambda known: known,
    "rare": lambda known: -known,
    "middle": lambda known: -np.abs(known - np.median(known, axis=1, keepdims=True)),
    "mean of the logarithms": lambda known: -np.abs(np.log1p(known) - np.log1p(known).mean(axis=1, keepdims=True)),
    "outlier": lambda known: np.abs(known - np.median(known, axis=1, keepdims=True)),
    "unlike its neighbours": lambda known: np.abs(known[:, :, None] - known[:, None, :]).sum(axis=2),
}


def zipf_lists(negatives: NegativesConfig, skew: float = 1.0, users: int = 6000, items: int = 600) -> Drawn:
    """Draw the lists of users of three items each; an item is chosen in proportion to 1 / rank ** skew, ever anew."""
    rng = np.random.default_rng(3)
    weight = np.arange(1.0, items + 1) ** -skew
    chosen = [rng.choice(items, 3, replace=False, p=weight / weight.sum()) for _ in range(users)]
    rows = [(f"u{user:05}", f"i{item:03}", 3 * user + step) for user, some in enumerate(chosen)
            for step, item in enumerate(some)]  # fmt: skip
    return draw(rows, negatives, split=SplitConfig(kind="user-holdout", fractions=(0.5, 0.0, 0.5), min_history=1))


def known_of(drawn: Drawn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return popularity (lists, candidates), labels, and which targets have twins, of the test lists."""
    spec = popularity_strata(drawn.popularity, MATCHED.pool, MATCHED.count)
    test = drawn.examples.split[drawn.candidates.example] == 2
    item, label = drawn.candidates.item[test].reshape(-1, 21), drawn.candidates.label[test].reshape(-1, 21)
    return drawn.popularity[item].astype(float), label, ~spec.twinless[item[label == 1]]


def measured(known: np.ndarray, label: np.ndarray, scorer: Listwise) -> dict[str, tuple[float, float]]:
    """Return metric -> (mean, standard error) of a scorer.

    Users with equally popular targets are one draw: a few items of the head are the targets of many, and what they have
    more of than before is chance that the number of users does not make smaller.
    """
    offsets = np.arange(len(known) + 1) * known.shape[1]
    found = evaluate_groups(scorer(known).ravel(), label.ravel(), offsets, ("gauc", "hr"), (5,)).per_user
    _, cluster = np.unique(known[label == 1], return_inverse=True)

    def error(values: np.ndarray) -> float:
        sums = np.bincount(cluster, values - values.mean())
        return float(max(np.sqrt((sums**2).sum()), np.sqrt(((values - values.mean()) ** 2).sum())) / len(values))

    return {name: (float(values.mean()), error(values)) for name, values in found.items()}


def assert_chance(known: np.ndarray, label: np.ndarray, errors: float) -> None:
    for name, scorer in LISTWISE.items():
        found = measured(known, label, scorer)
        for metric, chance in (("gauc", 0.5), ("hr@5", CHANCE)):
            mean, error = found[metric]
            assert abs(mean - chance) < errors * max(error, 1e-3), (name, metric, mean, error)


def test_a_listwise_scorer_that_knows_popularity_only_is_at_chance_on_a_zipf_log_and_at_its_head() -> None:
    known, label, twins = known_of(zipf_lists(MATCHED))
    assert 0.05 < 1 - twins.mean() < 0.4  # the most popular of all are told from any negatives
    assert_chance(known[twins], label[twins], 4)
    # The head: the targets of the first stratum, all of whose lists are of it.
    strata = popularity_strata(zipf_lists(MATCHED).popularity, MATCHED.pool, MATCHED.count)
    of_target = known[label == 1]
    head = twins & (of_target >= np.sort(zipf_lists(MATCHED).popularity)[-strata.high.min()])
    assert head.sum() > 300
    assert_chance(known[head], label[head], 4)


def test_the_place_of_the_target_in_the_order_of_popularity_is_any_place() -> None:
    """So no scorer of popularities, whatever it does with them, is above chance."""
    known, label, twins = known_of(zipf_lists(MATCHED))
    noise = np.random.default_rng(0).random(known.shape)
    rank = np.lexsort((noise, known), axis=1).argsort(axis=1)[twins][label[twins] == 1]
    observed, expected = np.bincount(rank, minlength=21), twins.sum() / 21
    assert ((observed - expected) ** 2 / expected).sum() < 45.3  # 99.9th percentile, 20 degrees of freedom


def test_uniform_lists_and_those_around_the_target_would_fail_this() -> None:
    drawn = zipf_lists(NegativesConfig(count=20))
    known, label, _ = known_of(drawn)
    with pytest.raises(AssertionError):
        assert_chance(known, label, 4)
    order = np.argsort(drawn.popularity, kind="stable")
    rank = np.argsort(order)
    target = rank[drawn.candidates.item[(drawn.candidates.label == 1)]][: len(known)]
    around = np.clip(target[:, None] + np.arange(-10, 11), 0, len(order) - 1)
    middle = np.zeros_like(around)
    middle[:, 10] = 1
    with pytest.raises(AssertionError):
        assert_chance(drawn.popularity[order[around]].astype(float), middle, 4)


@pytest.mark.parametrize("what", ["keep", "leave-out"])
def test_targets_without_twins_are_counted_and_left_out_on_request(tmp_path: Path, what: str) -> None:
    rng = np.random.default_rng(0)
    weight = np.arange(1.0, 201) ** -1.2
    rows = [(f"u{user:03}", f"i{item:03}", 2_000_000_000 + 10 * user + step) for user in range(600) for step, item in
            enumerate(rng.choice(200, 4, replace=False, p=weight / weight.sum()))]  # fmt: skip
    negatives = NegativesConfig(kind="popularity-matched", count=10, pool=50, twinless=what)
    built = build_in(
        tmp_path, table_data(tmp_path, rows), SplitConfig(fractions=(0.6, 0.1, 0.3)),
        ProtocolConfig(name="matched", negatives=negatives),
    )  # fmt: skip
    counts = built.audit["counts"]
    alone, examples = (
        counts["test_targets_without_twins"],
        [row for row in built.rows("examples") if row["split"] == "test"],
    )
    assert 0 < alone < 180
    assert len(examples) == 180 - (alone if what == "leave-out" else 0)
    assert "train_targets_without_twins" not in counts  # training draws uniform ones
    (said,) = (one["text"] for one in built.audit["findings"] if one["text"].startswith(f"{alone} of 180 test targets"))
    assert ("Their examples are left out" in said) == (what == "leave-out")
    sizes = Counter(row["example_id"] for row in built.rows("candidates"))
    assert {sizes[row["example_id"]] for row in examples} == {11}


def test_where_nobody_has_twins_leaving_out_is_refused(tmp_path: Path) -> None:
    # All have the same four items in another order; the other twelve are known to one user each.
    rows = [(f"u{user}", f"i{(user + step) % 4}", 2_000_000_000 + step) for user in range(90) for step in range(4)]
    rows += [(f"v{item}", f"j{item:02}", 2_000_000_000) for item in range(12)]
    negatives = NegativesConfig(kind="popularity-matched", count=9, twinless="leave-out")
    with pytest.raises(UserError, match=r"evaluate.protocol.negatives.twinless: leave-out leaves no test example"):
        build_in(tmp_path, table_data(tmp_path, rows), SplitConfig(kind="leave-last-out"),
                 ProtocolConfig(name="matched", negatives=negatives))  # fmt: skip


@given(st.lists(st.integers(0, 60), min_size=2, max_size=80), st.integers(1, 12), st.integers(1, 6))
def test_strata_are_disjoint_of_near_popularity_and_large_enough(counts: list[int], least: int, count: int) -> None:
    popularity = np.array(counts, dtype=np.int64)
    strata = popularity_strata(popularity, least, count)
    assert sorted(strata.order.tolist()) == list(range(len(counts)))
    assert (np.diff(strata.cumulative, prepend=0) > 0).all()
    twins = np.flatnonzero(~strata.twinless)
    for item in twins.tolist():
        mine = strata.order[strata.low[item] : strata.high[item]]
        assert item in mine
        assert len(mine) > count
        assert not strata.twinless[mine].any()
        rate = np.where(popularity[mine] > 0, popularity[mine], 1)
        assert rate.max() * (count + 1) <= rate.sum() * (1 + 1e-6)
        assert (popularity[mine] > 0).all() or (popularity[mine] == 0).all()
        # A stratum is one and the same for all of its items: the target is nowhere special in it.
        assert {(int(strata.low[one]), int(strata.high[one])) for one in mine} == {
            (strata.low[item], strata.high[item])
        }
    alone = np.flatnonzero(strata.twinless)
    assert (strata.high[alone] - strata.low[alone] > 0).all()


def test_popularity_that_drifts_is_told_by_the_training_targets() -> None:
    """Targets that follow the square root of the popularity, not the popularity: negatives then do too."""
    popularity = np.repeat(np.arange(100, 140), 5)
    targets = np.round(popularity**0.5 * 20).astype(np.int64)
    plain, told = (popularity_strata(popularity, 500, 10, known) for known in (None, targets))
    ratios = []
    for strata in (plain, told):
        weight = np.diff(strata.cumulative, prepend=0)[np.argsort(strata.order)]
        ratios.append(weight[-1] / weight[0])
    assert ratios[0] == pytest.approx(1.39, abs=0.03)
    assert ratios[1] == pytest.approx(1.39**0.5, abs=0.08)
    none = popularity_strata(popularity, 500, 10, np.zeros(200, dtype=np.int64))
    assert none.cumulative.tolist() == plain.cumulative.tolist()


def test_equally_popular_items_are_drawn_alike() -> None:
    rows = [(f"u{n}", item, t) for n in range(3000) for t, item in enumerate(("y", "z"))]
    rows += [(f"b{n}{k}", f"m{n}", 5) for n in range(9) for k in range(2)]
    drawn = draw(rows, NegativesConfig(kind="popularity-matched", count=1, pool=10), TrainNegativesConfig(count=1))
    found = Counter(item for (item,) in drawn.negatives(2).values())
    assert set(found) <= {f"m{n}" for n in range(9)}


def test_on_microlens_popularity_alone_is_at_chance_at_the_head_too(tmp_path: Path) -> None:
    folder = shared_data("microlens-50k")
    if not folder.is_dir():
        pytest.skip("no MicroLens-50k here")
    source = MicroLensSourceConfig(
        kind="microlens", pairs=folder / "MicroLens-50k_pairs.tsv", titles=folder / "MicroLens-50k_titles.csv"
    )
    data = DataConfig(source=source, k_core=KCoreConfig(users=7, items=5))
    negatives = NegativesConfig(kind="popularity-matched", count=20)
    built = build_in(
        tmp_path, data, SplitConfig(fractions=(0.6, 0.1, 0.3)), ProtocolConfig(name="matched", negatives=negatives)
    )
    held_out, items = read_held_out(built.out), read_items(built.out)
    popularity = items["popularity"].to_numpy()
    codes = item_codes(held_out.items, flat(items["item_id"])).reshape(-1, 21)
    label, known = held_out.labels.reshape(-1, 21), popularity[codes].astype(float)
    learned = read_held_out(built.out, "train")
    places = item_codes(learned.items, flat(items["item_id"]))[learned.labels == 1]
    strata = popularity_strata(popularity, 100, 20, np.bincount(places, minlength=len(popularity)))
    target = codes[label == 1]
    twins = ~strata.twinless[target]
    assert twins.mean() > 0.95
    assert built.counts["test_targets_without_twins"] == (~twins).sum()
    assert_chance(known[twins], label[twins], 3)
    first = twins & (strata.high[target] == strata.high[strata.order[0]])
    assert first.sum() > 150
    assert_chance(known[first], label[first], 3)
