"""Splits by date and by column, popular targets, ties in time: by hand, and against a brute force row by row."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.config.schema import (
    ColumnsConfig,
    DataConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
)
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import Examples, assert_no_leak, make_examples
from msr_adapter.data.interaction_log import Log, encode
from msr_adapter.data.popular_items import most_popular
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.splits import known_to_training, user_splits
from msr_adapter.errors import UserError
from msr_adapter.schema import SPLITS
from tests.support.data_builders import Row, build_in, random_rows, table_data, write_csv

DAY = 86_400_000
NEW_YEAR = 1_704_067_200_000
"""2024-01-01, UTC."""

DAILY: list[Row] = [
    (f"u{u:02}", f"i{(7 * u + 3 * n) % 23:02}", NEW_YEAR + n * DAY) for u in range(20) for n in range(9)
]


@dataclass(frozen=True)
class Event:
    """A row of a log whose times repeat."""

    user: str
    item: str
    time: int
    part: str


@st.composite
def tied_logs(draw: st.DrawFn) -> list[Event]:
    pair = st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 5), st.sampled_from(SPLITS))
    return [Event(f"u{u}", f"i{i}", t, p) for u, i, t, p in draw(st.lists(pair, min_size=1, max_size=50))]


splits = st.builds(
    SplitConfig,
    kind=st.sampled_from(["user-holdout", "leave-last-out", "temporal", "column"]),
    max_history=st.integers(1, 5),
    min_history=st.integers(1, 3),
    train_targets=st.integers(1, 4),
    same_time=st.sampled_from(["keep", "leave-out"]),
    validation_from=st.sampled_from([None, 1, 2]),
    test_from=st.just(3),
    until=st.sampled_from([None, 5]),
)
targets = st.sampled_from(["last", "most-popular-last"])


def log_of_events(events: list[Event], kind: str = "column") -> Log:
    names = {"user": "user_id", "item": "item_id", "time": "timestamp", "part": "split"}
    columns = {new: [getattr(event, old) for event in events] for old, new in names.items()}
    return encode(Corpus(pl.DataFrame(columns).lazy(), None), Audit(), published_split=kind == "column")


def first_of_each_pair(events: list[Event]) -> dict[str, list[Event]]:
    """Return user -> events as they happened; equal times in the order of the file, of a repeated item the earliest."""
    table: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda event: event.time):
        mine = table.setdefault(event.user, [])
        if event.item not in [other.item for other in mine]:
            mine.append(event)
    return table


def brute_force(events: list[Event], split: SplitConfig, target: str, parts: dict[str, int]) -> set[tuple[str, ...]]:
    """Return (split, user, target, *history) one user and one target at a time."""
    logs = first_of_each_pair(events)
    if split.kind == "column":
        return brute_force_of_a_column(events, split, target)
    everything = [event.item for mine in logs.values() for event in mine]
    found = set()
    for user, mine in logs.items():
        if target == "most-popular-last":
            best = sorted(mine, key=lambda event: (-everything.count(event.item), event.item))[:6]
            mine = [event for event in mine if event in best]
        for code, place in places(mine, split, parts[user]):
            before = mine[:place]
            if split.same_time == "leave-out":
                before = [event for event in before if event.time < mine[place].time]
            if len(before) >= split.min_history:
                history = [event.item for event in before][-split.max_history :]
                found.add((SPLITS[code], user, mine[place].item, *history))
    return found


def brute_force_of_a_column(events: list[Event], split: SplitConfig, target: str) -> set[tuple[str, ...]]:
    """Return the same of a published split: its last held-out row is the target, whatever else has the item."""
    everything = [event.item for mine in first_of_each_pair(events).values() for event in mine]
    found = set()
    for user in {event.user for event in events}:
        mine = sorted((event for event in events if event.user == user), key=lambda event: event.time)
        if target == "most-popular-last":
            best = sorted({event.item for event in mine}, key=lambda item: (-everything.count(item), item))[:6]
            mine = [event for event in mine if event.item in best]
        rows = first_of_each_pair([event for event in mine if event.part == "train"]).get(user, [])
        goals = [(0, goal, rows) for goal in rows[-split.train_targets :]]
        for code in (1, 2):
            rows = [event for event in mine if SPLITS.index(event.part) <= code]
            last = [place for place, event in enumerate(rows) if event.part == SPLITS[code]][-1:]
            goals += [(code, rows[place], rows[: place + 1]) for place in last]
        for code, goal, rows in goals:
            place = max(place for place, event in enumerate(rows) if event is goal)
            before = [event for event in rows[:place] if event.item != goal.item]
            if split.same_time == "leave-out":
                before = [event for event in before if event.time < goal.time]
            history = list(dict.fromkeys(event.item for event in before))
            if len(history) >= split.min_history:
                found.add((SPLITS[code], user, goal.item, *history[-split.max_history :]))
    return found


def places(mine: list[Event], split: SplitConfig, part: int) -> list[tuple[int, int]]:
    """Return (split code, place in the user's log) of every target."""
    everyone = list(range(len(mine)))
    if split.kind == "user-holdout":
        return [(part, place) for place in everyone[-(split.train_targets if part == 0 else 1) :]]
    if split.kind == "leave-last-out":
        train = [(0, place) for place in everyone[:-2][-split.train_targets :]]
        return [*train, *((1, place) for place in everyone[:-1][-1:]), *((2, place) for place in everyone[-1:])]
    assert isinstance(split.test_from, int)
    begin = split.test_from if split.validation_from is None else split.validation_from
    until = 99 if split.until is None else split.until
    cuts = [(-1, begin), (begin, split.test_from), (split.test_from, until)]
    of = [[place for place in everyone if low <= mine[place].time < high] for low, high in cuts]  # type: ignore[operator]
    return [(0, p) for p in of[0][-split.train_targets :]] + [(code, of[code][-1]) for code in (1, 2) if of[code]]


def as_set(log: Log, examples: Examples) -> set[tuple[str, ...]]:
    users, items = log.users.to_list(), log.items.to_list()
    offsets, rows = examples.histories()
    return {
        (SPLITS[code], users[user], items[log.item[target]], *(items[log.item[row]] for row in rows[begin:end]))
        for code, user, target, begin, end in zip(
            examples.split, examples.user, examples.target, offsets[:-1], offsets[1:], strict=True
        )
    }


@given(events=tied_logs(), split=splits, target=targets)
def test_every_split_is_what_a_search_row_by_row_finds(events: list[Event], split: SplitConfig, target: str) -> None:
    log = log_of_events(events, split.kind)
    examples = make_examples(log, split, 3, target)
    assert_no_leak(log, examples)
    parts = dict(zip(log.users.to_list(), user_splits(log, split, 3).tolist(), strict=True))
    found = as_set(log, examples)
    assert found == brute_force(events, split, target, parts)
    assert len(found) == len(examples)
    assert examples.split.tolist() == sorted(examples.split.tolist())


@given(events=tied_logs(), split=splits.filter(lambda split: split.kind != "column"), target=targets)
def test_no_history_holds_the_target_or_anything_after_it_ties_included(
    events: list[Event], split: SplitConfig, target: str
) -> None:
    log = log_of_events(events, split.kind)
    order = {
        (user, event.item): place
        for user, mine in first_of_each_pair(events).items()
        for place, event in enumerate(mine)
    }
    time = {(event.user, event.item): event.time for event in sorted(events, key=lambda e: e.time, reverse=True)}
    for _, user, goal, *history in as_set(log, make_examples(log, split, 0, target)):
        assert 1 <= len(history) <= split.max_history
        assert goal not in history
        assert all(order[user, item] < order[user, goal] for item in history)
        assert all(time[user, item] <= time[user, goal] - (split.same_time == "leave-out") for item in history)


@given(events=tied_logs(), split=splits)
def test_training_knows_nothing_of_what_is_held_out(events: list[Event], split: SplitConfig) -> None:
    log = log_of_events(events, split.kind)
    examples = make_examples(log, split, 0)
    known = known_to_training(log, split, examples.held_out, 0)
    if split.kind != "user-holdout":
        assert not known[examples.target[examples.split > 0]].any()
    assert known[examples.target[examples.split == 0]].all()
    begin = split.test_from if split.validation_from is None else split.validation_from
    if split.kind == "temporal":
        assert known.tolist() == (log.time < begin).tolist()
    if split.kind == "column":
        assert known.tolist() == [part == 0 for part in log.split.tolist()]  # type: ignore[union-attr]


def events_of(user: str, text: str) -> list[Event]:
    """Read ``a1 b1 c2t``: item, time, and t or v for a test or validation row."""
    named = {"": "train", "v": "validation", "t": "test"}
    return [Event(user, word[0], int(word[1]), named[word[2:]]) for word in text.split()]


def test_temporal_by_hand() -> None:
    log = log_of_events(events_of("u", "a1 b2 c3 d4 e5 f6 g7 h9") + events_of("v", "a1 b9") + events_of("w", "x4 y4"))
    split = SplitConfig(kind="temporal", validation_from=4, test_from=6, until=8, train_targets=2)
    assert told_by(log, split) == [
        "train u a>b", "train u ab>c", "validation u abcd>e", "validation w x>y", "test u abcdef>g"
    ]  # fmt: skip
    without = SplitConfig(kind="temporal", test_from=6, same_time="leave-out")
    assert told_by(log, without) == ["train u abcd>e", "test u abcdefg>h", "test v a>b"]


def told_by(log: Log, split: SplitConfig, target: str = "last") -> list[str]:
    examples = make_examples(log, split, 0, target)
    users, items = log.users.to_list(), log.items.to_list()
    offsets, rows = examples.histories()
    return [
        f"{SPLITS[code]} {users[user]} {''.join(items[log.item[r]] for r in rows[begin:end])}>{items[log.item[row]]}"
        for code, user, row, begin, end in zip(
            examples.split, examples.user, examples.target, offsets[:-1], offsets[1:], strict=True
        )
    ]


def test_a_column_decides_row_by_row_and_training_never_sees_what_is_held_out() -> None:
    log = log_of_events(events_of("u", "a1 b2t c3 d4v e5 f6t") + events_of("v", "a1t b2t") + events_of("w", "a1 b2"))
    assert told_by(log, SplitConfig(kind="column")) == [
        "train u ac>e", "train w a>b", "validation u ac>d", "test u abcde>f", "test v a>b"
    ]  # fmt: skip


def test_rows_of_the_targets_own_time_are_kept_or_left_out() -> None:
    log = log_of_events(events_of("u", "a1 b2 c2 d2 e2"))
    assert told_by(log, SplitConfig(kind="leave-last-out")) == ["train u ab>c", "validation u abc>d", "test u abcd>e"]
    left_out = SplitConfig(kind="leave-last-out", same_time="leave-out")
    assert told_by(log, left_out) == ["train u a>c", "validation u a>d", "test u a>e"]
    assert told_by(log, left_out.model_copy(update={"min_history": 2})) == []


def test_the_most_popular_last_is_the_latest_of_six() -> None:
    others = [
        event for n in range(9) for item in "abcdef"[: 6 - n // 2] for event in [Event(f"x{n}", item, 1, "train")]
    ]
    log = log_of_events([*events_of("u", "a1 z2 b3 c4 y5 d6 e7 f8 x9"), *others])
    whole, popular = (told_by(log, SplitConfig(kind="leave-last-out"), t) for t in ("last", "most-popular-last"))
    assert whole[-1].startswith("test x")
    assert "test u azbcydef>x" in whole
    assert "test u abcde>f" in popular


@given(events=tied_logs(), number=st.integers(1, 4), block=st.integers(1, 9))
def test_the_most_popular_rows_do_not_depend_on_the_blocks(events: list[Event], number: int, block: int) -> None:
    log = log_of_events(events)
    whole = most_popular(log, number)
    assert most_popular(log, number, block).tolist() == whole.tolist()
    chosen = set(zip(log.user[whole].tolist(), log.item[whole].tolist(), strict=True))
    distinct = Counter(user for user, _ in {(event.user, event.item) for event in events})
    counts = Counter(user for user, _ in chosen)
    assert [counts[code] for code in range(len(log.users))] == [min(distinct[user], number) for user in log.users]
    pairs = zip(log.user.tolist(), log.item.tolist(), strict=True)
    assert [pair in chosen for pair in pairs] == whole.tolist()


def test_the_published_target_is_told_to_be_one_and_negatives_still_avoid_everything_seen(tmp_path: Path) -> None:
    rows = random_rows(users=40, items=40, length=12)
    protocol = ProtocolConfig(name="published", target="most-popular-last", negatives=NegativesConfig(count=5))
    built = build_in(tmp_path, table_data(tmp_path, rows), SplitConfig(max_history=5), protocol)
    warned = [finding["text"] for finding in built.audit["findings"] if finding["severity"] == "warning"]
    assert any(text.startswith("The target is the latest of each user's 6 most popular items") for text in warned)
    seen = {(user, item) for user, item, _ in rows}
    users = {row["example_id"]: row["user_id"] for row in built.rows("examples")}
    negatives = [row for row in built.rows("candidates") if not row["label"]]
    assert not [row for row in negatives if (users[row["example_id"]], row["item_id"]) in seen]
    assert {len(row["history"]) for row in built.rows("examples")} == {5}


def test_a_column_is_read_from_the_log_and_wanted_by_name(tmp_path: Path) -> None:
    rows = [(*row, SPLITS[n % 6 // 2]) for n, row in enumerate(random_rows(users=12, items=30, length=6))]
    log = write_csv(tmp_path / "log.csv", ["user", "item", "timestamp", "fold"], rows)
    source = TableSourceConfig(kind="table", interactions=log, columns=ColumnsConfig(split="fold"))
    built = build_in(tmp_path, DataConfig(source=source), SplitConfig(kind="column"))
    assert built.result["splits"]["test"]["examples"] == 12
    told_rows = {(row["user_id"], row["item_id"]): row["training"] for row in built.rows("interactions")}
    assert told_rows == {(user, item): part == "train" for user, item, _, part in rows}
    with pytest.raises(UserError) as caught:
        build_in(
            tmp_path / "none", table_data(tmp_path / "none", [row[:3] for row in rows]), SplitConfig(kind="column")
        )
    assert str(caught.value) == (
        "split.kind: column, but no column of splits says train, validation or test in every row; a column `split`, "
        "`x_label` or `subset` that does. Add one, name it in data.source.columns.split (its other values are then "
        "told), or choose another split.kind"
    )


def test_dates_are_moments_of_utc(tmp_path: Path) -> None:
    split = SplitConfig(kind="temporal", validation_from="2024-01-06", test_from="2024-01-08T00:00:00Z")
    built = build_in(tmp_path, table_data(tmp_path, DAILY), split)
    times = {
        name: {(row["timestamp"] - NEW_YEAR) // DAY for row in built.rows("examples") if row["split"] == name}
        for name in SPLITS
    }
    assert times == {"train": {4}, "validation": {6}, "test": {8}}  # counted from 0
    with pytest.raises(UserError, match=r"split: no test example .* temporal makes one of an interaction from 2030"):
        build_in(
            tmp_path / "late",
            table_data(tmp_path / "late", DAILY),
            SplitConfig(kind="temporal", test_from="2030-01-01"),
        )


def test_without_validation_it_is_said_and_nothing_else_changes(tmp_path: Path) -> None:
    built = build_in(tmp_path, table_data(tmp_path, DAILY), SplitConfig(kind="temporal", test_from="2024-01-08"))
    assert built.result["splits"]["validation"]["examples"] == 0
    assert "Without split.validation_from there is no validation, as configured." in str(built.audit["findings"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "kind: temporal needs `test_from:`"),
        ({"test_from": "soon"}, "the text 'soon'; expected a date"),
        ({"test_from": "2024-01-01", "validation_from": "2024-01-01"}, "must follow one another in time"),
        ({"test_from": "2024-01-01", "until": "2023-01-01"}, "must follow one another in time"),
    ],
)
def test_moments_that_make_no_sense_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitConfig(kind="temporal", **settings)


LATE = "2024-01-08"


def refused(folder: Path, split: SplitConfig, rows: Sequence[Row] = DAILY, titles: dict[str, str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        build_in(folder, table_data(folder, rows, titles), split)
    return str(caught.value)


def test_dates_outside_the_log_are_told_with_the_dates_of_the_log(tmp_path: Path) -> None:
    message = refused(tmp_path, SplitConfig(kind="temporal", test_from="2030-01-01"))
    assert "no test example from 20 users with 180 interactions; temporal makes one of" in message
    assert "the log is of 2024-01-01T00:00:00 to 2024-01-09T00:00:00. Move the dates, or keep longer logs" in message


def test_dates_for_a_log_without_a_clock_are_told_so(tmp_path: Path) -> None:
    rows = [(user, item, place) for place, (user, item, _) in enumerate(DAILY)]
    assert refused(tmp_path, SplitConfig(kind="temporal", test_from=LATE), rows) == (
        "split.kind: temporal, but the log has no timestamps: its times are positions or row numbers; timestamps that "
        "all users share. Name a column of times in data.source.columns.timestamp, or choose another split.kind"
    )


def test_a_split_without_validation_says_what_this_split_would_need(tmp_path: Path) -> None:
    split = SplitConfig(kind="temporal", validation_from="2024-01-07T12:00:00", test_from="2024-01-07T13:00:00")
    built = build_in(tmp_path, table_data(tmp_path, DAILY), split)
    assert (
        "No validation example: temporal makes one of an interaction from 2024-01-07T12:00:00 and before "
        "2024-01-07T13:00:00 with 1 before it; the log is of"
    ) in str(built.audit["findings"])


def test_a_column_without_validation_says_so_in_its_own_words(tmp_path: Path) -> None:
    rows = [(*row, "test" if place % 9 == 8 else "train") for place, row in enumerate(DAILY)]
    log = write_csv(tmp_path / "log.csv", ["user", "item", "timestamp", "split"], rows)
    built = build_in(
        tmp_path, DataConfig(source=TableSourceConfig(kind="table", interactions=log)), SplitConfig(kind="column")
    )
    assert (
        "No validation example: column makes one of a row that says validation with 1 before it; 0 rows say so. "
        "Say so in more rows, or keep longer logs to have one."
    ) in [finding["text"] for finding in built.audit["findings"]]


def test_what_was_dropped_before_is_told_with_the_split_that_got_nothing(tmp_path: Path) -> None:
    message = refused(tmp_path, SplitConfig(min_history=3), DAILY, titles={"i01": "A"})
    assert "interactions (of 180; dropped: unknown item " in message
    assert "user-holdout gives test 10% of the users and needs a user with at least 4 interactions" in message
    assert message.endswith("Keep more users, change split.fractions, or keep longer logs, or lower split.min_history")
