"""What filters drop is still known: never a negative of its user, whichever filter dropped it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter import schema
from msr_adapter.config.schema import (
    DataConfig,
    KCoreConfig,
    KuaiRecSourceConfig,
    LimitConfig,
    MovieLensSourceConfig,
    NegativesConfig,
    ProtocolConfig,
    RecBoleSourceConfig,
    SourceConfig,
    SplitConfig,
    SyntheticSourceConfig,
    TableSourceConfig,
)
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.filters import clean
from msr_adapter.data.interaction_log import Log, Parts, encode
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.errors import UserError
from tests.support.data_builders import Built, build_in, write_csv

LAST_OUT = SplitConfig(kind="leave-last-out")
Rated = tuple[str, str, int, float]


def rated_rows(users: int = 30, items: int = 40, length: int = 16, seed: int = 0) -> list[Rated]:
    """Return ``length`` distinct items for every user, half of them rated 1 and half 5, in any order."""
    rng = np.random.default_rng(seed)
    rows: list[Rated] = []
    for user in range(users):
        stars = rng.permutation([1.0, 5.0] * (length // 2)).tolist()
        for item, star in zip(rng.permutation(items)[:length], stars, strict=True):
            rows.append((f"u{user:02}", f"i{item:02}", 1_600_000_000 + 3600 * len(rows), star))
    return rows


def low_of(rows: Sequence[Rated]) -> set[tuple[str, str]]:
    """Return the (user, item) pairs that are rated low, of items that somebody likes: the others are nobody's item."""
    liked = {item for _, item, _, star in rows if star >= 4}
    return {(user, item) for user, item, _, star in rows if star < 4 and item in liked}


def table(folder: Path, rows: Sequence[Sequence[Any]], **more: Any) -> DataConfig:
    folder.mkdir(parents=True, exist_ok=True)
    log = write_csv(folder / "log.csv", ["user", "item", "timestamp", "rating"], rows)
    return DataConfig(source=TableSourceConfig(kind="table", interactions=log, min_rating=4), **more)


def negatives(built: Built) -> set[tuple[str, str]]:
    """Return the (user, negative) pairs of all splits."""
    users = {row["example_id"]: row["user_id"] for row in built.rows("examples")}
    return {(users[row["example_id"]], row["item_id"]) for row in built.rows("candidates") if not row["label"]}


def seen_table(built: Built) -> list[tuple[str, str]]:
    return [(row["user_id"], row["item_id"]) for row in built.rows("seen")]


def test_what_a_user_rated_low_is_no_negative_no_history_and_no_target(tmp_path: Path) -> None:
    rows = rated_rows()
    built = build_in(tmp_path, table(tmp_path, rows), LAST_OUT, negatives=20)
    low = low_of(rows)
    assert len(negatives(built)) > 600
    assert not negatives(built) & low
    users = {row["example_id"]: row["user_id"] for row in built.rows("examples")}
    targets = {(users[row["example_id"]], row["item_id"]) for row in built.rows("candidates") if row["label"]}
    histories = {(row["user_id"], item) for row in built.rows("examples") for item in row["history"]}
    assert not (targets | histories) & low
    assert seen_table(built) == sorted(low)
    assert built.counts["interactions_dropped_low_rating"] == sum(star < 4 for *_, star in rows)
    assert built.counts["pairs_seen_only"] == len(low)
    assert built.counts["interactions_read"] == len(rows)


SOURCES = ("table.csv", "table.jsonl", "table.parquet", "recbole", "movielens", "kuairec")


def source_of(kind: str, folder: Path, rows: Sequence[Rated]) -> SourceConfig:
    frame = pl.DataFrame(rows, schema=["user", "item", "time", "rating"], orient="row")
    if kind.startswith("table"):
        path = folder / kind
        {".csv": frame.write_csv, ".jsonl": frame.write_ndjson, ".parquet": frame.write_parquet}[path.suffix](path)
        return TableSourceConfig(kind="table", interactions=path, min_rating=4)
    if kind == "recbole":
        names = {"user": "user_id:token", "item": "item_id:token", "time": "timestamp:float", "rating": "rating:float"}
        frame.rename(names).write_csv(folder / "log.inter", separator="\t")
        return RecBoleSourceConfig(kind="recbole", interactions=folder / "log.inter", min_rating=4)
    if kind == "movielens":
        frame.rename({"user": "userId", "item": "movieId", "time": "timestamp"}).select(
            "userId", "movieId", "rating", "timestamp"
        ).write_csv(folder / "ratings.csv")
        movies = pl.DataFrame({"movieId": sorted({row[1] for row in rows})})
        movies.with_columns(title="movieId", genres=pl.lit("Drama")).write_csv(folder / "movies.csv")
        return MovieLensSourceConfig(kind="movielens", folder=folder, min_rating=4)
    names = {"user": "user_id", "item": "video_id", "time": "timestamp", "rating": "watch_ratio"}
    frame.rename(names).write_csv(folder / "small_matrix.csv")
    return KuaiRecSourceConfig(kind="kuairec", interactions=folder / "small_matrix.csv", min_watch_ratio=4)


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_with_a_threshold_keeps_what_is_below_it_as_seen(tmp_path: Path, kind: str) -> None:
    rows = rated_rows(users=12, items=30, length=12)
    built = build_in(tmp_path, DataConfig(source=source_of(kind, tmp_path, rows)), LAST_OUT, negatives=10)
    low = low_of(rows)
    assert set(seen_table(built)) == low
    assert not negatives(built) & low


