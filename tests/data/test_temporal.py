"""A split by time knows nothing of what comes later: filters, training and its lists, whatever happens afterwards."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import (
    DataConfig,
    KCoreConfig,
    LimitConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    SyntheticSourceConfig,
    TrainNegativesConfig,
)
from msr_adapter.data.audit.leakage import check_offer
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import Examples, make_examples
from msr_adapter.data.filters import clean
from msr_adapter.data.interaction_log import Log, degree, encode
from msr_adapter.data.negatives.candidates import DrawInputs, draw_candidates
from msr_adapter.data.negatives.pools import ItemStatistics
from msr_adapter.data.negatives.spec import Shortages, make_list_specs
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.splits import known_to_training
from msr_adapter.data.temporal import moments_of
from msr_adapter.errors import UserError
from tests.support.audited import User, evidence
from tests.support.data_builders import build_in, table_data

CUT, TEST = 100, 200
SPLIT = SplitConfig(kind="temporal", validation_from=CUT, test_from=TEST, train_targets=3, max_history=5)
NEW_YEAR = 1_704_067_200_000

Event = tuple[str, str, int, str | None]
"""User, item, time, the filter that drops the row."""


def events(first: int, last: int, most: int, users: int = 9, items: int = 16) -> st.SearchStrategy[list[Event]]:
    """Draw logs that are long enough for lists, by a seed: row by row, few of them would be."""

    def made(seed: int, number: int) -> list[Event]:
        rng = np.random.default_rng(seed)
        # Items are not equally popular, so that limits and cores have something to choose.
        codes = np.minimum(rng.geometric(0.12, number) - 1, items - 1)
        who, when, low = (
            rng.integers(0, users, number),
            rng.integers(first, last + 1, number),
            rng.random(number) < 0.15,
        )
        return [(f"u{user}", f"i{item}", int(time), "low_rating" if bad else None)
                for user, item, time, bad in zip(who, codes, when, low, strict=True)]  # fmt: skip

    return st.builds(made, st.integers(0, 10**6), st.integers(most // 2, most))


datas = st.builds(
    lambda users, items, popular, drawn, repeats: DataConfig(
        source=SyntheticSourceConfig(kind="synthetic"), k_core=KCoreConfig(users=users, items=items),
        limit=LimitConfig(users=drawn, items=popular), repeats=repeats,
    ),
    st.integers(1, 3), st.integers(1, 3), st.sampled_from([None, 4, 6]), st.sampled_from([None, 2, 4]),
    st.sampled_from(["first", "first", "keep"]),
)  # fmt: skip
kinds = st.sampled_from(["uniform", "popularity", "popularity-matched", "same-category"])


@dataclass(frozen=True)
class Prepared:
    """A log under a split by time, up to its candidate lists."""

    log: Log
    examples: Examples
    popularity: dict[str, int]
    lists: dict[tuple[str, str], list[tuple[str, int]]]


def prepared(
    rows: Sequence[Event], data: DataConfig, negatives: NegativesConfig, codes: Sequence[int] = (0, 1, 2), *,
    target: str = "last", rounds: int = 24, split: SplitConfig = SPLIT,
) -> Prepared:  # fmt: skip
    columns = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "filtered": pl.String}
    corpus = Corpus(pl.DataFrame(list(rows), schema=columns, orient="row").lazy(), None)
    log = encode(corpus, Audit(), moments=moments_of(split), keep_repeats=data.repeats == "keep")
    log = clean(log, corpus, data, 0, Audit(), split)
    examples = make_examples(log, split, 0, target)
    examples = examples.keep(np.isin(examples.split, codes))
    training = known_to_training(log, split, examples.held_out, 0)
    popularity = degree(log.item[training], len(log.items))
    category = pl.Series([f"{ord(item[-1]) % 2}" for item in log.items], dtype=pl.String)
    targets = degree(log.item[examples.target[examples.split == 0]], len(log.items))
    statistics = ItemStatistics(log.items, popularity, category, targets)
    train = TrainNegativesConfig(**(negatives.model_dump() if negatives.kind != "all" else {}))
    specs = make_list_specs(ProtocolConfig(name="test", negatives=negatives), train, log, statistics, Audit())
    drawn = draw_candidates(DrawInputs(log, examples, specs, 0, rounds=rounds), Shortages())
    users, items = log.users.to_list(), log.items.to_list()
    lists: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for example, item, label in zip(drawn.example, drawn.item, drawn.label, strict=True):
        key = users[examples.user[example]], items[log.item[examples.target[example]]]
        lists.setdefault(key, []).append((items[item], int(label)))
    counts = dict(zip(log.items.to_list(), popularity.tolist(), strict=True))
    return Prepared(log, examples, {item: n for item, n in counts.items() if n}, lists)


def what_is_seen(rows: Sequence[Event], until: int, *given: Any, **more: Any) -> dict[str, Any]:
    """Return all that splits up to a moment see of a log; the message where it is refused."""
    code = 0 if until == CUT else 1
    try:
        found = prepared(rows, *given, range(code + 1), **more)
    except UserError as error:
        refused = [problem.field for problem in error.problems]
        nothing = {"rows": [], "popularity": {}, "examples": [], "lists": {}}
        return nothing if refused == ["data.k_core"] else {"refused": refused}
    log, examples = found.log, found.examples
    offsets, history = examples.histories()
    users, items = log.users.to_list(), log.items.to_list()
    early = np.flatnonzero(log.time < until)
    return {
        "rows": [(users[log.user[row]], items[log.item[row]], int(log.time[row])) for row in early],
        "popularity": found.popularity,
        "examples": [
            (int(examples.split[n]), users[examples.user[n]], items[log.item[examples.target[n]]],
             [items[log.item[row]] for row in history[offsets[n] : offsets[n + 1]]])
            for n in range(len(examples))
        ],
        "lists": found.lists,
    }  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(before=events(0, CUT - 1, 80), later=events(CUT, 300, 60, 12, 25), other=events(CUT, 300, 60, 12, 25),
       data=datas, kind=kinds, target=st.sampled_from(["last", "most-popular-last"]),
       rounds=st.sampled_from([0, 24]))  # fmt: skip
def test_nothing_after_training_ends_changes_what_filters_and_training_see(
    before: list[Event], later: list[Event], other: list[Event], data: DataConfig, kind: str, target: str, rounds: int
) -> None:
    negatives = NegativesConfig(kind=kind, count=2, pool=3, fallback=["uniform"]).settled(data.repeats)
    seen = [what_is_seen(rows, CUT, data, negatives, target=target, rounds=rounds)
            for rows in (before + later, other + before, before)]  # fmt: skip
    assert seen[0] == seen[1] == seen[2]


@settings(deadline=None, max_examples=20)
@given(before=events(0, TEST - 1, 120), later=events(TEST, 300, 40, 12, 25), data=datas, kind=kinds,
       rounds=st.sampled_from([0, 24]))  # fmt: skip
def test_nothing_after_validation_ends_changes_its_lists(
    before: list[Event], later: list[Event], data: DataConfig, kind: str, rounds: int
) -> None:
    negatives = NegativesConfig(kind=kind, count=2, pool=3, fallback=["uniform"]).settled(data.repeats)
    seen = [what_is_seen(rows, TEST, data, negatives, rounds=rounds) for rows in (before + later, before)]
    assert seen[0] == seen[1]


@settings(deadline=None, max_examples=30)
@given(rows=events(0, 300, 120, 8, 14), kind=st.sampled_from(["uniform", "popularity-matched", "all"]),
       data=datas.filter(lambda data: data.repeats == "first"))  # fmt: skip
def test_a_negative_was_on_offer_and_is_nothing_that_its_user_ever_chose(
    rows: list[Event], kind: str, data: DataConfig
) -> None:
    settled = {} if kind == "all" else {"count": 1, "pool": 2, "fallback": ["uniform"]}
    negatives = NegativesConfig(kind=kind, **settled)
    try:
        found = prepared(rows, data, negatives, codes=(2,))
    except UserError:
        return
    chosen, appeared, at = set(), {}, {}
    for user, item, time, reason in sorted(rows, key=lambda row: -row[2]):
        chosen.add((user, item))
        if reason is None:
            appeared[item], at[user, item] = time, time
    catalogue = set(found.log.items)
    for (user, target), listed in found.lists.items():
        names = [item for item, label in listed if not label]
        assert [item for item, label in listed if label] == [target]
        possible = {item for item in catalogue if (user, item) not in chosen and appeared[item] <= at[user, target]}
        assert set(names) <= possible
        if kind == "all":
            assert set(names) == possible


def test_training_may_draw_what_its_user_chooses_later_and_no_item_that_is_not_known_yet() -> None:
    rows: list[Event] = [(f"u{n}", item, 10 * place + n, None)
                         for n in range(40) for place, item in enumerate(("a", f"b{n % 8}", f"c{n % 8}"))]  # fmt: skip
    rows += [(f"u{n}", f"{letter}{(n + 1) % 8}", 250, None) for n in range(40) for letter in "bcdefg"]
    data = DataConfig(source=SyntheticSourceConfig(kind="synthetic"))
    found = prepared(rows, data, NegativesConfig(count=3), codes=(0, 2))
    training = {key: listed for key, listed in found.lists.items() if key[1][0] in "abc" and key[1] != "b0"}
    drawn = Counter(item for listed in training.values() for item, label in listed if not label)
    assert {item[0] for item in drawn} <= set("abc")
    later = {(user, item) for user, item, time, _ in rows if time == 250}
    assert any((user, item) in later for (user, _), listed in found.lists.items() for item, label in listed
               if not label)  # fmt: skip


@pytest.mark.parametrize("items", [1, 3])
def test_filters_count_what_was_known_and_new_items_are_told(tmp_path: Path, items: int) -> None:
    day = 86_400_000
    rows = [(f"u{n:02}", f"i{(n + place) % 12:02}", NEW_YEAR + place * day) for n in range(24) for place in range(6)]
    rows += [(f"u{n:02}", f"new{n % 2}", NEW_YEAR + (9 + n % 2) * day) for n in range(12)]
    rows += [("late", f"i{n:02}", NEW_YEAR + (7 + n) * day) for n in range(4)]
    split = SplitConfig(kind="temporal", validation_from="2024-01-08", test_from="2024-01-10")
    built = build_in(tmp_path, table_data(tmp_path, rows, k_core=KCoreConfig(items=items)), split)
    names = {row["item_id"] for row in built.rows("items")}
    assert ("new0" in names) == (items == 1)
    counts = built.counts
    assert counts["later_interactions_dropped_of_new_items"] == (0 if items == 1 else 12)
    assert counts["items_first_seen_after_training"] == (2 if items == 1 else 0)
    assert counts["users_first_seen_after_training"] == 1
    assert counts.get("test_targets_of_new_items", 0) == (12 if items == 1 else 0)
    told = [
        finding["text"] for finding in built.audit["findings"] if "first appeared after training" in finding["text"]
    ]
    assert bool(told) == (items > 1)
    assert {row["item_id"]: row["popularity"] for row in built.rows("items")} == (
        {f"i{n:02}": 12 for n in range(12)} | ({"new0": 0, "new1": 0} if items == 1 else {})
    )


def test_a_whole_build_trains_on_the_same_whatever_comes_later(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [(f"u{u:02}", f"i{i:02}", NEW_YEAR + int(t)) for u, i, t in zip(
        rng.integers(0, 30, 500), rng.integers(0, 40, 500), rng.integers(0, 1_000_000, 500), strict=True)]  # fmt: skip
    early = [row for row in rows if row[2] < NEW_YEAR + 700_000]
    later = [(f"v{u:02}" if u % 3 else f"u{u:02}", f"i{i:02}", NEW_YEAR + int(t)) for u, i, t in zip(
        rng.integers(0, 30, 300), rng.integers(0, 60, 300), rng.integers(700_000, 1_000_000, 300),
        strict=True)]  # fmt: skip
    split = SplitConfig(kind="temporal", validation_from=NEW_YEAR + 700_000, test_from=NEW_YEAR + 850_000)
    settings_ = {"k_core": KCoreConfig(users=3, items=5), "limit": LimitConfig(users=20, items=30)}
    found = []
    for name, log in (("one", rows), ("two", early + later)):
        built = build_in(tmp_path / name, table_data(tmp_path / name, log, **settings_), split)
        training = {row["example_id"]: row for row in built.rows("examples") if row["split"] == "train"}
        lists = [row for row in built.rows("candidates") if row["example_id"] in training]
        known = [row for row in built.rows("interactions") if row["training"]]
        found.append((training, lists, known, [row for row in built.rows("items") if row["popularity"]]))
    assert found[0] == found[1]
    assert len(found[0][0]) >= 15


@pytest.mark.parametrize("kind", ["leave-last-out", "user-holdout", "temporal"])
def test_the_audit_tells_what_filters_keep_because_of_what_is_held_out(tmp_path: Path, kind: str) -> None:
    day = 86_400_000
    rows = [(f"u{n:02}", f"i{(n + place) % 10:02}", NEW_YEAR + place * day) for n in range(30) for place in range(5)]
    # Each of these is popular among what users choose last, and hardly known before.
    rows += [(f"u{n:02}", f"hit{n % 3}", NEW_YEAR + 6 * day + n) for n in range(30)]
    rows += [(f"u{n:02}", f"i{(n + 5) % 10:02}", NEW_YEAR + 7 * day + n) for n in range(30)]
    rows += [(f"u{n:02}", "i00", NEW_YEAR + 8 * day) for n in range(1, 9)]
    split = SplitConfig(kind=kind, **({"test_from": "2024-01-06"} if kind == "temporal" else {}))
    built = build_in(tmp_path, table_data(tmp_path, rows, k_core=KCoreConfig(items=9)), split, negatives=2)
    found, topics = built.audit["statistics"], {finding["topic"] for finding in built.audit["findings"]}
    leaked = found["filter_leakage"]
    hits = {row["item_id"] for row in built.rows("items")} & {"hit0", "hit1", "hit2"}
    if kind == "temporal":
        assert leaked["items_kept"] == leaked["items_dropped"] == leaked["users_kept"] == 0
        assert not hits
        assert found["not_on_offer"] == {"negatives": 0.0}
        assert "filter-leakage" not in topics
    else:
        assert len(hits) == 3
        assert leaked["items_kept"] >= (3 if kind == "leave-last-out" else 1)
        assert "filter-leakage" in topics


def test_the_audit_tells_negatives_that_appear_after_the_choice() -> None:
    early = User(2, [0, 1], negatives=[2, 3], times=[NEW_YEAR, NEW_YEAR + 5])
    late = User(0, [0, 3, 2], times=[NEW_YEAR, NEW_YEAR + 5, NEW_YEAR + 9])
    audit = Audit()
    assert check_offer(evidence([early, late]), audit) == {"negatives": 0.5}
    assert [finding["topic"] for finding in audit.findings] == ["not-yet-on-offer"]
    later = User(2, [0, 1], negatives=[2, 3], times=[NEW_YEAR, NEW_YEAR + 9])
    assert check_offer(evidence([later, late]), Audit()) == {"negatives": 0.0}


def test_users_who_come_later_leave_nobody_out() -> None:
    rows: list[Event] = [(f"u{n}", f"i{(n + place) % 7}", 10 * place, None) for n in range(10) for place in range(4)]
    late: list[Event] = [(f"v{n}", f"i{n % 7}", 150, None) for n in range(60)]
    data = DataConfig(source=SyntheticSourceConfig(kind="synthetic"), limit=LimitConfig(users=5))
    kept = [
        prepared(log, data, NegativesConfig(count=1), codes=(0,)).log.users.to_list() for log in (rows, rows + late)
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == 5
    more = data.model_copy(update={"limit": LimitConfig(users=12)})
    assert len(prepared(rows + late, more, NegativesConfig(count=1), codes=(0,)).log.users) == 12
