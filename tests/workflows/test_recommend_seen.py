"""`msr recommend` and what filters dropped: seen, so never recommended; no history, so never read by a model."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter import schema
from msr_adapter.config.schema import (
    ColumnsConfig,
    KuaiRecSourceConfig,
    MovieLensSourceConfig,
    RecBoleSourceConfig,
    SourceConfig,
    TableSourceConfig,
)
from msr_adapter.data.id_list_files import read_later_interactions
from msr_adapter.errors import UserError
from msr_adapter.workflows.recommend.histories import read_seen
from tests.support.recommending import Asked, items_of, order, own_run, rows, trained, write, write_rated
from tests.support.summaries import Lines

ITEMS = "abcdefghijklmnopqrst"
DAY, START = 86_400, 1_700_000_000
YAML = """\
name: scripted
data:
  source: {kind: table, interactions: log.csv, items: items.csv, min_rating: 4}
  k_core: {users: 4}
split: {fractions: [0.5, 0.2, 0.3], max_history: 3}
summarize:
  items: {model: &model {path: nobody, backend: scripted}}
  users: {model: *model, block: 2}
train: {model: *model}
evaluate: {protocol: next-item, baselines: [popularity]}
"""
LIKED = {f"u{user}": [ITEMS[(2 * user + place) % 20] for place in (0, 1, 2, 5, 6)] for user in range(12)}
LOW = {f"u{user}": [ITEMS[(2 * user + place) % 20] for place in (3, 4, 7, 8, 9)] for user in range(12)}
SHORT = {"short": ["a", "b", "c"], "grump": []}
"""Too few for the core, and nothing liked at all."""
SHORT_LOW = {"short": ["d"], "grump": ["a", "b", "e", "f", "g"]}


def seen_by(user: str) -> set[str]:
    return {*{**LIKED, **SHORT}[user], *{**LOW, **SHORT_LOW}[user]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pipeline that was "trained" on rows rated 4 and more."""
    folder = tmp_path_factory.mktemp("rated")
    log: list[tuple[object, ...]] = []
    for liked, low in ((LIKED, LOW), (SHORT, SHORT_LOW)):
        for user in liked:
            log += [(user, item, START + DAY * (len(log) + place), 5) for place, item in enumerate(liked[user])]
            log += [(user, item, START + DAY * (len(log) + place), 1) for place, item in enumerate(low[user])]
    write_rated(folder, YAML, log, ITEMS)
    with trained(folder):
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A folder with a run of its own."""
    return own_run(finished, tmp_path)


def unseen(user: str, *more: str) -> set[str]:
    return set(ITEMS) - seen_by(user) - set(more)


def blocks(asked: Asked) -> set[tuple[str, ...]]:
    """Return the items of each block of a history that a model was asked to read, in their order."""
    texts = [request.prompt.splitlines() for request in asked.texts if "chose" in request.prompt]
    return {
        tuple(line.split(" - ")[0].rpartition("Title ")[2] for line in text if line[:1].isdigit()) for text in texts
    }


@pytest.mark.parametrize("kind", ["popular:20", "item-knn:20", "all", "items", "pairs"])
def test_what_was_rated_low_is_not_recommended(folder: Path, kind: str) -> None:
    if kind == "items":
        kind = str(write(folder / "items.csv", ["item_id"], [[item] for item in ITEMS]))
    if kind == "pairs":
        pairs = [(user, item) for user in LIKED for item in ITEMS]
        kind = str(write(folder / "pairs.csv", ("user_id", "item_id"), pairs))
    order(folder, candidates=kind, top=20)
    for user in LIKED:
        assert set(items_of(folder, user)) == unseen(user)
    assert {row["history_items"] for row in rows(folder)} == {5}


def test_include_seen_means_that_too(folder: Path) -> None:
    order(folder, candidates="all", top=20, include_seen=True)
    assert all(set(items_of(folder, user)) == set(ITEMS) for user in LIKED)


def test_no_model_reads_what_was_rated_low(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    (folder / "who.txt").write_text("u3\n")
    order(folder, ["summarize.users.mode=direct"], users=folder / "who.txt")
    assert tuple(LIKED["u3"][-3:]) in blocks(asked)


def test_users_whom_the_core_dropped_and_who_like_nothing_get_what_is_popular_and_new_to_them(folder: Path) -> None:
    (folder / "who.txt").write_text("short\ngrump\nu1\n")
    lines = Lines()
    counts = order(folder, users=folder / "who.txt", candidates="all", top=20, reporter=lines)
    for user in ("short", "grump"):
        assert set(items_of(folder, user)) == unseen(user)
    assert {row["ranked_by"] for row in rows(folder) if row["user_id"] != "u1"} == {"popularity"}
    assert (counts["users_only_seen"], counts["unknown_users"], counts["users_without_history"]) == (2, 0, 2)
    assert "2 users have no history (2 of them have rows that a filter drops: those items count as seen)" in lines.text


def test_users_who_were_not_drawn_are_known_too(folder: Path) -> None:
    (folder / "who.txt").write_text("\n".join(LIKED))
    counts = order(folder, ["data.limit.users=9"], users=folder / "who.txt", candidates="all", top=20)
    assert counts["users_only_seen"] == 3
    catalogue = set(schema.read_table(folder / "run" / "data" / "items.parquet", schema.ITEMS)["item_id"].to_pylist())
    assert all(set(items_of(folder, user)) == unseen(user) & catalogue for user in LIKED)


def test_strangers_are_still_an_error(folder: Path) -> None:
    (folder / "who.txt").write_text("short\nstranger\n")
    with pytest.raises(UserError, match="1 of 2 users are not in the log: stranger"):
        order(folder, users=folder / "who.txt")


def later(folder: Path, log: list[tuple[object, ...]], header: str = "user,item,timestamp,rating") -> Path:
    return write(folder / "later.csv", header.split(","), log)


def test_later_rows_below_the_threshold_are_seen_and_no_history(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    new = sorted(unseen("u0"))[:3]
    log = [("u0", new[0], START * 2, 5), ("u0", new[1], START * 2, 1), ("u0", new[2], START * 2, 3.5)]
    lines = Lines()
    order(folder, interactions=later(folder, log), candidates="all", top=20, reporter=lines)
    assert set(items_of(folder, "u0")) == unseen("u0", *new)
    assert {row["history_items"] for row in rows(folder) if row["user_id"] == "u0"} == {6}
    assert (
        "1 of 3 interactions are new, of 1 users, 0 of them new; 0 were known, 2 are only seen (a filter drops them)"
        in (lines.text)
    )
    assert "2 interactions of later.csv rated below 4" in lines.text
    assert (LIKED["u0"][-1], new[0]) in blocks(asked)


def test_later_rows_may_all_be_below_the_threshold(folder: Path) -> None:
    new = sorted(unseen("u5"))
    log = [("u5", new[0], START * 2, 1), ("newbie", "a", START * 2, 1), ("newbie", "b", START * 2, 2)]
    counts = order(folder, interactions=later(folder, log), candidates="all", top=20)
    assert set(items_of(folder, "u5")) == unseen("u5", new[0])
    assert counts["users"] == len(LIKED)  # nobody without a history, unless asked for
    (folder / "who.txt").write_text("newbie\n")
    counts = order(folder, users=folder / "who.txt", interactions=folder / "later.csv", candidates="all", top=20)
    assert set(items_of(folder, "newbie")) == set(ITEMS) - {"a", "b"}
    assert (counts["users_only_seen"], counts["unknown_users"]) == (1, 0)


def test_an_item_that_is_liked_later_becomes_history(folder: Path) -> None:
    item = LOW["u2"][0]
    order(folder, interactions=later(folder, [("u2", item, START * 2, 5)]), candidates="all", top=20)
    assert set(items_of(folder, "u2")) == unseen("u2")
    assert {row["history_items"] for row in rows(folder) if row["user_id"] == "u2"} == {6}


def test_a_user_whom_the_core_dropped_comes_back_with_a_history_and_all_that_was_seen(folder: Path) -> None:
    log = [("short", item, START * 2, 5) for item in "pqr"]
    order(folder, interactions=later(folder, log), candidates="item-knn:20", top=20)
    assert set(items_of(folder, "short")) == unseen("short", *"pqr")
    assert {row["history_items"] for row in rows(folder) if row["user_id"] == "short"} == {3}
    assert {row["ranked_by"] for row in rows(folder)} == {"model"}


def test_a_later_file_without_ratings_is_all_history_and_that_is_told(folder: Path) -> None:
    new = sorted(unseen("u0"))[0]
    lines = Lines()
    path = later(folder, [("u0", new, START * 2)], "user,item,timestamp")
    order(folder, interactions=path, candidates="all", top=20, reporter=lines)
    assert "later.csv has no column of ratings" in lines.text
    assert "data.source.min_rating" in lines.text
    assert new not in items_of(folder, "u0")


def test_a_later_file_without_an_item_of_the_catalogue_is_refused_whatever_its_ratings(folder: Path) -> None:
    path = later(folder, [("u0", "zzz", START * 2, 1), ("u0", "yyy", START * 2, 5)])
    with pytest.raises(UserError, match="none of its 2 rows has an item of the catalogue"):
        order(folder, interactions=path)


@pytest.mark.parametrize(
    ("source", "header"),
    [
        (TableSourceConfig(kind="table", interactions=Path("x"), min_rating=4,
                           columns=ColumnsConfig(rating="points")), "user,item,timestamp,points"),
        (TableSourceConfig(kind="table", interactions=Path("x"), min_rating=4), "user_id,item_id,time,stars"),
        (MovieLensSourceConfig(kind="movielens", folder=Path("x"), min_rating=4), "userId,movieId,timestamp,rating"),
        (RecBoleSourceConfig(kind="recbole", interactions=Path("x"), min_rating=4,
                             columns=ColumnsConfig(rating="mark:float")), "user,item,timestamp,mark:float"),
        (KuaiRecSourceConfig(kind="kuairec", interactions=Path("x"), min_watch_ratio=4),
         "user_id,video_id,timestamp,watch_ratio"),
    ],
    ids=["named", "alias", "movielens", "recbole", "kuairec"],
)  # fmt: skip
def test_later_rows_are_held_against_the_threshold_of_every_kind_of_source(
    tmp_path: Path, source: SourceConfig, header: str
) -> None:
    frame, audit = read_later_interactions(later(tmp_path, [("u", "a", 1, 5), ("u", "b", 2, 3)], header), "-", source)
    assert frame["filtered"].to_list() == [None, "low_rating"]
    assert any("1 interaction of later.csv rated below 4" in finding["text"] for finding in audit.findings)
    without = source.model_copy(update={"min_rating": None, "min_watch_ratio": None})
    frame, _ = read_later_interactions(tmp_path / "later.csv", "-", without)
    assert frame.columns == ["user_id", "item_id", "timestamp"]


def test_later_rows_without_a_time_are_only_seen_where_the_source_drops_such_rows(tmp_path: Path) -> None:
    source = KuaiRecSourceConfig(kind="kuairec", interactions=Path("x"))
    path = later(tmp_path, [("u", "a", START), ("u", "b", "")], "user_id,video_id,timestamp")
    frame, audit = read_later_interactions(path, "-", source)
    assert frame["filtered"].to_list() == [None, "no_time"]
    assert any("without a time" in finding["text"] for finding in audit.findings)


NAMES = [f"u{n}" for n in range(9)] + ["é", "zz", ""]


@settings(deadline=None)
@given(
    pairs=st.sets(st.tuples(st.sampled_from(NAMES[:-1]), st.sampled_from(ITEMS))),
    asked=st.lists(st.sampled_from(NAMES[:-1]), unique=True),
    more=st.lists(st.tuples(st.sampled_from(NAMES[:-1]), st.integers(0, 19))),
    part=st.integers(1, 5),
)
def test_seen_pairs_are_those_of_the_table_and_of_later_rows(
    tmp_path_factory: pytest.TempPathFactory, pairs: set[tuple[str, str]], asked: list[str],
    more: list[tuple[str, int]], part: int,
) -> None:  # fmt: skip
    import polars as pl

    folder, items = tmp_path_factory.mktemp("seen"), pa.array(list(ITEMS))
    table = pa.Table.from_pylist([{"user_id": user, "item_id": item} for user, item in sorted(pairs)], schema.SEEN)
    chunks = [table.slice(begin, part) for begin in range(0, len(table), part)] or [table]
    schema.write_chunks(chunks, schema.SEEN, folder / "seen.parquet")
    columns: dict[str, Any] = {"user_id": pl.String, "code": pl.Int32}
    later_rows = pl.DataFrame(more, schema=columns, orient="row")
    found = read_seen(folder, pa.array(asked, pa.string()), items, later_rows)
    for number, user in enumerate(asked):
        mine = {ITEMS.index(item) for other, item in pairs if other == user} | {n for other, n in more if other == user}
        assert found.of(number).tolist() == sorted(mine)
    assert found.counts().tolist() == np.diff(found.offsets).tolist()