def test_views_without_a_time_are_seen(tmp_path: Path) -> None:
    rows = [(user, item, "" if star < 4 else time, 1.0) for user, item, time, star in rated_rows()]
    header = ["user_id", "video_id", "timestamp", "watch_ratio"]
    source = KuaiRecSourceConfig(kind="kuairec", interactions=write_csv(tmp_path / "small_matrix.csv", header, rows))
    built = build_in(tmp_path, DataConfig(source=source), LAST_OUT, negatives=20)
    untimed = low_of(rated_rows())
    assert set(seen_table(built)) == untimed
    assert not negatives(built) & untimed
    assert built.counts["interactions_dropped_no_time"] == sum(time == "" for _, _, time, _ in rows)


@pytest.mark.parametrize("kind", ["uniform", "popularity", "popularity-matched", "same-category", "hard", "all"])
def test_no_kind_of_negative_is_something_seen(tmp_path: Path, kind: str) -> None:
    rows = rated_rows()
    low = low_of(rows)
    data = table(tmp_path, rows)
    items = write_csv(
        tmp_path / "items.csv", ["item", "title", "category"], [(f"i{n:02}", "x", "one") for n in range(40)]
    )
    scores = write_csv(tmp_path / "scores.csv", ["user_id", "item_id", "score"],
                       [(f"u{u:02}", f"i{n:02}", 1 / (1 + n)) for u in range(30) for n in range(40)])  # fmt: skip
    given_scores = {"scores": scores} if kind == "hard" else {}
    wanted = NegativesConfig(kind=kind, count=8, pool=40, **given_scores)
    data = data.model_copy(update={"source": data.source.model_copy(update={"items": items})})
    built = build_in(tmp_path, data, LAST_OUT, ProtocolConfig(name="test", negatives=wanted))
    assert len(negatives(built)) >= 200
    assert not negatives(built) & low


def test_lists_of_a_file_may_not_hold_what_was_rated_low(tmp_path: Path) -> None:
    rows = rated_rows(users=6, items=30, length=12)
    built = build_in(tmp_path, table(tmp_path, rows), LAST_OUT, negatives=5)
    test = {row["example_id"]: row["user_id"] for row in built.rows("examples") if row["split"] == "test"}
    lists = [(test[row["example_id"]], row["item_id"], row["label"])
             for row in built.rows("candidates") if row["example_id"] in test]  # fmt: skip
    user, item = min(low_of(rows))
    path = tmp_path / "lists.parquet"
    pl.DataFrame([*lists, (user, item, 0)], schema=["user_id", "item_id", "label"], orient="row").write_parquet(path)
    protocol = ProtocolConfig(name="test", candidates=path, negatives=NegativesConfig(count=5))
    with pytest.raises(UserError, match=f"the user '{user}' interacted with the negative '{item}'"):
        build_in(tmp_path / "again", table(tmp_path / "again", rows), LAST_OUT, protocol)


def test_too_few_unseen_items_are_told_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"20 negatives .* dropped count as seen\); at most 14 for these users"):
        build_in(tmp_path, table(tmp_path, rated_rows(items=30)), LAST_OUT, negatives=20)


def test_a_pair_that_is_rated_twice_is_history_once_it_is_rated_well(tmp_path: Path) -> None:
    rows = [(f"u{n}", item, 10 * n + place, star) for n in range(4) for place, (item, star) in enumerate(
        [("a", 1), ("b", 5), ("a", 5), ("c", 5), ("d", 5), ("b", 1), ("e", 1)])]  # fmt: skip
    rows += [("v", item, 99, 5) for item in "efghij"]
    built = build_in(tmp_path, table(tmp_path, rows), LAST_OUT, negatives=2)
    assert seen_table(built) == [(f"u{n}", "e") for n in range(4)]
    test = next(row for row in built.rows("examples") if row["split"] == "test" and row["user_id"] == "u0")
    assert test["history"] == ["b", "a", "c"]


def test_users_and_items_that_are_only_rated_low_are_counted_out(tmp_path: Path) -> None:
    rows = [
        *rated_rows(users=10, items=20, length=10),
        ("grump", "i00", 5, 1),
        ("grump", "i01", 6, 2),
        ("u00", "bad", 7, 1),
    ]
    built = build_in(tmp_path, table(tmp_path, rows), LAST_OUT, negatives=5)
    counts = built.counts
    assert (counts["users_read"], counts["users_dropped_row_filter"], counts["users_kept"]) == (11, 1, 10)
    assert counts["items_dropped_row_filter"] == len({row[1] for row in rows} - {row[1] for row in rows if row[3] >= 4})
    assert "bad" not in {row["item_id"] for row in built.rows("items")}
    known = {row["item_id"] for row in built.rows("items")}
    assert {item for user, item in seen_table(built) if user == "grump"} == {"i00", "i01"} & known


