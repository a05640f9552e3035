"""Slices: groups by hand, metrics against a brute force, tables of the user's own, and what is wrong with them."""

import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from msr_adapter import schema
from msr_adapter.config.schema import ConfidenceConfig, ProtocolConfig, SliceTablesConfig
from msr_adapter.config.schema.evaluate import SliceName
from msr_adapter.errors import UserError
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.evaluate.model_metrics import protocol_digest
from msr_adapter.evaluate.slice_groups import (
    BINS,
    GROUPINGS,
    NONE,
    OTHER,
    VALUES,
    Slice,
    UserFacts,
    by_number,
    by_text,
    read_facts,
)
from msr_adapter.evaluate.slice_tables import check_tables, table_findings, table_slices
from msr_adapter.evaluate.slices import say_slices, sliced_metrics
from msr_adapter.pipeline import check
from msr_adapter.pipeline.stages import STAGES
from tests.pipeline.test_run import load
from tests.support.judged_run import PROTOCOL, Run, make_run
from tests.support.scripted_pipeline import SCRIPTED

DAY = 86_400_000
YEAR_2024 = 1_704_067_200_000


def facts_of(popularity: list[int], target: list[int], **changes: Any) -> UserFacts:
    """Return facts of users whose target is ``target`` among items with the given ``popularity``."""
    count = len(popularity)
    columns = {"item_id": [f"{item:03}" for item in range(count)], "title": [""] * count, "image": [None] * count,
               "image_digest": [None] * count, "more_images": [None] * count, "text": [""] * count,
               "popularity": popularity, "category": [None] * count,
               "in_log": [True] * count, "listed": [True] * count}  # fmt: skip
    columns |= changes.pop("items", {})
    users = len(target)
    made = UserFacts(
        np.ones(users, np.int64), np.zeros(users, np.int64), np.array(target), pa.table(columns, schema=schema.ITEMS),
        pa.array([f"u{user}" for user in range(users)]),
    )  # fmt: skip
    return replace(made, **changes)


def named(one: Slice) -> list[str]:
    return [one.values[number] for number in one.group]


def test_head_mid_and_tail_share_the_training_interactions() -> None:
    # 30 interactions: item 1 alone is the first third, item 3 and 0 the second, the others and the unseen the last.
    popularity = [4, 10, 4, 6, 3, 3, 0]
    found = named(GROUPINGS["popularity"](facts_of(popularity, list(range(7)))))
    assert found == ["mid", "head", "tail", "mid", "tail", "tail", "tail"]


def test_cold_image_and_category_by_hand() -> None:
    items = {"image": ["a.png", None, "b.png"], "category": ["toys", None, "toys"]}
    facts = facts_of([3, 0, 1], [0, 1, 2, 1], items=items)
    assert named(GROUPINGS["cold"](facts)) == ["seen in training", "unseen in training"] * 2
    assert named(GROUPINGS["image"](facts)) == ["with image", "without image"] * 2
    assert named(GROUPINGS["category"](facts)) == ["toys", NONE] * 2


def test_time_is_cut_into_periods_where_there_is_a_clock() -> None:
    times = np.array([YEAR_2024 + day * DAY for day in range(8)])
    facts = facts_of([1], [0] * 8, time=times)
    assert GROUPINGS["time"](facts).values == (
        "2024-01-01 to 2024-01-02", "2024-01-03 to 2024-01-04", "2024-01-05 to 2024-01-06", "2024-01-07 to 2024-01-08",
    )  # fmt: skip
    positions = facts_of([1], [0] * 3, time=np.array([1, 2, 3]))
    assert len(GROUPINGS["time"](positions).values) == 1


def test_numbers_by_hand() -> None:
    one = by_number("n", np.array([1, 1, 1, 2, 3, 4, 9]))
    assert one.values == ("1", "2", "3", "4-9")
    assert by_number("n", np.array([5, 3, 5])).values == ("3", "5")
    price = by_number("n", np.array([0.5, np.nan, 1.25, 3.5, 7.0, 9.75]))
    assert price.values[-1] == NONE
    assert price.values[0] == "0.5 to 1.25"
    assert named(price)[1] == NONE


@given(st.lists(st.integers(-5, 40) | st.just(None), min_size=1, max_size=60))
def test_bins_are_ordered_whole_and_keep_equal_numbers_together(numbers: list[int | None]) -> None:
    values = np.array([np.nan if number is None else number for number in numbers], dtype=float)
    one = by_number("n", values)
    assert sorted(set(one.group.tolist())) == list(range(len(one.values)))
    assert len(one.values) <= BINS + 1
    known = [(value, group) for value, group in zip(values, one.group, strict=True) if not np.isnan(value)]
    for value, group in known:
        for other, theirs in known:
            assert group <= theirs if value < other else True
            assert group == theirs if value == other else True


