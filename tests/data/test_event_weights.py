"""What events weigh: the popularity of items, neighbours, confidences, and which of repeated events stays."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from msr_adapter.config.schema import (
    DataConfig,
    EventsConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
    TrainNegativesConfig,
)
from msr_adapter.data import BuildInputs, build
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.event_roles import suggested_roles
from msr_adapter.data.interaction_log import encode
from msr_adapter.data.readers.events import EventWords
from msr_adapter.data.readers.sources import read
from msr_adapter.evaluate.baselines.training_log import BaselineLog, read_queries, read_training_log
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.heuristics.item_similarity import item_similarity
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job
from tests.support.data_builders import Built, write_csv

Event = tuple[str, str, int, str]
AT = 1_000_000_000
SHOP = EventsConfig(
    column="event", positive=("purchase",), history=("view", "cart"), negative=("remove",),
    weight={"view": 0.2, "cart": 0.5}, words={"view": "viewed", "purchase": "bought"},
)  # fmt: skip


def built(folder: Path, rows: list[Event], events: EventsConfig = SHOP, **data: Any) -> Built:
    shown = [(user, item, AT + time, word) for user, item, time, word in rows]
    log = write_csv(folder / "log.csv", ["user_id", "item_id", "timestamp", "event"], shown)
    out = folder / "out"
    out.mkdir()
    protocol = ProtocolConfig(name="p", negatives=NegativesConfig(count=1))
    source = TableSourceConfig(kind="table", interactions=log, events=events)
    inputs = BuildInputs(DataConfig(source=source, **data), SplitConfig(kind="leave-last-out", max_history=2), protocol,
                         TrainNegativesConfig(count=1))  # fmt: skip
    return Built(out, build(inputs, Job(out, Reporter(quiet=True), 0)))


# u buys five things after looking at six; v and w look at and buy some of them.
ROWS: list[Event] = [
    ("u", "a", 1, "view"), ("u", "b", 2, "cart"), ("u", "c", 3, "purchase"), ("u", "d", 4, "view"),
    ("u", "e", 5, "purchase"), ("u", "f", 6, "purchase"), ("u", "g", 7, "purchase"),
    ("v", "a", 1, "view"), ("v", "b", 2, "view"), ("v", "h", 3, "purchase"), ("w", "a", 1, "purchase"),
    ("w", "b", 2, "view"), ("w", "b", 3, "cart"), ("w", "d", 4, "view"), ("w", "i", 5, "view"), ("w", "i", 6, "remove"),
]  # fmt: skip


def test_popularity_is_what_the_events_of_training_weigh_in_their_unit(tmp_path: Path) -> None:
    made = built(tmp_path, ROWS)
    # In tenths, the largest unit in which 0.2, 0.5 and 1 are whole; h, f and g are held out, i is rejected.
    expected = {"a": 2 + 2 + 10, "b": 5 + 2 + 5, "c": 10, "d": 2 + 2, "e": 10, "f": 0, "g": 0, "h": 0, "i": 0}
    found = {row["item_id"]: row["popularity"] for row in made.rows("items")}
    assert found == expected | {"h": found["h"]}
    words = made.rows("event_words")
    assert [(row["word"], row["said"], row["weight"], row["units"], row["negative"]) for row in words] == [
        ("purchase", "bought", 1.0, 10, False), ("view", "viewed", 0.2, 2, False), ("cart", "cart", 0.5, 5, False),
        ("remove", "remove", 1.0, 10, True),
    ]  # fmt: skip


def test_the_tables_of_events_go_with_the_rows_and_the_histories(tmp_path: Path) -> None:
    made = built(tmp_path, ROWS)
    words = [row["word"] for row in made.rows("event_words")]
    told = {(user, item): word for user, item, _, word in ROWS if word != "remove"}
    pairs = [(row["user_id"], row["item_id"]) for row in made.rows("interactions")]
    events = made.rows("events")
    assert [words[row["event"]] for row in events] == [told[pair] for pair in pairs]
    assert [pair for pair, row in zip(pairs, events, strict=True) if row["rejected"]] == [("w", "i")]
    assert {"user_id": "w", "item_id": "i"} in made.rows("seen")
    examples, histories = made.rows("examples"), made.rows("history_events")
    assert len(examples) == len(histories) > 2
    earlier = {row["example_id"]: row["items"] for row in made.rows("earlier")}
    for example, history in zip(examples, histories, strict=True):
        user, number = example["user_id"], example["example_id"]
        assert [words[code] for code in history["history"]] == [told[user, item] for item in example["history"]]
        if example["split"] != "train":
            assert [words[code] for code in history["earlier"]] == [
                told[user, item] for item in earlier.get(number, [])
            ]


def test_baselines_learn_and_are_asked_with_weights(tmp_path: Path) -> None:
    made = built(tmp_path, ROWS)
    log = read_training_log(made.out)
    items = [row["item_id"] for row in made.rows("items")]
    assert log.weight is not None
    rows = zip(log.user.tolist(), log.item.tolist(), log.weight.tolist(), strict=True)
    found = {(user, items[item]): weight for user, item, weight in rows}
    assert found[0, "a"] == 0.2
    assert found[0, "c"] == 1.0
    assert found[2, "b"] == 0.5  # the cart, not the look before it
    queries = read_queries(read_held_out(made.out), made.out)
    assert queries.history_weight is not None
    told = {(user, item): SHOP.weight.get(word, 1.0) for user, item, _, word in ROWS if word != "remove"}
    users = [row["user_id"] for row in made.rows("examples") if row["split"] == "test"]
    for place, user in enumerate(users):
        part = slice(queries.history_offsets[place], queries.history_offsets[place + 1])
        expected = [told[user, items[item]] for item in queries.history[part]]
        assert queries.history_weight[part].tolist() == expected
        assert len(expected) > 1


def test_without_weights_nothing_knows_any(tmp_path: Path) -> None:
    plain = SHOP.model_copy(update={"weight": {}})
    made = built(tmp_path, ROWS, plain)
    assert read_training_log(made.out).weight is None
    assert read_queries(read_held_out(made.out), made.out).history_weight is None
    found = {row["item_id"]: row["popularity"] for row in made.rows("items")}
    assert (found["a"], found["b"], found["d"]) == (3, 3, 2)
    assert "weights" not in made.result["events"]


def test_the_heavier_of_repeated_events_stays_and_of_equals_the_first(tmp_path: Path) -> None:
    rows: list[Event] = [
        ("u", "a", 1, "view"), ("u", "a", 2, "cart"), ("u", "a", 3, "view"), ("u", "b", 4, "view"),
        ("u", "b", 5, "view"), ("u", "a", 90_000, "view"), ("u", "c", 90_001, "purchase"),
    ]  # fmt: skip

    def kept(events: EventsConfig, keep: bool) -> list[tuple[str, int, str]]:
        folder = tmp_path / f"{events.same}-{keep}-{len(events.weight)}"
        folder.mkdir()
        shown = [(user, item, 86_400 * 10_000 + time, word) for user, item, time, word in rows]
        path = write_csv(folder / "log.csv", ["user_id", "item_id", "timestamp", "event"], shown)
        source = TableSourceConfig(kind="table", interactions=path, events=events)
        log = encode(read(source, 0, Audit()), Audit(), keep_repeats=keep)
        assert log.event is not None
        assert log.events is not None
        items = log.items.to_list()
        return [(items[item], int(time) // 1000 - 86_400 * 10_000, log.events.words[event])
                for item, time, event in zip(log.item, log.time, log.event, strict=True)]  # fmt: skip

    daily = SHOP.model_copy(update={"same": "day"})
    assert kept(daily, True) == [("a", 2, "cart"), ("b", 4, "view"), ("a", 90_000, "view"), ("c", 90_001, "purchase")]
    assert len(kept(SHOP, True)) == 7
    assert kept(SHOP, False) == [("a", 2, "cart"), ("b", 4, "view"), ("c", 90_001, "purchase")]
    assert kept(SHOP.model_copy(update={"weight": {}}), False)[0] == ("a", 1, "view")


def test_a_pair_counts_what_its_heaviest_event_does() -> None:
    user, item = np.array([0, 0, 0, 1]), np.array([1, 0, 1, 1])
    log = BaselineLog(user, item, np.arange(4), 2, 2, np.array([0.2, 0.5, 1.0, 0.2]))
    assert [column.tolist() for column in log.pairs()] == [[0, 0, 1], [1, 0, 1]]
    weights = log.pair_weights()
    assert weights is not None
    assert weights.tolist() == [1.0, 0.5, 0.2]


def test_similarities_are_cosines_of_the_weights() -> None:
    pytest.importorskip("implicit")
    user, item = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 1])
    weight = np.array([1.0, 0.5, 0.2, 1.0, 0.2])
    found = item_similarity(user, item, (3, 2), 10, 0.0, weight).toarray()
    dense = np.zeros((3, 2))
    dense[user, item] = weight
    lengths = np.sqrt((dense**2).sum(axis=0))
    np.testing.assert_allclose(found, (dense / lengths).T @ (dense / lengths), rtol=1e-6)
    ones = item_similarity(user, item, (3, 2), 10, 0.0, np.ones(5)).toarray()
    np.testing.assert_allclose(ones, item_similarity(user, item, (3, 2), 10).toarray(), rtol=1e-12)


@given(weights=st.lists(st.integers(0, 4000), min_size=1, max_size=6).filter(any))
def test_units_are_whole_and_in_proportion(weights: list[int]) -> None:
    words = EventWords(tuple("abcdef"[: len(weights)]), (0,) * len(weights), tuple(one / 1000 for one in weights), ())
    units = words.units
    assert np.gcd.reduce(units) == 1
    assert np.array_equal(np.outer(units, weights), np.outer(weights, units))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["view", "cart", "purchase", "remove_from_cart"],
         {"positive": ["purchase"], "history": ["view", "cart"], "negative": ["remove_from_cart"]}),
        (["pv", "buy", "Add To Cart", "ping"],
         {"positive": ["buy"], "history": ["pv", "Add To Cart"], "seen": ["ping"]}),
        (["impression", "click"], {"positive": ["click"], "shown": ["impression"]}),
        (["foo", "view"], None),
    ],
)  # fmt: skip
def test_what_common_words_are_taken_for_in_a_suggestion(
    words: list[str], expected: dict[str, list[str]] | None
) -> None:
    found = suggested_roles(words)
    assert found == expected
    if found:
        EventsConfig(column="event", **{key: tuple(value) for key, value in found.items()})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"weight": {"buy": 0.5}}, "weight of buy, which neither positive nor history names"),
        ({"weight": {"purchase": 0, "view": 0}, "history": ("view",)}, "one must be above 0"),
        ({"weight": {"purchase": 0.0001}}, "more than three decimals"),
        ({"words": {"cart": "put"}}, "words of cart, which neither"),
        ({"words": {"purchase": " "}}, "may not be blank"),
    ],
)
def test_weights_and_words_must_be_of_events_that_are_kept(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EventsConfig(column="event", positive=("purchase",), **given)