def test_what_the_core_and_the_limits_drop_of_users_is_seen(tmp_path: Path) -> None:
    rows = [
        *rated_rows(users=20, items=24, length=12),
        *[("short", f"i{n:02}", 1_600_000_000 + n, 5) for n in range(3)],
    ]
    data = table(tmp_path, rows, k_core=KCoreConfig(users=5), limit=LimitConfig(users=8))
    built = build_in(tmp_path, data, LAST_OUT, negatives=5)
    kept = {(row["user_id"], row["item_id"]) for row in built.rows("interactions")}
    known = {row["item_id"] for row in built.rows("items")}
    everything = {(user, item) for user, item, *_ in rows if item in known}
    assert set(seen_table(built)) == everything - kept
    assert {user for user, _ in seen_table(built)} >= {"short", *(f"u{n:02}" for n in range(20))}
    assert not negatives(built) & everything


def test_without_a_filter_nothing_is_seen_beside_the_log(tmp_path: Path) -> None:
    rows = [(user, item, time, 5) for user, item, time, _ in rated_rows()]
    built = build_in(tmp_path, table(tmp_path, rows), LAST_OUT, negatives=5)
    assert seen_table(built) == []
    assert schema.read_table(built.out / "seen.parquet", schema.SEEN).num_rows == 0


def test_the_order_of_rows_and_a_threshold_that_drops_nothing_change_no_list(tmp_path: Path) -> None:
    rows = rated_rows()
    one = build_in(tmp_path / "1", table(tmp_path / "1", rows), LAST_OUT, negatives=8)
    two = build_in(tmp_path / "2", table(tmp_path / "2", rows[::-1]), LAST_OUT, negatives=8)
    assert one.rows("candidates") == two.rows("candidates")
    assert one.rows("seen") == two.rows("seen")


Marked = tuple[str, str, int, str | None]


@st.composite
def marked_logs(draw: st.DrawFn) -> list[Marked]:
    reasons = st.sampled_from([None, None, "low_rating", "no_time"])
    row = st.tuples(st.integers(0, 6), st.integers(0, 8), reasons)
    rows = draw(st.lists(row, min_size=1, max_size=50))
    return [(f"u{user}", f"i{item}", 10 * place, reason) for place, (user, item, reason) in enumerate(rows)]


@settings(deadline=None)
@given(rows=marked_logs(), users=st.integers(1, 3), items=st.integers(1, 3), drawn=st.integers(1, 7),
       popular=st.integers(2, 9), known=st.integers(1, 9), shard=st.integers(1, 9))  # fmt: skip
def test_rows_and_seen_pairs_together_are_all_that_anybody_saw_of_the_catalogue(
    rows: list[Marked], users: int, items: int, drawn: int, popular: int, known: int, shard: int
) -> None:
    corpus = marked_corpus(rows, known)
    config = DataConfig(source=SyntheticSourceConfig(kind="synthetic"), k_core=KCoreConfig(users=users, items=items),
                        limit=LimitConfig(users=drawn, items=popular))  # fmt: skip
    audit = Audit()
    try:
        log = clean(encode(corpus, audit, parts=Parts(shard, shard)), corpus, config, 0, audit)
    except UserError:
        return
    kept, seen, catalogue = pairs(log), seen_pairs(log), set(log.items)
    assert not kept & seen
    assert kept | seen == {(user, item) for user, item, *_ in rows if item in catalogue}
    assert kept <= {(user, item) for user, item, _, reason in rows if reason is None}
    counted = np.bincount([log.users.to_list().index(user) for user, _ in kept | seen if user in set(log.users)],
                          minlength=len(log.users))  # fmt: skip
    assert log.seen_counts().tolist() == counted.tolist()
    for noun, left in (("interactions", len(log.user)), ("users", len(log.users)), ("items", len(log.items))):
        dropped = sum(n for name, n in audit.counts.items() if name.startswith(f"{noun}_dropped_"))
        assert audit.counts[f"{noun}_read"] - dropped == audit.counts[f"{noun}_kept"] == left


def marked_corpus(rows: list[Marked], known: int) -> Corpus:
    columns = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "filtered": pl.String}
    frame = pl.DataFrame(rows, schema=columns, orient="row")
    return Corpus(frame.lazy(), pl.DataFrame({"item_id": [f"i{n}" for n in range(known)], "title": ""}))


def pairs(log: Log) -> set[tuple[str, str]]:
    return {(log.users[user], log.items[item]) for user, item in zip(log.user.tolist(), log.item.tolist(), strict=True)}


def seen_pairs(log: Log) -> set[tuple[str, str]]:
    if log.seen is None:
        return set()
    codes = zip(log.seen.user.tolist(), log.seen.item.tolist(), strict=True)
    return {(log.seen.users[user], log.items[item]) for user, item in codes}
