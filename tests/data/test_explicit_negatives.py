"""What users said no to: no target any more, in no later history, and first among the negatives of training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
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
from msr_adapter.data.examples import assert_no_leak, make_examples
from msr_adapter.data.explicit_negatives import (
    explicit_negatives,
    rejected_in_training,
    with_rejections,
    without_rejected,
)
from msr_adapter.data.interaction_log import Log, Parts, encode
from msr_adapter.data.negatives.candidate_files import export_candidates
from msr_adapter.data.readers.sources import read
from msr_adapter.data.temporal import EVERYTHING, moments_of
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job
from tests.support.data_builders import Built, write_csv

Event = tuple[str, str, int, str]
SHOP = EventsConfig(column="event", positive=("purchase",), history=("view", "cart"), negative=("remove",))
AT = 1_000_000_000
ALL_TRAIN = SplitConfig(fractions=(1.0, 0.0, 0.0), train_targets=9)


def source(folder: Path, rows: list[Event], events: EventsConfig = SHOP) -> TableSourceConfig:
    shown = [(user, item, AT + time, word) for user, item, time, word in rows]
    log = write_csv(folder / "log.csv", ["user_id", "item_id", "timestamp", "event"], shown)
    return TableSourceConfig(kind="table", interactions=log, events=events)


def log_of(folder: Path, rows: list[Event], split: SplitConfig = ALL_TRAIN, **options: Any) -> tuple[Log, Audit]:
    audit = Audit()
    log = encode(read(source(folder, rows), 0, audit), audit, moments=moments_of(split), **options)
    return with_rejections(log, audit), audit


def examples_of(log: Log, split: SplitConfig) -> list[tuple[str, str, list[str], list[str]]]:
    """Return (user, target, history, what was rejected by then, the last first) of each example."""
    examples = without_rejected(log, make_examples(log, split, 0), split, 1, Audit())
    assert_no_leak(log, examples)
    offsets, rows = examples.histories()
    items, users = log.items.to_list(), log.users.to_list()
    list_, no = explicit_negatives(log, examples.user, log.time[examples.target], EVERYTHING)
    return [
        (
            users[user],
            items[log.item[target]],
            [items[log.item[row]] for row in rows[offsets[place] : offsets[place + 1]]],
            [items[item] for item in no[list_ == place]],
        )
        for place, (user, target) in enumerate(zip(examples.user, examples.target, strict=True))
    ]


# u looks at a and b, puts b and c into the cart, takes b out, buys d, takes c out, looks at b again, buys e, returns e.
ROWS: list[Event] = [
    ("u", "a", 1, "view"), ("u", "b", 2, "view"), ("u", "b", 3, "cart"), ("u", "c", 4, "cart"), ("u", "b", 5, "remove"),
    ("u", "d", 6, "purchase"), ("u", "c", 7, "remove"), ("u", "b", 8, "view"), ("u", "f", 9, "purchase"),
    ("u", "e", 10, "purchase"), ("u", "e", 11, "remove"), ("v", "e", 1, "view"), ("v", "c", 2, "purchase"),
]  # fmt: skip


def test_the_later_word_decides_before_each_target(tmp_path: Path) -> None:
    log, audit = log_of(tmp_path, ROWS)
    assert sorted(examples_of(log, ALL_TRAIN)) == [
        ("u", "d", ["a", "c"], ["b"]),  # b was taken out by then, c not yet
        ("u", "f", ["a", "b", "d"], ["c"]),  # b was looked at again, c is out; e comes later
        ("v", "c", ["e"], []),
    ]
    assert audit.counts["interactions_negative"] == 3
    assert audit.counts["targets_taken_back"] == 1  # e
    assert audit.counts["pairs_rejected"] == 2  # c and e


def test_what_was_said_at_the_moment_of_the_target_is_not_known(tmp_path: Path) -> None:
    rows: list[Event] = [
        ("u", "a", 1, "view"),
        ("u", "b", 2, "cart"),
        ("u", "b", 3, "remove"),
        ("u", "c", 3, "purchase"),
    ]
    log, _ = log_of(tmp_path, rows)
    assert examples_of(log, ALL_TRAIN) == [("u", "c", ["a", "b"], [])]
    log, _ = log_of(tmp_path, [*rows[:3], ("u", "c", 4, "purchase")])
    assert examples_of(log, ALL_TRAIN) == [("u", "c", ["a"], ["b"])]


def test_with_repeats_a_history_is_all_that_happened(tmp_path: Path) -> None:
    log, _ = log_of(tmp_path, ROWS, keep_repeats=True)
    found = {target: (history, no) for user, target, history, no in examples_of(log, ALL_TRAIN) if user == "u"}
    assert found["d"] == (["a", "b", "b", "c"], ["b"])
    assert found["f"] == (["a", "b", "b", "c", "d", "b"], ["c"])


def test_a_split_by_time_takes_back_what_was_known_when_the_era_ended(tmp_path: Path) -> None:
    rows: list[Event] = [
        ("u", "a", 1, "view"), ("u", "b", 2, "purchase"), ("u", "b", 12, "remove"), ("u", "c", 13, "purchase"),
        ("w", "a", 1, "view"), ("w", "c", 2, "purchase"), ("w", "c", 3, "remove"), ("w", "d", 12, "purchase"),
    ]  # fmt: skip
    split = SplitConfig(kind="temporal", test_from=(AT + 10) * 1000)
    log, _ = log_of(tmp_path, rows, split)
    assert sorted(examples_of(log, split)) == [
        ("u", "b", ["a"], []),  # taken back in test alone: a target of training
        ("u", "c", ["a"], ["b"]),
        ("w", "d", ["a"], ["c"]),  # c was taken back in its own era: no target
    ]
    items = np.array(log.items.to_list())[log.item]
    held_out = make_examples(log, split, 0).held_out
    assert items[rejected_in_training(log, split, held_out)].tolist() == ["c"]


def test_training_counts_nothing_that_its_users_had_rejected(tmp_path: Path) -> None:
    log, _ = log_of(tmp_path, ROWS)
    users, items = np.array(log.users.to_list())[log.user], np.array(log.items.to_list())[log.item]
    none = np.empty(0, np.int64)
    gone = rejected_in_training(log, ALL_TRAIN, none)
    assert sorted(zip(users[gone], items[gone], strict=True)) == [("u", "c"), ("u", "e")]
    last = SplitConfig(kind="leave-last-out")
    held_out = make_examples(log, last, 0).held_out
    gone = rejected_in_training(log, last, held_out)
    assert sorted(zip(users[gone], items[gone], strict=True)) == [("u", "b")]  # when d, the first held out, was bought


def built(folder: Path, rows: list[Event], train: TrainNegativesConfig, test: NegativesConfig) -> Built:
    out = folder / "out"
    out.mkdir(parents=True)
    protocol = ProtocolConfig(name="p", negatives=test)
    split = SplitConfig(fractions=(0.5, 0.0, 0.5), train_targets=2)
    data = DataConfig(source=source(folder, rows))
    return Built(out, build(BuildInputs(data, split, protocol, train), Job(out, Reporter(quiet=True), 0)))


def random_rows(users: int, seed: int) -> list[Event]:
    draw = np.random.default_rng(seed)
    words = ["view"] * 4 + ["cart", "purchase", "purchase", "remove", "remove"]
    return [
        (f"u{user:02}", f"i{draw.integers(40):02}", 1000 * user + place, str(draw.choice(words)))
        for user in range(users)
        for place in range(14)
    ]


def rejected_before(rows: list[Event], user: str, time: int) -> list[str]:
    last: dict[str, tuple[int, str]] = {}
    for who, item, at, word in sorted(rows, key=lambda row: row[2]):
        if who == user and at < time:
            last[item] = (at, word)
    return [item for item, (_, word) in sorted(last.items(), key=lambda one: -one[1][0]) if word == "remove"]


@pytest.mark.parametrize("test_rule", ["leave-out", "first"])
def test_training_lists_begin_with_what_was_rejected_and_test_lists_only_where_asked(
    tmp_path: Path, test_rule: Any
) -> None:
    rows = random_rows(40, 5)
    made = built(tmp_path, rows, TrainNegativesConfig(count=3), NegativesConfig(count=4, rejected=test_rule))
    known = {row["item_id"] for row in made.rows("items")}
    lists: dict[int, list[str]] = {}
    for row in made.rows("candidates"):
        if not row["label"]:
            lists.setdefault(row["example_id"], []).append(row["item_id"])
    explicit = {"train": 0, "test": 0}
    targets = {row["example_id"]: row["item_id"] for row in made.rows("candidates") if row["label"]}
    for example in made.rows("examples"):
        time = example["timestamp"] // 1000 - AT
        target = targets[example["example_id"]]
        no = [item for item in rejected_before(rows, example["user_id"], time) if item in known and item != target]
        mine, split = lists[example["example_id"]], example["split"]
        seen = {item for user, item, *_ in rows if user == example["user_id"]}
        wanted = no[: len(mine)] if split == "train" or test_rule == "first" else []
        assert seen & set(mine) == set(wanted)
        explicit[split] += len(wanted)
    assert explicit["train"] > 5
    assert made.counts["train_negatives_explicit"] == explicit["train"]
    assert made.counts.get("held_out_negatives_explicit", 0) == explicit["test"]
    assert explicit["test"] > 5 or test_rule == "leave-out"


def test_lists_with_explicit_negatives_leave_and_come_back(tmp_path: Path) -> None:
    rows, train = random_rows(40, 5), TrainNegativesConfig(count=3)
    (tmp_path / "one").mkdir()
    made = built(tmp_path / "one", rows, train, NegativesConfig(count=4, rejected="first"))
    export_candidates(made.out, "test", None, tmp_path / "lists.parquet")
    again = ProtocolConfig(
        name="p", negatives=NegativesConfig(count=4, rejected="first"), candidates=tmp_path / "lists.parquet"
    )
    out = tmp_path / "again"
    out.mkdir()
    split, data = SplitConfig(fractions=(0.5, 0.0, 0.5), train_targets=2), DataConfig(source=source(tmp_path, rows))
    facts = build(BuildInputs(data, split, again, train), Job(out, Reporter(quiet=True), 0))
    assert facts["candidates_digest"] == made.result["candidates_digest"]


def test_left_out_they_are_merely_seen(tmp_path: Path) -> None:
    rows = random_rows(40, 5)
    made = built(tmp_path, rows, TrainNegativesConfig(count=3, rejected="leave-out"), NegativesConfig(count=4))
    met = {(user, item) for user, item, *_ in rows}
    users = {row["example_id"]: row["user_id"] for row in made.rows("examples")}
    pairs = [(users[row["example_id"]], row["item_id"]) for row in made.rows("candidates") if not row["label"]]
    assert not met & set(pairs)
    assert "train_negatives_explicit" not in made.counts


def test_words_of_two_kinds_and_lists_of_everything_are_refused() -> None:
    with pytest.raises(ValidationError, match="remove: negative means neither positive nor history"):
        EventsConfig(column="event", positive=("buy",), history=("remove",), negative=("remove",))
    with pytest.raises(ValidationError, match="off: negative means neither"):
        EventsConfig(column="event", positive=("buy",), negative=("off",), seen=("off",))
    with pytest.raises(ValidationError, match="kind: all draws nothing"):
        NegativesConfig(kind="all", rejected="first")


EVENTS = st.lists(
    st.tuples(st.sampled_from("uv"), st.sampled_from("abcd"), st.integers(1, 8),
              st.sampled_from(["view", "purchase", "remove"])), min_size=1, max_size=30,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(events=EVENTS, shard=st.sampled_from([1, 3, 1 << 20]), cut=st.sampled_from([None, 3, 5]))
def test_any_log_gives_the_examples_of_brute_force(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], shard: int, cut: int | None
) -> None:
    rows: list[Event] = [*events, ("z", "a", 1, "purchase")]
    split = ALL_TRAIN if cut is None else SplitConfig(kind="temporal", test_from=(AT + cut) * 1000, train_targets=9)
    log, _ = log_of(tmp_path_factory.getbasetemp(), rows, split, parts=Parts(shard=shard))
    expected: list[tuple[str, str, list[str], list[str]]] = []
    for user in sorted({row[0] for row in rows}):
        mine = sorted((row for row in rows if row[0] == user), key=lambda row: row[2])
        kept: list[Event] = []
        for item in {row[1] for row in mine}:
            of_item = [row for row in mine if row[1] == item and row[3] != "remove"]
            kept += [next((row for row in of_item if row[3] == "purchase"), of_item[0])] if of_item else []
        kept.sort(key=lambda row: mine.index(row))
        known_items = {log.items[int(code)] for code in set(log.item.tolist())}

        def last_word(item: str, before: float, rows_of_user: list[Event] = mine) -> str:
            return next((row[3] for row in reversed(rows_of_user) if row[1] == item and row[2] < before), "")

        places = [place for place, row in enumerate(kept) if row[3] == "purchase" and last_word(
            row[1], float("inf") if cut is None or row[2] >= cut else cut) != "remove"]  # fmt: skip
        if cut is not None:
            late = [place for place in places if kept[place][2] >= cut][-1:]
            places = [place for place in places if kept[place][2] < cut][-9:] + late
        for place in places:
            time = kept[place][2]
            history = [row[1] for row in kept[:place] if last_word(row[1], time) != "remove"]
            no = {row[1] for row in mine if last_word(row[1], time) == "remove"} & known_items
            if history:
                expected.append((user, kept[place][1], history[-10:], sorted(no)))
    found = examples_of(log, split)
    assert sorted((user, target, history, sorted(no)) for user, target, history, no in found) == sorted(expected)
