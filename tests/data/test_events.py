"""Events of a shop's log: what is bought is a target, what is looked at is history, all of it is seen."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from msr_adapter.config.schema import (
    ColumnsConfig,
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
from msr_adapter.data.choices import TargetRows
from msr_adapter.data.examples import assert_no_leak, make_examples
from msr_adapter.data.id_list_files import read_later_interactions
from msr_adapter.data.interaction_log import Log, Parts, encode
from msr_adapter.data.readers.sources import read
from msr_adapter.data.splits import known_to_training, learnt_from
from msr_adapter.errors import UserError
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job
from tests.support.data_builders import Built, write_csv

Event = tuple[str, str, int, str]
SHOP = EventsConfig(column="event_type", positive=("purchase",), history=("view", "cart"), seen=("remove",))


def source(folder: Path, rows: list[Event], events: EventsConfig = SHOP) -> TableSourceConfig:
    log = write_csv(folder / "log.csv", ["user_id", "item_id", "timestamp", "event_type"], rows)
    return TableSourceConfig(kind="table", interactions=log, events=events)


def log_of(folder: Path, rows: list[Event], **options: Any) -> tuple[Log, Audit]:
    audit = Audit()
    return encode(read(source(folder, rows), 0, audit), audit, **options), audit


def shown(log: Log) -> list[tuple[str, str, int, bool]]:
    assert log.target is not None
    users, items = log.users.to_list(), log.items.to_list()
    columns = zip(log.user, log.item, log.time, log.target, strict=True)
    return [(users[u], items[i], int(time) // 1000, bool(target)) for u, i, time, target in columns]


# One user: looks at a, b and c, puts b into the cart, buys b, removes d, looks at b again, looks at e, buys a.
ROWS: list[Event] = [
    ("u", "a", 1_000_000_001, "view"), ("u", "b", 1_000_000_002, "view"), ("u", "c", 1_000_000_003, "view"),
    ("u", "b", 1_000_000_004, "cart"), ("u", "b", 1_000_000_005, "purchase"), ("u", "d", 1_000_000_006, "remove"),
    ("u", "b", 1_000_000_007, "view"), ("u", "e", 1_000_000_008, "view"), ("u", "a", 1_000_000_009, "purchase"),
]  # fmt: skip
AT = 1_000_000_000


def test_a_pair_counts_as_what_was_bought_and_not_as_the_look_before(tmp_path: Path) -> None:
    log, audit = log_of(tmp_path, ROWS)
    assert shown(log) == [
        ("u", "c", AT + 3, False),
        ("u", "b", AT + 5, True),
        ("u", "e", AT + 8, False),
        ("u", "a", AT + 9, True),
    ]
    assert audit.counts["interactions_dropped_other_event"] == 1
    assert audit.counts["interactions_dropped_duplicate"] == 4
    (told,) = [one["text"] for one in audit.findings if one["topic"] == "events"]
    said = "targets: purchase 2; history: view 5, cart 1; seen alone: remove 1."
    assert told.startswith(f"Events of log.csv by event_type: {said}")


def test_with_repeats_all_stay_but_those_of_one_moment(tmp_path: Path) -> None:
    rows = [*ROWS, ("u", "e", AT + 8, "purchase")]
    log, _ = log_of(tmp_path, rows, keep_repeats=True)
    assert [(item, target) for _, item, _, target in shown(log)] == [
        ("a", False), ("b", False), ("c", False), ("b", False), ("b", True), ("b", False), ("e", True), ("a", True),
    ]  # fmt: skip


def histories(log: Log, split: SplitConfig) -> list[tuple[str, str, list[str]]]:
    examples = make_examples(log, split, 0)
    assert_no_leak(log, examples)
    offsets, rows = examples.histories()
    items, users = log.items.to_list(), log.users.to_list()
    return [
        (users[user], items[log.item[target]], [items[log.item[row]] for row in rows[begin:end]])
        for user, target, begin, end in zip(examples.user, examples.target, offsets, offsets[1:], strict=False)
    ]


def test_targets_are_bought_and_histories_hold_all_before_them(tmp_path: Path) -> None:
    rows = [*ROWS, ("u", "f", AT + 20, "view"), ("v", "a", AT, "view"), ("v", "b", AT + 1, "view")]
    log, _ = log_of(tmp_path, rows)
    everyone = SplitConfig(fractions=(1.0, 0.0, 0.0), train_targets=5)
    assert sorted(histories(log, everyone)) == [("u", "a", ["c", "b", "e"]), ("u", "b", ["c"])]
    last = histories(log, SplitConfig(kind="leave-last-out"))
    assert last == [("u", "b", ["c"]), ("u", "a", ["c", "b", "e"])]  # validation, then test; v buys nothing
    later = SplitConfig(kind="temporal", validation_from=1_000_000_004_000, test_from=1_000_000_009_000)
    assert histories(log, later) == [("u", "b", ["c"]), ("u", "a", ["c", "b", "e"])]


def test_words_nobody_has_said_anything_of_are_refused_with_their_counts(tmp_path: Path) -> None:
    rows = [*ROWS, ("u", "g", AT + 30, "wishlist"), ("u", "h", AT + 31, "wishlist"), ("u", "h", AT + 32, "")]
    with pytest.raises(UserError, match=r"2 words of which nothing is said: wishlist 2, \(nothing\) 1") as raised:
        read(source(tmp_path, rows), 0, Audit())
    assert "set data.source.events.unknown: seen" in raised.value.problems[0].next_step
    audit = Audit()
    said = SHOP.model_copy(update={"unknown": "seen"})
    log = encode(read(source(tmp_path, rows, said), 0, audit), audit)
    assert "g" not in log.items.to_list()
    assert audit.counts["interactions_of_unknown_events"] == 3


def test_a_log_without_anything_bought_or_without_the_column_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no row says purchase, so that nothing could be a target"):
        read(source(tmp_path, ROWS[:3]), 0, Audit())
    with pytest.raises(UserError, match="no column 'event'"):
        read(source(tmp_path, ROWS, SHOP.model_copy(update={"column": "event"})), 0, Audit())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"positive": ()}, "positive needs a word"),
        ({"positive": ("buy",), "seen": ("buy",)}, "buy: seen means neither positive nor history"),
        ({"positive": ("buy",), "history": (" ",)}, "none may be blank"),
    ],
)
def test_what_is_said_of_events_must_fit_together(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        EventsConfig(column="event", **given)


def test_clicks_and_events_are_two_ways_to_say_it(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="both say which rows are interactions"):
        TableSourceConfig(kind="table", interactions=tmp_path, events=SHOP, columns=ColumnsConfig(clicked="c"))


def built(folder: Path, rows: list[Event], split: SplitConfig) -> Built:
    out = folder / "out"
    out.mkdir()
    protocol = ProtocolConfig(name="p", negatives=NegativesConfig(count=3))
    inputs = BuildInputs(DataConfig(source=source(folder, rows)), split, protocol, TrainNegativesConfig(count=1))
    return Built(out, build(inputs, Job(out, Reporter(quiet=True), 0)))


def shop_rows() -> list[Event]:
    draw = np.random.default_rng(5)
    words = ["view"] * 5 + ["cart", "purchase", "purchase", "remove"]
    return [
        (f"u{user:02}", f"i{draw.integers(40):02}", AT + 1000 * user + place, str(draw.choice(words)))
        for user in range(40)
        for place in range(12)
    ]


def test_whatever_a_user_had_an_event_with_is_never_a_negative(tmp_path: Path) -> None:
    rows = shop_rows()
    made = built(tmp_path, rows, SplitConfig(fractions=(0.5, 0.2, 0.3)))
    met = {(user, item) for user, item, *_ in rows}
    bought = {(user, item) for user, item, _, word in rows if word == "purchase"}
    users = {row["example_id"]: row["user_id"] for row in made.rows("examples")}
    pairs = [(users[row["example_id"]], row["item_id"], row["label"]) for row in made.rows("candidates")]
    assert len(pairs) > 50
    assert all((user, item) in bought for user, item, label in pairs if label)
    assert not any((user, item) in met for user, item, label in pairs if not label)


def test_training_does_not_know_what_follows_a_held_out_target(tmp_path: Path) -> None:
    words = [("a", "purchase"), ("b", "view"), ("c", "purchase"), ("d", "view"), ("e", "purchase"), ("f", "view")]
    rows = [("u", item, AT + place, word) for place, (item, word) in enumerate(words)]
    log, _ = log_of(tmp_path, [*rows, ("v", "a", AT, "view"), ("v", "b", AT + 1, "view")])
    split = SplitConfig(kind="leave-last-out")
    held_out = make_examples(log, split, 0).held_out
    known = known_to_training(log, split, held_out, 0)
    items = np.array(log.items.to_list())[log.item]
    assert items[known].tolist() == ["a", "b", "a", "b"]  # c and e are held out; d and f came after one of them
    assert learnt_from(log, split, 0)[0].tolist() == known.tolist()


def test_a_published_split_beside_events_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"column, together with data\.source\.events"):
        built(tmp_path, shop_rows(), SplitConfig(kind="column"))


def test_later_interactions_are_read_by_the_same_words(tmp_path: Path) -> None:
    of = source(tmp_path, ROWS)
    later = write_csv(
        tmp_path / "later.csv", ["user_id", "item_id", "timestamp", "event_type"],
        [("u", "x", AT + 50, "view"), ("u", "y", AT + 51, "remove")],
    )  # fmt: skip
    frame, _ = read_later_interactions(later, "--interactions", of)
    assert frame.columns == ["user_id", "item_id", "timestamp", "filtered", "event"]
    assert frame["filtered"].to_list() == [None, "other_event"]
    assert frame["event"].to_list() == [1, None]
    bare = write_csv(tmp_path / "bare.csv", ["user_id", "item_id", "timestamp"], [("u", "x", AT + 50)])
    _, audit = read_later_interactions(bare, "--interactions", of)
    assert any("has no column event_type of events" in one["text"] for one in audit.findings)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from("uvw"), st.sampled_from("abcd"), st.integers(1, 6), st.sampled_from(["view", "purchase"])
    ), min_size=1, max_size=25,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(events=EVENTS, lags=st.integers(1, 4), shard=st.sampled_from([1, 3, 1 << 20]))
def test_any_log_gives_the_examples_of_brute_force(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], lags: int, shard: int
) -> None:
    rows = [(user, item, AT + time, word) for user, item, time, word in [*events, ("z", "a", 1, "purchase")]]
    log, _ = log_of(tmp_path_factory.getbasetemp(), rows, parts=Parts(shard=shard))
    expected: list[tuple[str, str, list[str]]] = []
    for user in sorted({row[0] for row in rows}):
        mine = sorted((row for row in rows if row[0] == user), key=lambda row: row[2])
        kept: list[Event] = []
        for item in {row[1] for row in mine}:
            of_item = [row for row in mine if row[1] == item]
            kept.append(next((row for row in of_item if row[3] == "purchase"), of_item[0]))
        kept.sort(key=lambda row: mine.index(row))
        targets = [place for place, row in enumerate(kept) if row[3] == "purchase"][-lags:]
        expected += [(user, kept[at][1], [row[1] for row in kept[:at]]) for at in targets if at]
    found = histories(log, SplitConfig(fractions=(1.0, 0.0, 0.0), train_targets=lags)) if expected else []
    assert sorted(found) == sorted(expected)


def test_the_last_targets_of_a_view() -> None:
    rows = TargetRows.of(np.array([False, True, True, False, True]))
    ends = np.array([0, 1, 2, 4, 5])
    assert rows.back(ends, 1).tolist() == [-1, -1, 1, 2, 4]
    assert rows.back(ends, 2).tolist() == [-1, -1, -1, 1, 2]
    assert TargetRows.of(np.zeros(2, bool)).back(np.array([2]), 1).tolist() == [-1]
