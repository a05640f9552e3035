"""Sessions of users: with `data.repeats: keep`, one event of a user with an item stays of each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
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
from msr_adapter.data.interaction_log import Log, Parts, encode
from msr_adapter.data.readers.events import EventWords
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import read
from msr_adapter.data.temporal import Moments
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job
from tests.support.data_builders import Built, write_csv

Event = tuple[str, str, int, str, str]
START = 86_400 * 10_000
WEIGHT = {"view": 0.2, "cart": 0.5}
HEADER = ["user_id", "item_id", "timestamp", "event", "user_session"]

# One day of u: a session of looks at a, b and c and a purchase of a; one in which a is looked at and bought again; two
# looks at d without a session; then the next session, which ends on the next day.
ROWS: list[Event] = [
    ("u", "a", 1, "view", "s1"), ("u", "b", 2, "view", "s1"), ("u", "a", 3, "cart", "s1"),
    ("u", "a", 4, "purchase", "s1"), ("u", "a", 5, "view", "s1"), ("u", "b", 6, "view", "s1"),
    ("u", "c", 7, "view", "s1"), ("u", "a", 100, "view", "s2"), ("u", "a", 101, "purchase", "s2"),
    ("u", "d", 200, "view", ""), ("u", "d", 201, "view", "NULL"), ("u", "b", 86_399, "cart", "s3"),
    ("u", "b", 86_401, "view", "s3"), ("v", "a", 3, "view", "s1"), ("v", "a", 4, "view", "s1"),
]  # fmt: skip


Same = Literal["moment", "day", "session"]


def log_of(
    folder: Path, rows: Sequence[Event], same: Same, columns: ColumnsConfig | None = None, **options: Any
) -> tuple[Log, Audit]:
    path = write_csv(folder / "log.csv", HEADER, [(u, i, START + t, word, s) for u, i, t, word, s in rows])
    said = EventsConfig(column="event", positive=("purchase",), history=("view", "cart"), weight=WEIGHT, same=same)
    columns = columns or ColumnsConfig(session="user_session")
    source = TableSourceConfig(kind="table", interactions=path, events=said, columns=columns)
    audit = Audit()
    return encode(read(source, 0, audit), audit, **{"keep_repeats": True, **options}), audit


def shown(log: Log) -> list[tuple[str, str, int, str]]:
    assert log.event is not None
    assert log.events is not None
    users, items = log.users.to_list(), log.items.to_list()
    return [(users[u], items[i], int(t) // 1000 - START, log.events.words[event])
            for u, i, t, event in zip(log.user, log.item, log.time, log.event, strict=True)]  # fmt: skip


def test_of_a_session_the_strongest_event_of_an_item_stays_at_its_own_time(tmp_path: Path) -> None:
    log, audit = log_of(tmp_path, ROWS, "session")
    assert shown(log) == [
        ("u", "b", 2, "view"), ("u", "a", 4, "purchase"), ("u", "c", 7, "view"), ("u", "a", 101, "purchase"),
        ("u", "d", 200, "view"), ("u", "d", 201, "view"), ("u", "b", 86_399, "cart"), ("v", "a", 3, "view"),
    ]  # fmt: skip
    assert log.target is not None
    assert log.target.tolist() == [word == "purchase" for *_, word in shown(log)]
    assert audit.counts["interactions_without_session"] == 2
    assert audit.counts["interactions_dropped_duplicate"] == 7
    [told] = [one for one in audit.findings if one["topic"] == "sessions"]
    assert told["severity"] == "info"
    assert "2 interactions (13.3%) have no session: each is by itself" in told["text"]
    # A day joins both sessions of that day and parts the last one.
    daily = shown(log_of(tmp_path, ROWS, "day")[0])
    assert [row for row in daily if row[1] == "a"] == [("u", "a", 4, "purchase"), ("v", "a", 3, "view")]
    assert [row[2] for row in daily if row[1] == "b"] == [86_399, 86_401]


def test_without_the_word_a_session_changes_nothing_and_is_told(tmp_path: Path) -> None:
    log, audit = log_of(tmp_path, ROWS, "moment")
    assert len(log.item) == len(ROWS)
    assert any("not read from user_session: data.source.events.same is moment" in one["text"] for one in audit.findings)
    assert "interactions_without_session" not in audit.counts
    unread = ColumnsConfig()
    for same in ("moment", "day"):
        for keep in (True, False):
            one, other = (log_of(tmp_path, ROWS, same, columns, keep_repeats=keep)[0] for columns in (None, unread))
            assert shown(one) == shown(other)
    first = log_of(tmp_path, ROWS, "session", keep_repeats=False)[0]
    assert shown(first) == shown(log_of(tmp_path, ROWS, "moment", unread, keep_repeats=False)[0])


def test_mostly_without_a_session_is_a_warning(tmp_path: Path) -> None:
    rows = [(u, i, t, word, s if s == "s3" else " ") for u, i, t, word, s in ROWS]
    _, audit = log_of(tmp_path, rows, "session")
    assert [one["severity"] for one in audit.findings if one["topic"] == "sessions"] == ["warning"]


def test_a_split_by_time_cuts_sessions(tmp_path: Path) -> None:
    did = [(1, "view"), (2, "view"), (11, "cart"), (12, "cart"), (21, "purchase"), (22, "view")]
    rows = [("u", "a", time, word, "s") for time, word in did]
    moments = (1000 * (START + 10), 1000 * (START + 20))
    log, _ = log_of(tmp_path, rows, "session", moments=moments)
    assert shown(log) == [("u", "a", 1, "view"), ("u", "a", 11, "cart"), ("u", "a", 21, "purchase")]
    # What is known when validation begins is what it would be if nothing followed.
    before, _ = log_of(tmp_path, [*rows[:2], ("v", "a", 1, "purchase", "s")], "session", moments=moments)
    assert shown(log)[:1] == shown(before)[:1]
    whole, _ = log_of(tmp_path, rows, "session")
    assert shown(whole) == [("u", "a", 21, "purchase")]


def test_a_log_of_one_kind_of_event_needs_the_column_alone(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", HEADER, ROWS)

    def times(columns: ColumnsConfig, *, keep: bool = True) -> tuple[list[int], Audit]:
        audit = Audit()
        corpus = read(TableSourceConfig(kind="table", interactions=path, columns=columns), 0, audit)
        return (encode(corpus, audit, keep_repeats=keep).time // 1000).tolist(), audit

    found, audit = times(ColumnsConfig(session="user_session"))
    assert found == [1, 2, 7, 100, 200, 201, 86_399, 3]
    [source] = audit.recognised
    assert source.columns["session"] == "user_session"
    assert times(ColumnsConfig(session="user_session"), keep=False)[0] == times(ColumnsConfig(), keep=False)[0]


@pytest.mark.parametrize("sessions", [False, True])
def test_a_session_that_is_the_user_is_as_it_was(tmp_path: Path, sessions: bool) -> None:
    path = write_csv(tmp_path / "log.csv", HEADER, [row for row in ROWS if row[4].startswith("s")])
    columns = ColumnsConfig(user="user_session", session="user_session" if sessions else None)
    audit = Audit()
    log = encode(read(TableSourceConfig(kind="table", interactions=path, columns=columns), 0, audit), audit,
                 keep_repeats=True)  # fmt: skip
    assert log.users.to_list() == ["s1", "s2", "s3"]
    assert len(log.item) == 11  # two users look at a at one time, twice
    assert any("it is the user" in one["text"] for one in audit.findings) == sessions


def test_a_session_that_is_the_user_has_one_event_of_each_item_where_that_is_asked_for(tmp_path: Path) -> None:
    both = ColumnsConfig(user="user_session", session="user_session")
    rows = [row for row in ROWS if row[0] == "u" and row[4].startswith("s")]
    assert shown(log_of(tmp_path, rows, "session", both)[0]) == [
        ("s1", "b", 2, "view"), ("s1", "a", 4, "purchase"), ("s1", "c", 7, "view"), ("s2", "a", 101, "purchase"),
        ("s3", "b", 86_399, "cart"),
    ]  # fmt: skip


def test_a_split_column_makes_one_of_the_training_rows_of_a_session_alone() -> None:
    frame = pl.DataFrame({
        "user_id": ["u"] * 5, "item_id": ["a"] * 5, "timestamp": [1, 2, 3, 4, 5], "session": ["s"] * 4 + ["t"],
        "split": ["train", "train", "test", "test", "train"],
    })  # fmt: skip
    log = encode(Corpus(frame.lazy(), None), Audit(), published_split=True, keep_repeats=True)
    assert log.time.tolist() == [1, 3, 4, 5]


def test_sessions_of_floats_that_lost_digits_are_told(tmp_path: Path) -> None:
    ids = [9_007_199_254_740_993.0, 9_007_199_254_740_995.0, None]
    frame = pl.DataFrame({"user_id": ["u"] * 3, "item_id": list("abc"), "timestamp": [1, 2, 3], "session_id": ids})
    frame.write_parquet(tmp_path / "log.parquet")
    audit = Audit()
    columns = ColumnsConfig(session="session_id")
    read(TableSourceConfig(kind="table", interactions=tmp_path / "log.parquet", columns=columns), 0, audit)
    assert audit.counts["sessions_rounded"] == 2


def test_a_target_has_its_session_in_its_history_but_not_its_own_looks_in_it(tmp_path: Path) -> None:
    rows: list[Event] = [
        ("u", "p", 1, "purchase", "s0"), ("u", "q", 2, "purchase", "s1"), ("u", "b", 3, "view", "s1"),
        ("u", "r", 10, "purchase", "s2"), ("u", "b", 20, "view", "s3"), ("u", "c", 21, "view", "s3"),
        ("u", "b", 22, "purchase", "s3"), *(("v", item, 1, "purchase", "s0") for item in "mno"),
    ]  # fmt: skip
    path = write_csv(tmp_path / "log.csv", HEADER, [(u, i, START + t, word, s) for u, i, t, word, s in rows])
    histories = {}
    for same in ("session", "moment"):
        said = EventsConfig(column="event", positive=("purchase",), history=("view",), same=same)
        columns = ColumnsConfig(session="user_session")
        source = TableSourceConfig(kind="table", interactions=path, events=said, columns=columns)
        out = tmp_path / same
        out.mkdir()
        protocol = ProtocolConfig(name="p", negatives=NegativesConfig(count=1))
        data, split = DataConfig(source=source, repeats="keep"), SplitConfig(kind="leave-last-out")
        inputs = BuildInputs(data, split, protocol, TrainNegativesConfig(count=1))
        made = Built(out, build(inputs, Job(out, Reporter(quiet=True), 0)))
        [histories[same]] = [row["history"] for row in made.rows("examples")
                             if (row["user_id"], row["split"]) == ("u", "test")]  # fmt: skip
    assert histories == {"session": list("pqbrc"), "moment": list("pqbrbc")}


def test_a_session_needs_its_column() -> None:
    said = EventsConfig(column="event", positive=("buy",), same="session")
    with pytest.raises(ValidationError, match=r"events\.same: session needs columns\.session"):
        TableSourceConfig(kind="table", interactions=Path("log.csv"), events=said)


WORDS = EventWords(("buy", "cart", "view"), (0, 1, 1), (1.0, 0.5, 0.2), ("buy", "cart", "view"))
Row = tuple[int, int, int, int, int | None]


def strongest(rows: list[tuple[int, Row]], *, has_words: bool) -> tuple[int, Row]:
    """Return the strongest of rows (place in the file, row): by word, then by time, then the first in the file."""
    return min(rows, key=lambda one: (one[1][3] if has_words else 0, one[1][2], one[0]))


def grouped(rows: list[tuple[int, Row]], key: Any, *, has_words: bool) -> list[tuple[int, Row]]:
    groups: dict[Any, list[tuple[int, Row]]] = {}
    for one in rows:
        groups.setdefault(key(one), []).append(one)
    return [strongest(group, has_words=has_words) for group in groups.values()]


def expected(rows: list[Row], moments: Moments | None, *, has_words: bool) -> list[Row]:
    """Return what stays, row by row: one of a time, then one of a session within a part of time."""

    def session(one: tuple[int, Row]) -> Any:
        place, (user, item, time, _, name) = one
        part = 0 if moments is None else sum(time >= moment for moment in moments)
        return (user, item, "none", place) if name is None else (user, item, name, part)

    left = grouped(list(enumerate(rows)), lambda one: one[1][:3], has_words=has_words)
    left = grouped(left, session, has_words=has_words)
    return [row for _, row in sorted(left, key=lambda one: (one[1][0], one[1][2], one[0]))]


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 9), st.integers(0, 2),
                  st.sampled_from([None, 0, 1, 2])),
        min_size=1, max_size=40),
    has_words=st.booleans(), moments=st.sampled_from([None, (3, 6), (5, 5)]), shard=st.integers(1, 50),
)  # fmt: skip
def test_what_stays_is_what_is_chosen_row_by_row(
    rows: list[Row], has_words: bool, moments: Moments | None, shard: int
) -> None:
    users, items, times, words, sessions = zip(*rows, strict=True)
    columns: dict[str, Any] = {
        "user_id": [f"u{one}" for one in users], "item_id": [f"i{one}" for one in items], "timestamp": times,
        "session": pl.Series([None if one is None else f"s{one}" for one in sessions], dtype=pl.String),
    }  # fmt: skip
    if has_words:
        columns["event"] = pl.Series(words, dtype=pl.Int8)
    corpus = Corpus(pl.LazyFrame(columns), None, events=WORDS if has_words else None)
    log = encode(corpus, Audit(), keep_repeats=True, moments=moments, parts=Parts(7, shard))
    wanted = expected(rows, moments, has_words=has_words)
    names = log.users.to_list(), log.items.to_list()
    found = [(names[0][u], names[1][i], int(t)) for u, i, t in zip(log.user, log.item, log.time, strict=True)]
    assert found == [(f"u{u}", f"i{i}", t) for u, i, t, *_ in wanted]
    assert log.repeats == (len({row[:2] for row in wanted}) < len(wanted))
    if has_words:
        assert log.event is not None
        assert np.array_equal(log.event, [row[3] for row in wanted])