def test_long_whole_numbers_keep_their_digits() -> None:
    one = by_number("joined", np.array([20240100.0 + day for day in range(1, 9)]))
    assert one.values == ("20240101-20240102", "20240103-20240104", "20240105-20240106", "20240107-20240108")


def test_names_are_no_groups_and_no_value_is_mistaken_for_the_rest() -> None:
    names = by_text("name", [*(f"name {user}" for user in range(VALUES)), "twice", "twice", None])
    assert names.values == ("twice", OTHER, NONE)
    assert by_text("few", ["a", "b", None]).values == ("a", "b", NONE)
    clash = by_text("t", ["other", "none", *(f"v{number}" for number in range(VALUES)), None] * 2)
    assert len(set(clash.values)) == len(clash.values) == VALUES + 2


def test_rare_texts_are_pooled() -> None:
    values = [f"v{number:02}" for number in range(VALUES + 3)] * 2 + ["v12", None]
    one = by_text("t", values)
    assert one.values == ("v12", *(f"v{number:02}" for number in range(VALUES - 1)), OTHER, NONE)
    assert named(one).count(OTHER) == 2 * 3


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A judged run; tests only read it."""
    made = make_run(tmp_path_factory.mktemp("run"))
    made.evaluate()
    return made


def test_every_group_of_every_slice_is_the_brute_force(run: Run) -> None:
    held_out, metrics = read_held_out(run.data), run.metrics()
    facts = read_facts(held_out, run.data)
    table = schema.read_table(run.trained / "scores.parquet", schema.SCORES)
    scores, labels = table["logit"].to_numpy().reshape(40, -1), held_out.labels.reshape(40, -1)
    assert [one["name"] for one in metrics["slices"]] == ["item popularity", "image", "category", "time"]
    for one, key in zip(metrics["slices"], ("popularity", "image", "category", "time"), strict=True):
        expected = np.array(named(GROUPINGS[key](facts)))
        assert [group["value"] for group in one["groups"]] == list(GROUPINGS[key](facts).values)
        for group in one["groups"]:
            rows = expected == group["value"]
            assert group["users"] == rows.sum()
            assert group["small"] == (rows.sum() < 30)
            assert list(group["models"]) == list(metrics["models"])
            judged = group["models"]["trained"]
            ranks = (scores[rows] > scores[rows][labels[rows] == 1][:, None]).sum(axis=1)
            assert judged["auc"]["mean"] == pytest.approx(roc_auc_score(labels[rows].ravel(), scores[rows].ravel()))
            assert judged["hr@5"]["mean"] == pytest.approx((ranks < 5).mean())
            assert judged["auc"]["low"] <= judged["auc"]["mean"] <= judged["auc"]["high"]
            assert "recall@5" not in judged


def test_the_groups_of_a_slice_share_the_users(run: Run) -> None:
    for one in run.metrics()["slices"]:
        assert sum(group["users"] for group in one["groups"]) == 40


def test_the_target_decides_the_group_not_its_place(run: Run) -> None:
    held_out = read_held_out(run.data)
    facts = read_facts(held_out, run.data)
    items = facts.items["item_id"].to_pylist()
    targets = held_out.table.filter(pc.equal(held_out.table["label"], 1))["item_id"].to_pylist()
    assert [items[row] for row in facts.target] == targets


def test_slices_are_the_protocols_choice_and_change_no_digest(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    made.evaluate()
    all_of_them = made.metrics()
    made.evaluate(PROTOCOL.model_copy(update={"slices": ("image",)}))
    assert [one["name"] for one in made.metrics()["slices"]] == ["image"]
    assert made.metrics()["protocol_digest"] == all_of_them["protocol_digest"]
    made.evaluate(PROTOCOL.model_copy(update={"slices": ()}))
    assert made.metrics()["slices"] == []
    assert made.metrics()["models"] == all_of_them["models"]


def test_what_changes_numbers_changes_the_digest() -> None:
    def digest_of(**changes: Any) -> str:
        return protocol_digest(ProtocolConfig(**{"name": "one", **changes}).model_dump(mode="json"))

    assert digest_of(name="two") == digest_of(slices=()) == digest_of()
    hard = [digest_of(negatives={"kind": "hard", "scores": Path(name)}) for name in ("a.csv", "b.csv")]
    assert hard[0] == hard[1]  # the file's content decides the candidates, which have a digest of their own
    changed = [digest_of(k=(5,)), digest_of(metrics=("auc",)), digest_of(confidence=ConfidenceConfig(samples=200)),
               digest_of(confidence=ConfidenceConfig(level=0.9)), digest_of(negatives={"count": 5}), digest_of(),
               digest_of(negatives={"kind": "all"}), digest_of(target="most-popular-last")]  # fmt: skip
    assert len(set(changed)) == len(changed)


def test_the_depth_of_slices_is_five_or_the_first() -> None:
    assert sliced_metrics(ProtocolConfig(name="p", metrics=("auc", "hr"), k=(3, 5))) == (("auc", "hr"), (5,))
    assert sliced_metrics(ProtocolConfig(name="p", metrics=("auc", "hr"), k=(1, 20))) == (("auc", "hr"), (1,))
    assert sliced_metrics(ProtocolConfig(name="p", metrics=("recall",), k=(3, 5)))[1] == (
        3,
        5,
    )  # recall@3 is the primary


def test_the_console_says_one_line(run: Run) -> None:
    text = say_slices(run.metrics()["slices"])
    assert text.startswith("Slices: item popularity, image, category, time (12 groups, ")
    assert "of them with fewer than 30 users" in text


def tables_in(folder: Path, **texts: str) -> SliceTablesConfig:
    paths = {}
    for kind, text in texts.items():
        paths[kind] = folder / f"{kind}.csv"
        paths[kind].write_text(text, encoding="utf-8")
    return SliceTablesConfig(**paths)


def test_columns_of_own_tables_are_slices(tmp_path: Path) -> None:
    items = "item_id,price,colour\n000,1,red\n001,2,blue\n002,3,red\n003,4,red\n"
    users = "user_id,country\nu0,NL\nu2,BE\n"
    facts = facts_of([1] * 5, [0, 1, 2, 3, 4])
    price, colour, country = table_slices(tables_in(tmp_path, items=items, users=users), facts)
    assert (price.name, named(price)) == ("items: price", ["1", "2", "3", "4", NONE])
    assert (colour.name, named(colour)) == ("items: colour", ["red", "blue", "red", "red", NONE])
    assert (country.name, named(country)) == ("users: country", ["NL", NONE, "BE", NONE, NONE])


def test_a_parquet_table_with_numbers_as_ids(tmp_path: Path) -> None:
    pl.DataFrame({"user": [0, 1], "age": [20, 30]}).write_parquet(tmp_path / "users.parquet")
    facts = facts_of([1], [0, 0], user_ids=pa.array(["0", "1"]))
    [age] = table_slices(SliceTablesConfig(users=tmp_path / "users.parquet"), facts)
    assert named(age) == ["20", "30"]


def test_dates_are_cut_into_periods_and_nan_is_no_text(tmp_path: Path) -> None:
    rows = "".join(f"u{user},2024-01-0{user + 1},{'nan' if user == 0 else user}\n" for user in range(8))
    facts = facts_of([1], [0] * 9)
    joined, score = table_slices(tables_in(tmp_path, users=f"user_id,joined,score\n{rows}"), facts)
    assert joined.values[:2] == ("2024-01-01 to 2024-01-02", "2024-01-03 to 2024-01-04")
    assert (len(joined.values), named(joined)[8]) == (BINS + 1, NONE)
    assert score.values == ("1-2", "3-4", "5", "6-7", NONE)
    assert named(score)[0] == NONE


def test_what_a_table_cannot_be_used_for_is_said(tmp_path: Path) -> None:
    vectors = {"item_id": ["000"], "price": [1.5], "vector": [[0.1, 0.2]], "raw": [b"\xff"], "kept": [timedelta(1)]}
    pl.DataFrame(vectors).write_parquet(tmp_path / "items.parquet")
    tables = tables_in(tmp_path, users="user_id,age\n7,30\n").model_copy(update={"items": tmp_path / "items.parquet"})
    facts = facts_of([1], [0, 0])
    assert [one.name for one in table_slices(tables, facts)] == ["items: price", "users: age"]
    odd, unknown = table_findings(tables, facts)
    text = "No slice by vector, raw, kept of items.parquet: neither numbers nor dates nor texts."
    assert odd == {"severity": "info", "text": text}
    assert unknown["severity"] == "warning"
    assert unknown["text"] == (
        "users.csv has no row of any test user, so it gives no slices: its user_id is 7, the data's u0 ..."
    )
    assert table_findings(tables_in(tmp_path, users="user_id,age\nu1,30\n"), facts) == []


def test_a_table_of_other_users_is_a_finding_of_the_run(run: Run, tmp_path: Path) -> None:
    keys = run.evaluate(tables=tables_in(tmp_path, users="user_id,age\n7,30\n"), out=tmp_path)
    assert [finding["text"].partition(" has no row")[0] for finding in keys["findings"]][-1] == "users.csv"


@pytest.mark.parametrize(
    ("table", "tags", "said"),
    [
        ('user_id,tag,age\nu0,"great,1\nu1,12" wide,2\n', ['"great', '12" wide'], "(quote: none)"),
        ('user_id,tag,age\nu0,"19\\" disk",1\nu1,"a, b",2\n', ['19" disk', "a, b"], "escape: backslash"),
    ],
)
def test_odd_quotation_marks_of_a_table_are_read_and_told(
    tmp_path: Path, table: str, tags: list[str], said: str
) -> None:
    tables, facts = tables_in(tmp_path, users=table), facts_of([1, 1], [0, 1])
    slices = {one.name: one for one in table_slices(tables, facts)}
    assert set(slices) == {"users: tag", "users: age"}
    assert sorted(set(named(slices["users: tag"])) - {NONE}) == sorted(tags)
    assert said in table_findings(tables, facts)[0]["text"]


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("user_id,age\nu0,1,2\n", "users.csv:2: 3 columns; 2, as in the header"),
        ('user_id,age,x\nu0,"a, b",1\nu1,"open,2\nu2,b,3\n', "users.csv:3: a quotation mark that opens a field"),
    ],
)
def test_a_broken_table_is_named_by_line(tmp_path: Path, table: str, found: str) -> None:
    with pytest.raises(UserError, match=re.escape(found)):
        table_slices(tables_in(tmp_path, users=table), facts_of([1], [0]))


def test_an_id_with_two_rows_is_refused(tmp_path: Path) -> None:
    tables = tables_in(tmp_path, users="user_id,age\nu0,1\nu0,2\n")
    with pytest.raises(UserError, match=r"1 id has several rows, e\.g\. u0; one row per id"):
        table_slices(tables, facts_of([1], [0]))


def test_what_is_wrong_with_a_table_is_found_by_check(tmp_path: Path) -> None:
    (tmp_path / "users.xlsx").write_text("")
    tables = tables_in(tmp_path, items="sku,price\n1,2\n").model_copy(update={"users": tmp_path / "users.xlsx"})
    first, second = check_tables(tables, "my.yaml:3")
    assert (first.field, first.allowed) == ("evaluate.tables.items", "one of them called item_id or item")
    assert second.found.endswith("a file called *.xlsx")
    [absent] = check_tables(SliceTablesConfig(items=tmp_path / "absent.csv"), "my.yaml:3")
    assert "cannot be read" in absent.found
    (tmp_path / "scripted.yaml").write_text(SCRIPTED)
    [problem] = check(load(tmp_path, f"evaluate.tables.items={tmp_path / 'absent.csv'}"))
    assert problem.field == "evaluate.tables.items"


def test_a_changed_table_is_judged_anew(tmp_path: Path) -> None:
    (tmp_path / "scripted.yaml").write_text(SCRIPTED)
    [stage] = [stage for stage in STAGES if stage.name == "evaluate"]
    (tmp_path / "users.csv").write_text("user_id,age\nu0,1\n")
    pipeline = load(tmp_path, f"evaluate.tables.users={tmp_path / 'users.csv'}").pipeline
    before = stage.sources(pipeline)
    (tmp_path / "users.csv").write_text("user_id,age\nu0,2\n")
    assert stage.sources(pipeline) != before


def test_the_config_allows_exactly_the_slices_that_there_are() -> None:
    allowed = ProtocolConfig.model_fields["slices"].default
    assert set(GROUPINGS) == set(allowed) == set(get_args(SliceName))


def test_ids_in_a_column_with_gaps_are_whole_numbers(tmp_path: Path) -> None:
    pl.DataFrame({"user": [0.0, 1.0, None], "age": [20, 30, 40]}).write_parquet(tmp_path / "users.parquet")
    facts = replace(facts_of([1, 2], [0, 1]), user_ids=pa.array(["0", "1"]))
    tables = SliceTablesConfig(users=tmp_path / "users.parquet")
    assert table_findings(tables, facts) == []
