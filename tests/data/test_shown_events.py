"""Impressions as rows of an event log: what was shown beside a target is what `columns.clicked` would say."""

from pathlib import Path

import numpy as np
import pytest

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
from msr_adapter.data.choices import TargetRows, choices_of
from msr_adapter.data.readers.sources import read
from msr_adapter.errors import UserError
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job
from tests.support.data_builders import Built, write_csv

START = 1_700_000_000
CLICKS = EventsConfig(column="event", positive=("click",), shown=("impression",))
HEADER = ["user_id", "item_id", "timestamp", "impression_id"]


def impressions(users: int = 6) -> list[tuple[str, str, int, str, bool]]:
    """Return five impressions of six items each for every user; the last has two clicks, the others one."""
    return [
        (f"u{user}", f"i{(3 * user + 5 * number + place) % 30:02}", START + 1000 * (10 * number + user),
         f"{user}-{number}", place == number or (number == 4 and place == 0))
        for user in range(users) for number in range(5) for place in range(6)
    ]  # fmt: skip


def built(folder: Path, source: TableSourceConfig, train: TrainNegativesConfig, test: NegativesConfig) -> Built:
    out = folder / "out"
    out.mkdir(parents=True)
    protocol = ProtocolConfig(name="p", negatives=test)
    inputs = BuildInputs(DataConfig(source=source), SplitConfig(kind="leave-last-out"), protocol, train)
    return Built(out, build(inputs, Job(out, Reporter(quiet=True), 0)))


SHOWN = {"kind": "impressions", "count": 5}


def test_both_ways_to_say_what_was_shown_give_the_same_lists(tmp_path: Path) -> None:
    rows = impressions()
    by_click = write_csv(tmp_path / "c.csv", [*HEADER, "clicked"], [(*row[:4], int(row[4])) for row in rows])
    # A log of events has an impression for each item that was shown, and a click, some seconds later, beside it.
    events = [(*row[:4], "impression") for row in rows]
    events += [(row[0], row[1], row[2] + 5, row[3], "click") for row in rows if row[4]]
    by_event = write_csv(tmp_path / "e.csv", [*HEADER, "event"], events)
    together = ColumnsConfig(impression="impression_id")
    both = ColumnsConfig(clicked="clicked", impression="impression_id")
    one = TableSourceConfig(kind="table", interactions=by_click, columns=both)
    other = TableSourceConfig(kind="table", interactions=by_event, events=CLICKS, columns=together)
    lists = []
    for name, source in (("click", one), ("event", other)):
        made = built(tmp_path / name, source, TrainNegativesConfig(**SHOWN), NegativesConfig(**SHOWN))
        lists.append((made.rows("candidates"), [row["history"] for row in made.rows("examples")]))
        assert made.counts["shown_not_clicked"] == 6 * (4 * 5 + 4)
    assert lists[0] == lists[1]
    assert sum(row["label"] for row in lists[1][0]) > len(lists[1][1])  # two clicks are two positives


def test_what_is_bought_after_a_click_of_one_impression_is_one_choice() -> None:
    user, group = np.zeros(6, np.int32), np.array([1, 1, 2, 2, 3, 3])
    target = np.array([False, True, True, True, False, False])
    rows = TargetRows.of(target, choices_of(user, group))
    assert rows.places.tolist() == [1, 3]
    assert rows.start.tolist() == [0, 0, 2, 2, 4, 4]
    assert rows.back(np.array([6, 6, 6]), 1).tolist() == [3, 3, 3]
    assert rows.back(np.array([6]), 2).tolist() == [1]


def test_a_click_before_the_purchase_of_its_impression_is_neither_history_nor_positive(tmp_path: Path) -> None:
    rows = [
        ("u", "a", START, "1", "impression"), ("u", "b", START, "1", "impression"), ("u", "a", START + 1, "1", "click"),
        ("u", "c", START + 10, "2", "impression"), ("u", "d", START + 10, "2", "impression"),
        ("u", "e", START + 10, "2", "impression"),
        ("u", "c", START + 11, "2", "click"), ("u", "d", START + 12, "2", "buy"),
        *(("v", item, START + place, "9", "click") for place, item in enumerate("abcde")),
    ]  # fmt: skip
    path = write_csv(tmp_path / "log.csv", [*HEADER, "event"], rows)
    events = EventsConfig(column="event", positive=("buy",), history=("click",), shown=("impression",))
    source = TableSourceConfig(
        kind="table", interactions=path, events=events, columns=ColumnsConfig(impression="impression_id")
    )
    out = tmp_path / "out"
    out.mkdir()
    protocol = ProtocolConfig(name="p", negatives=NegativesConfig(**SHOWN))
    split = SplitConfig(kind="temporal", test_from=(START + 5) * 1000)
    inputs = BuildInputs(DataConfig(source=source), split, protocol, TrainNegativesConfig(count=1))
    with pytest.raises(UserError, match="no train example"):  # nothing is bought before: the test is what is looked at
        build(inputs, Job(out, Reporter(quiet=True), 0))
    corpus = read(source, 0, Audit())
    frame = corpus.interactions.collect()
    assert frame["filtered"].to_list().count("not_clicked") == 5
    assert frame["event"].null_count() == 5


def test_a_log_without_a_column_of_impressions_is_told(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", ["user_id", "item_id", "timestamp", "event"],
                     [("u", "a", START, "impression"), ("u", "a", START, "click")])  # fmt: skip
    audit = Audit()
    read(TableSourceConfig(kind="table", interactions=path, events=CLICKS), 0, audit)
    assert any("no column that says what was shown together" in one["text"] for one in audit.findings)
    (told,) = [one["text"] for one in audit.findings if one["text"].startswith("Events of")]
    assert "targets: click 1; shown: impression 1." in told
