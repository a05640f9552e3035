"""A published split is kept: its held-out rows are targets, and whatever is lost of it is said with counts."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from msr_adapter.config.schema import (
    ColumnsConfig,
    DataConfig,
    KCoreConfig,
    LimitConfig,
    MMRecSourceConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
)
from msr_adapter.data.examples import Examples
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.source_look import look_through
from tests.support.data_builders import Built, build_in, write_csv

COLUMN = SplitConfig(kind="column")
USERS = [f"u{n:02}" for n in range(8)]
Row = Sequence[Any]


def published(users: Sequence[str] = USERS, items: int = 40) -> list[list[Any]]:
    """Return six training rows, one of validation and one of test for every user, each of another item."""
    rows = []
    for number, user in enumerate(users):
        for place, split in enumerate(["train"] * 6 + ["validation", "test"]):
            rows.append([user, f"i{(5 * number + place) % items:02}", 1_600_000_000 + 100 * number + place, 5, split])
    return rows


def built(
    folder: Path, rows: Sequence[Row], split: SplitConfig = COLUMN, negatives: int | ProtocolConfig = 3, **settings: Any
) -> Built:
    folder.mkdir(parents=True, exist_ok=True)
    log = write_csv(folder / "log.csv", ["user", "item", "timestamp", "rating", "split"], rows)
    least = settings.pop("min_rating", None)
    titles = settings.pop("titles", None)
    items = None if titles is None else write_csv(folder / "items.csv", ["item", "title"], [(i, i) for i in titles])
    source = TableSourceConfig(kind="table", interactions=log, items=items, min_rating=least)
    return build_in(folder, DataConfig(source=source, **settings), split, negatives)


def targets(run: Built, split: str = "test") -> dict[str, str]:
    of = {row["example_id"]: row["user_id"] for row in run.rows("examples") if row["split"] == split}
    return {of[row["example_id"]]: row["item_id"] for row in run.rows("candidates")
            if row["label"] and row["example_id"] in of}  # fmt: skip


def history(run: Built, user: str, split: str = "test") -> list[str]:
    [found] = [row["history"] for row in run.rows("examples") if (row["user_id"], row["split"]) == (user, split)]
    return list(found)


def warnings(run: Built) -> list[str]:
    return [f["text"] for f in run.audit["findings"] if f["severity"] == "warning" and "published split" in f["text"]]


def test_a_whole_split_is_taken_without_a_warning(tmp_path: Path) -> None:
    run = built(tmp_path, published())
    assert len(targets(run)) == len(targets(run, "validation")) == len(USERS)
    assert warnings(run) == []
    assert run.counts["test_rows_read"] == len(USERS)


def test_a_test_row_that_repeats_a_training_row_is_a_target_and_the_training_row_stays(tmp_path: Path) -> None:
    rows = published()
    for number in range(6):
        rows[8 * number + 7][1] = rows[8 * number + 2][1]
    run = built(tmp_path, rows)
    assert targets(run) == {row[0]: row[1] for row in rows if row[4] == "test"}
    training = {(row["user_id"], row["item_id"]) for row in run.rows("interactions") if row["training"]}
    assert training == {(row[0], row[1]) for row in rows if row[4] == "train"}
    for user, target in targets(run).items():
        assert target not in history(run, user)
        assert len(history(run, user)) in (6, 7)
    assert run.counts["test_targets_repeated"] == 6
    assert "6 test targets of the published split are items that the user has in another row too" in str(run.audit)
    assert warnings(run) == []
    seen = {(row[0], row[1]) for row in rows}
    users = {row["example_id"]: row["user_id"] for row in run.rows("examples")}
    negatives = [(users[row["example_id"]], row["item_id"]) for row in run.rows("candidates") if not row["label"]]
    assert not set(negatives) & seen


def test_a_test_row_that_is_older_than_the_training_row_of_its_item_takes_nothing_from_training(tmp_path: Path) -> None:
    rows = published()
    rows[7][1:3] = [rows[5][1], rows[4][2]]  # of the item of the last training row, and before it
    run = built(tmp_path, rows)
    assert targets(run)["u00"] == rows[5][1]
    assert history(run, "u00") == [row[1] for row in rows[:5]]
    assert {row["item_id"] for row in run.rows("interactions") if row["user_id"] == "u00" and row["training"]} == {
        row[1] for row in rows[:6]
    }


def test_a_validation_row_that_repeats_stays_too(tmp_path: Path) -> None:
    rows = published()
    rows[6][1] = rows[0][1]
    run = built(tmp_path, rows)
    assert targets(run, "validation")["u00"] == rows[0][1]
    assert history(run, "u00", "validation") == [row[1] for row in rows[1:6]]
    assert history(run, "u00") == [row[1] for row in rows[:6]]  # the first time counts in the history of the test


def test_one_item_in_all_three_splits(tmp_path: Path) -> None:
    rows = published()
    rows[6][1] = rows[7][1] = rows[3][1]
    run = built(tmp_path, rows)
    assert targets(run)["u00"] == targets(run, "validation")["u00"] == rows[3][1]
    assert history(run, "u00") == [row[1] for row in (*rows[:3], *rows[4:6])]


def test_the_last_row_of_a_test_is_its_target_even_if_the_test_had_the_item_before(tmp_path: Path) -> None:
    rows = published()
    rows += [["u00", "i38", 1_600_000_050, 5, "test"], ["u00", rows[7][1], 1_600_000_060, 5, "test"]]
    run = built(tmp_path, rows)
    assert targets(run)["u00"] == rows[7][1]
    assert history(run, "u00")[-1] == "i38"
    assert any(text.startswith("2 of 10 test rows of the published split are no targets") for text in warnings(run))


def test_a_file_that_was_written_twice_changes_no_target(tmp_path: Path) -> None:
    rows = published()
    once, twice = built(tmp_path / "1", rows), built(tmp_path / "2", [*rows, *rows])
    assert targets(once) == targets(twice)
    assert [row["history"] for row in once.rows("examples")] == [row["history"] for row in twice.rows("examples")]
    assert once.rows("interactions") == twice.rows("interactions")
    [lost] = [text for text in warnings(twice) if "loses" in text]
    assert "loses 48 of its 96 train rows: 48 repeat an earlier training row" in lost


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"min_rating": 4}, "loses 1 of its 8 test rows: 1 rated too low"),
        ({"titles": [f"i{n:02}" for n in range(40) if n != 7]}, "of items that the table of items lacks"),
        ({"k_core": KCoreConfig(users=8)}, "loses 3 of its 51 train rows: 3 below data.k_core"),
        ({"limit": LimitConfig(users=5)}, "of users beyond data.limit.users"),
        ({"limit": LimitConfig(items=20)}, "of items beyond data.limit.items"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_filter_takes_from_a_published_split_is_a_warning(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    rows = [*published(), *[["short", f"i{n:02}", 1_600_000_900 + n, 5, "train"] for n in range(3)]]
    rows[7][3] = 1  # the test row of the first user
    run = built(tmp_path, rows, **settings)
    assert any(said in text for text in warnings(run))
    for name in ("train", "validation", "test"):
        dropped = sum(n for key, n in run.counts.items() if key.startswith(f"{name}_rows_dropped_"))
        assert run.counts[f"{name}_rows_read"] == sum(row[4] == name for row in rows)
        if name != "train":
            kept = run.counts[f"{name}_rows_read"] - dropped
            assert kept - run.counts[f"{name}_rows_no_target"] == len(targets(run, name))


def test_targets_without_enough_history_are_lost_with_a_count(tmp_path: Path) -> None:
    rows = [*published(), ["new", "i01", 1_600_000_900, 5, "train"], ["new", "i02", 1_600_000_901, 5, "test"]]
    run = built(tmp_path, rows, SplitConfig(kind="column", min_history=2))
    assert "new" not in targets(run)
    assert any("1 of 9 test rows of the published split is no target" in text for text in warnings(run))


def test_a_split_of_users_has_targets_only_where_it_has_users(tmp_path: Path) -> None:
    rows = [[*row[:4], "train" if row[0] < "u04" else "test"] for row in published()]
    run = built(tmp_path, rows)
    assert targets(run) == {user: next(row[1] for row in reversed(rows) if row[0] == user) for user in USERS[4:]}
    assert warnings(run) == []  # the rows before the last are the histories of the test users


@pytest.mark.parametrize("kind", ["popularity", "popularity-matched", "all"])
def test_full_lists_and_others_hold_every_item_once(tmp_path: Path, kind: str) -> None:
    rows = published()
    rows[7][1] = rows[1][1]
    protocol = ProtocolConfig(name="test", negatives=NegativesConfig(kind=kind, count=3))
    run = built(tmp_path, rows, negatives=protocol)
    lists: dict[int, list[str]] = {}
    for row in run.rows("candidates"):
        lists.setdefault(row["example_id"], []).append(row["item_id"])
    assert all(len(items) == len(set(items)) for items in lists.values())
    if kind == "all":
        test = {row["example_id"]: row["user_id"] for row in run.rows("examples") if row["split"] == "test"}
        catalogue = {row["item_id"] for row in run.rows("items")}
        for example, user in test.items():
            mine = {row[1] for row in rows if row[0] == user}
            assert set(lists[example]) == (catalogue - mine) | {targets(run)[user]}


def test_the_core_counts_pairs_not_rows(tmp_path: Path) -> None:
    rows = published()
    rows += [["twice", "i00", 1_600_000_900, 5, "train"], ["twice", "i00", 1_600_000_901, 5, "test"]]
    run = built(tmp_path, rows, k_core=KCoreConfig(users=2))
    assert "twice" not in {row["user_id"] for row in run.rows("interactions")}
    assert any("loses 1 of its 9 test rows: 1 below data.k_core" in text for text in warnings(run))


def test_lists_of_a_file_keep_a_repeated_target(tmp_path: Path) -> None:
    rows = published()
    rows[7][1] = rows[1][1]
    run = built(tmp_path / "1", rows)
    of = {row["example_id"]: row["user_id"] for row in run.rows("examples") if row["split"] == "test"}
    lists = [(of[row["example_id"]], row["item_id"], row["label"]) for row in run.rows("candidates")
             if row["example_id"] in of]  # fmt: skip
    path = tmp_path / "lists.parquet"
    pl.DataFrame(lists, schema=["user_id", "item_id", "label"], orient="row").write_parquet(path)
    protocol = ProtocolConfig(name="test", candidates=path, negatives=NegativesConfig(count=3))
    again = built(tmp_path / "2", rows, negatives=protocol)
    assert again.result["candidates_digest"] == run.result["candidates_digest"]


@pytest.mark.parametrize("kind", ["user-holdout", "leave-last-out"])
def test_a_split_that_is_not_used_is_a_warning_with_the_key(tmp_path: Path, kind: str) -> None:
    run = built(tmp_path, published(), SplitConfig.model_validate({"kind": kind}))
    [text] = warnings_of(run, "publishes a split")
    assert "the column split of log.csv says train, validation or test" in text
    assert f"split.kind: {kind} makes another one; set split.kind: column" in text
    assert "test_rows_read" not in run.counts


def warnings_of(run: Built, words: str) -> list[str]:
    return [f["text"] for f in run.audit["findings"] if f["severity"] == "warning" and words in f["text"]]


def mmrec(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    codes = {"train": 0, "validation": 1, "test": 2}
    lines = [f"{u}\t{i}\t{t}\t{codes[split]}" for u, i, t, _, split in published()]
    path = folder / name
    path.write_text("\n".join(["userID\titemID\ttimestamp\tx_label", *lines]) + "\n")
    return path


def test_x_label_is_recognised_wherever_it_stands(tmp_path: Path) -> None:
    source = MMRecSourceConfig(kind="mmrec", interactions=mmrec(tmp_path / "a", "log.inter"))
    table = TableSourceConfig(kind="table", interactions=mmrec(tmp_path / "b", "log.tsv"))
    for number, one in enumerate((source, table)):
        used = build_in(tmp_path / f"used{number}", DataConfig(source=one), COLUMN)
        assert len(targets(used)) == len(USERS)
        other = build_in(tmp_path / f"other{number}", DataConfig(source=one), SplitConfig(kind="leave-last-out"))
        assert warnings_of(other, "the column x_label of log.")
        looked = look_through(DataConfig(source=one), SplitConfig(kind="leave-last-out"))
        assert any("split.kind: column" in line for line in looked.lines)
        assert not look_through(DataConfig(source=one), COLUMN).problems


def test_check_tells_of_a_split_that_is_wanted_and_not_there(tmp_path: Path) -> None:
    log = write_csv(tmp_path / "log.csv", ["user", "item", "timestamp"], [row[:3] for row in published()])
    source = TableSourceConfig(kind="table", interactions=log)
    [problem] = look_through(DataConfig(source=source), COLUMN).problems
    assert "column, but no column of splits" in str(problem)


def test_a_column_with_one_word_too_many_is_a_warning(tmp_path: Path) -> None:
    rows = published()
    rows[0][4] = "unknown"
    run = built(tmp_path, rows, SplitConfig(kind="leave-last-out"))
    [text] = warnings_of(run, "is ignored: it holds more than train, validation and test")
    assert "The column split of log.csv" in text
    topics = [[*row[:4], f"topic {number % 3}"] for number, row in enumerate(published())]
    assert not warnings_of(built(tmp_path / "2", topics, SplitConfig(kind="leave-last-out")), "is ignored")
    named = TableSourceConfig(kind="table", interactions=tmp_path / "log.csv", columns=ColumnsConfig(split="split"))
    with pytest.raises(Exception, match="'unknown'; train, validation or test"):
        build_in(tmp_path / "3", DataConfig(source=named), COLUMN)


def test_targets_that_the_protocol_leaves_out_are_lost_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_but_the_last(_: Log, examples: Examples, *__: object) -> Examples:
        return examples.keep(np.arange(len(examples)) < len(examples) - 1)

    # By its full name: the package has a function `build` too.
    monkeypatch.setattr(import_module("msr_adapter.data.build"), "without_twinless", all_but_the_last)
    run = built(tmp_path, published())
    assert set(targets(run)) == set(USERS[:-1])
    assert any("1 of 8 test rows of the published split is no target" in text for text in warnings(run))
