"""`msr recommend` around the model: who gets a list, of what, in which order; the model answers by script."""

import contextlib
import csv
import errno
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msr_adapter import schema
from msr_adapter.data.id_list_files import read_user_ids
from msr_adapter.errors import StageError, UserError
from msr_adapter.progress import Reporter
from msr_adapter.workflows.recommend import RecommendRequest, output, user_shards
from msr_adapter.workflows.recommend.output import writing
from msr_adapter.workflows.recommend.workflow import recommend
from tests.support.recommending import (
    DAY,
    ITEMS,
    START,
    TAKEN,
    Asked,
    items_of,
    load,
    order,
    own_run,
    rows,
    trained,
    write,
    write_pipeline,
)
from tests.support.summaries import Lines


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    write_pipeline(folder)
    with trained(folder):
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return own_run(finished, tmp_path)


def by_popularity(histories: dict[str, list[str]] = TAKEN) -> list[str]:
    counts = Counter(item for items in histories.values() for item in items)
    return sorted(ITEMS, key=lambda item: (-counts[item], item))


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def test_lists_are_the_popular_unseen_items_in_the_order_of_the_models_odds(folder: Path) -> None:
    counts = order(folder)
    found = rows(folder)
    assert [row["user_id"] for row in found[::3]] == sorted(TAKEN)
    assert (counts["users"], counts["rows"], counts["scored"]) == (
        10,
        30,
        sum(10 - len(taken) for taken in TAKEN.values()),
    )
    for user, taken in TAKEN.items():
        mine = [row for row in found if row["user_id"] == user]
        candidates = [item for item in by_popularity() if item not in taken]
        assert [row["rank"] for row in mine] == [1, 2, 3]
        assert [candidates[row["retrieval_rank"] - 1] for row in mine] == [row["item_id"] for row in mine]
        odds = [row["logit"] for row in mine]
        assert odds == sorted(odds, reverse=True)
        assert all(row["title"] == f"Title {row['item_id']}" for row in mine)
        assert {(row["ranked_by"], row["retrieved_by"], row["history_items"]) for row in mine} == {
            ("model", "popular", len(taken))
        }


def test_a_lists_first_items_are_the_best_of_all_candidates(folder: Path) -> None:
    order(folder, top=6)
    whole = {user: items_of(folder, user) for user in TAKEN}
    assert order(folder)["scores"] == {
        "computed": 0,
        "cached": 51,
        "tokens_in": 1530,
        "prompts_over_cutoff": 0,
        "bounded": 0,
    }
    assert {user: items_of(folder, user) for user in TAKEN} == {user: items[:3] for user, items in whole.items()}


def test_the_model_reads_all_that_a_user_took_block_by_block(folder: Path, asked: Asked) -> None:
    order(folder)
    # The split keeps the last 3 items before the target; here nothing is held out and nothing is cut off.
    texts = [request.prompt for request in asked.texts if "Title " in request.prompt]
    blocks = {tuple(part.split(" - ")[0].rpartition("Title ")[2] for part in text.splitlines() if part[:1].isdigit())
              for text in texts}  # fmt: skip
    assert {tuple(taken[4:]) for taken in TAKEN.values()} <= blocks
    assert all("so far: A summary" in text for text in texts if text.count("Title ") == 1 and "chose" in text)


def test_items_that_no_split_has_in_a_history_are_described_first(folder: Path, asked: Asked) -> None:
    counts = order(folder)
    examples = schema.read_table(folder / "run" / "data" / "examples.parquet", schema.EXAMPLES)
    told = {item for history in examples["history"].to_pylist() for item in history}
    new = {item for taken in TAKEN.values() for item in taken} - told
    assert counts["item_summaries"]["requests"] == len(new) > 0
    described = [request.prompt for request in asked.texts if "Describe this item" in request.prompt]
    assert len(described) == len(new)  # the others are in the items stage
    for item in new:
        assert any(f"Title {item} - A summary" in request.prompt for request in asked.texts)


def test_what_a_user_has_is_recommended_only_when_asked_for(folder: Path) -> None:
    order(folder, candidates="all", top=10)
    assert all(set(items_of(folder, user)) == set(ITEMS) - set(taken) for user, taken in TAKEN.items())
    counts = order(folder, candidates="all", top=10, include_seen=True)
    assert all(set(items_of(folder, user)) == set(ITEMS) for user in TAKEN)
    assert (counts["short_lists"], counts["rows"]) == (0, 100)


def test_short_lists_and_users_who_have_everything_are_counted(folder: Path) -> None:
    (folder / "items.txt").write_text("\n".join(TAKEN["u0"]))
    lines = Lines()
    counts = order(folder, candidates=str(folder / "items.txt"), reporter=lines)
    left = {user: set(TAKEN["u0"]) - set(taken) for user, taken in TAKEN.items()}
    # u0, u1 and u2 have all four; those who start at "b" or "c" have three or two of them.
    assert [user for user, items in left.items() if not items] == ["u0", "u1"]
    assert (counts["users_without_candidates"], counts["short_lists"]) == (2, sum(len(x) < 3 for x in left.values()))
    assert "2 of them none" in lines.text
    assert "what they already have is not recommended" in lines.text
    assert all(set(items_of(folder, user)) <= items for user, items in left.items())


def test_a_list_is_not_called_short_for_what_is_seen_where_that_is_included(folder: Path) -> None:
    (folder / "items.txt").write_text("\n".join(TAKEN["u0"][:2]))
    for candidates, said in (
        (str(folder / "items.txt"), "items.txt has no more"),
        ("all", "the catalogue has no more"),
    ):
        lines = Lines()
        counts = order(folder, candidates=candidates, top=99, include_seen=True, reporter=lines)
        assert counts["short_lists"] == counts["users"]
        assert said in lines.text
        assert "not recommended" not in lines.text


def test_equal_odds_keep_the_order_of_retrieval(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.backends.scripted._logprobs", lambda request: (-1.0, -1.0))
    order(folder, top=4)
    for user, taken in TAKEN.items():
        assert items_of(folder, user) == [item for item in by_popularity() if item not in taken][:4]


def test_shards_change_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order(folder)
    whole = rows(folder)
    monkeypatch.setattr(user_shards, "GROUP", 3)
    monkeypatch.setattr(user_shards, "PAIRS", 7)
    assert order(folder)["scores"]["computed"] == 0
    assert rows(folder) == whole
    assert not (folder / "run" / ".recommend.partial").exists()


def test_users_come_in_the_order_of_their_file(folder: Path) -> None:
    write(folder / "who.csv", ("uid", "note"), [("u7", "x"), ("u1", "y"), ("u7", "z")])
    counts = order(folder, users=folder / "who.csv")
    assert counts["users"] == 2
    assert [row["user_id"] for row in rows(folder)[::3]] == ["u7", "u1"]


@pytest.mark.parametrize(("name", "content"), [
    ("who.txt", "u3\nu1\n"), ("who.txt", "user_id\nu3\n\nu1\n"), ("who.csv", "u3\nu1\n"),
    ("who.tsv", "user\tage\nu3\t1\nu1\t2\n"),
    ("who.jsonl", '{"user_id": "u3"}\n{"user_id": "u1"}\n'),
])  # fmt: skip
def test_users_files(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_user_ids(tmp_path / name, "--users").to_list() == ["u3", "u1"]


def test_unknown_users_get_popular_items_when_asked_for(folder: Path, asked: Asked) -> None:
    (folder / "who.txt").write_text("stranger\nu0\n")
    lines = Lines()
    counts = order(folder, users=folder / "who.txt", unknown_users="fallback", reporter=lines)
    strange = rows(folder)[:3]
    assert [row["item_id"] for row in strange] == by_popularity()[:3]
    assert {
        (row["user_id"], row["ranked_by"], row["score"], row["logit"], row["history_items"]) for row in strange
    } == {("stranger", "popularity", None, None, 0)}
    assert (counts["unknown_users"], counts["users_without_history"], counts["scored"]) == (1, 1, 6)
    assert "1 user has no history; without one, the most popular candidates are recommended" in lines.text
    assert len(asked.scored) == 6


def test_a_list_of_items_is_reranked_for_everybody_and_pairs_for_their_users(folder: Path) -> None:
    write(folder / "items.txt", ("item_id",), [(item,) for item in "jia"])
    order(folder, candidates=str(folder / "items.txt"), top=3)
    assert {row["retrieved_by"] for row in rows(folder)} == {"file"}
    assert set(items_of(folder, "u9")) == set("jia") - set(TAKEN["u9"])
    pairs = [("u0", "h"), ("u0", "i"), ("u3", "a"), ("u0", "a"), ("u5", "a")]
    write(folder / "pairs.csv", ("user_id", "item_id"), pairs)
    (folder / "who.txt").write_text("u3\nu0\n")
    lines = Lines()
    order(folder, users=folder / "who.txt", candidates=str(folder / "pairs.csv"), reporter=lines)
    assert (rows(folder)[0]["user_id"], items_of(folder, "u3")) == ("u3", ["a"])
    assert set(items_of(folder, "u0")) == {"h", "i"}  # "a" is what the user has
    assert "1 candidate pair of users who were not asked for: left out" in lines.text


def test_neighbours_are_those_of_the_history_and_popular_items_fill_up(folder: Path) -> None:
    order(folder, candidates="item-knn:6", top=6)
    found = rows(folder)
    assert {row["retrieved_by"] for row in found} == {"item-knn", "popular"}
    # By hand: "a" was taken by u0 and u1 alone, with b, c, d (and u1's e), so for u0 the nearest new item is e.
    mine = {row["item_id"]: row for row in found if row["user_id"] == "u0"}
    assert min(mine, key=lambda item: mine[item]["retrieval_rank"]) == "e"
    taken = {user: set(items) for user, items in TAKEN.items()}
    together = {item for user in taken.values() if user & taken["u0"] for item in user}
    assert {item for item, row in mine.items() if row["retrieved_by"] == "item-knn"} == together - taken["u0"]


def test_later_interactions_ask_for_new_blocks_alone(folder: Path, asked: Asked) -> None:
    order(folder)
    asked.texts.clear()
    later = [("u0", "j", START + DAY * 1000), ("u2", "a", START + DAY * 1000), ("new", "c", START + DAY * 1000),
             ("u0", "a", START + DAY * 1001), ("u0", "zzz", START + DAY * 1002)]  # fmt: skip
    write(folder / "later.csv", ("user", "item", "timestamp"), later)
    lines = Lines()
    counts = order(folder, interactions=folder / "later.csv", reporter=lines)
    # u0 had four items, two blocks of two: one more. u2 had six: one more. The new user has one.
    assert len(asked.texts) == 3
    assert counts["users"] == 11
    assert rows(folder)[-1]["user_id"] == "new"
    assert "j" not in items_of(folder, "u0")
    assert rows(folder)[0]["history_items"] == 5
    said = (
        "3 of 5 interactions are new, of 3 users, 1 of them new; 1 were known, 1 left out (items not in the catalogue"
    )
    assert said in lines.text
    assert "steps of user summaries (26 cached)" in lines.text


def test_later_interactions_older_than_known_ones_are_sorted_in(folder: Path) -> None:
    write(folder / "later.csv", ("user", "item", "timestamp"), [("u0", "j", START - DAY)])
    lines = Lines()
    order(folder, interactions=folder / "later.csv", reporter=lines)
    assert "1 of them are older than what their users had already" in lines.text
    assert "j" not in items_of(folder, "u0")


def test_other_formats_hold_the_same(folder: Path) -> None:
    order(folder)
    order(folder, out=folder / "recs.jsonl")
    assert [json.loads(line) for line in (folder / "recs.jsonl").read_text().splitlines()] == rows(folder)
    order(folder, out=folder / "recs.csv")
    with (folder / "recs.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [(row["user_id"], int(row["rank"]), row["item_id"], float(row["score"])) for row in read] == [
        (row["user_id"], row["rank"], row["item_id"], row["score"]) for row in rows(folder)
    ]


def test_wrong_files_are_told_at_once_before_anything_runs(folder: Path) -> None:
    wanted = RecommendRequest(
        folder / "absent.csv", "popular", 3, folder / "recs.xlsx", interactions=folder / "nolog.csv"
    )
    with pytest.raises(UserError) as caught:
        recommend(load(folder / "pipeline", folder / "none"), wanted, Reporter(quiet=True))
    text = str(caught.value)
    assert len(caught.value.problems) == 4
    for part in ("recs.xlsx: unknown kind of file", "absent.csv --users: no such file", "nolog.csv --interactions",
                 "'popular' is not a file; a file, popular:N, item-knn:N, embedding:N, fused:N or all. "
                 "Write popular:200",
                 ):  # fmt: skip
        assert part in text
    assert not (folder / "none").exists()


def test_unknown_ids_are_told_at_once_before_a_model_is_asked(folder: Path, asked: Asked) -> None:
    (folder / "who.txt").write_text("u0\nnobody\nnoone\n")
    write(folder / "pairs.csv", ("user", "item"), [("u0", "a"), ("u0", "zzz"), ("nobody", "b")])
    with pytest.raises(UserError) as caught:
        order(folder, users=folder / "who.txt", candidates=str(folder / "pairs.csv"))
    assert [problem.found for problem in caught.value.problems] == [
        "2 of 3 users are not in the log: nobody, noone",
        "1 of 3 items are not in the catalogue: zzz",
        "1 of 3 users have no candidates: noone",
    ]
    assert not (folder / "recs.parquet").exists()
    assert not asked.texts
    assert not asked.scored


def test_unknown_ids_that_are_there_in_another_form_are_told(folder: Path) -> None:
    (folder / "who.txt").write_text("u0\nU1\n\u200bu2\n")
    write(folder / "pairs.csv", ("user", "item"), [("u0", "a"), ("u0", "B")])
    with pytest.raises(UserError) as caught:
        order(folder, users=folder / "who.txt", candidates=str(folder / "pairs.csv"))
    users, items = (problem.next_step for problem in caught.value.problems[:2])
    assert users.startswith("2 of them appear in another form ('U1' and 'u1', '\\u200bu2' and 'u2') in the log: ")
    assert items.startswith(
        "1 of them appears in another form ('B' and 'b') in the catalogue: they differ in case, so "
    )


@pytest.mark.parametrize(("name", "content", "said"), [
    ("who.csv", "name,age\nx,1\n", "no column for the user"), ("who.csv", "user,age\nu1,1\n,2\n", "user: empty; an id"),
    ("who.txt", "user_id\n", "no ids"), ("who.xls", "u1", "unknown kind of file"),
])  # fmt: skip
def test_damaged_lists_of_users(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        read_user_ids(tmp_path / name, "--users")


def test_fewer_candidates_than_places_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="fewer candidates than --top 3"):
        order(folder, candidates="popular:2")


@pytest.mark.parametrize("mode", ["none", "direct"])
def test_other_modes_read_as_much_as_training_did(folder: Path, asked: Asked, mode: str) -> None:
    order(folder, [f"summarize.users.mode={mode}", "summarize.items.mode=none"])
    told = asked.scored if mode == "none" else [request for request in asked.texts if "chose" in request.prompt]
    last = {request.prompt.count("Title ") - (mode == "none") for request in told}
    assert last == {3}  # split.max_history


def test_lists_never_overwrite_what_the_command_reads_or_the_run(folder: Path) -> None:
    users = write(folder / "who.csv", ["user_id"], [["u1"]])
    before = users.read_text()
    (folder / "link.csv").symlink_to(users)
    for out, option in (
        ("who.csv", "--users"),
        ("link.csv", "--users"),
        ("run/data/items.parquet", "in the run folder"),
    ):
        with pytest.raises(UserError, match=option) as caught:
            order(folder, users=users, out=folder / out)
        assert [problem.field for problem in caught.value.problems] == ["--out"]
    later = write(folder / "later.csv", ("user_id", "item_id", "timestamp"), [("u1", "a", START)])
    items = write(folder / "some.csv", ["item_id"], [["a"], ["b"], ["c"]])
    for option, more in (("--interactions", {"interactions": later}), ("--candidates", {"candidates": str(items)})):
        with pytest.raises(UserError, match=option):
            order(folder, out=Path(next(iter(more.values()))), **more)
    assert users.read_text() == before


def test_a_folder_or_an_empty_name_is_no_file_of_ids(folder: Path) -> None:
    for given in (folder, Path()):
        with pytest.raises(UserError, match="is a folder") as caught:
            order(folder, users=given, candidates=str(folder))
        assert [problem.field for problem in caught.value.problems] == ["--users", "--candidates"]


def test_a_full_disk_is_said_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setitem(output._WRITERS, ".parquet", lambda path: contextlib.nullcontext(full))
        with pytest.raises(StageError, match=r"recs\.parquet cannot be written \(No space left on device\)"):
            order(folder)
    assert not list(folder.glob("*recs*"))
    with monkeypatch.context() as patch:
        patch.setattr("msr_adapter.files.os.fsync", full)
        with pytest.raises(StageError, match="cannot be written"), writing(folder / "recs.csv"):
            pass
    assert not list(folder.glob("*recs*"))
    with pytest.raises(OSError, match="a picture"), writing(folder / "recs.csv"):
        raise OSError("a picture")  # no matter of the disk: said as it is
    assert not list(folder.glob("*recs*"))


# The trained model is used as it is.


def test_the_trained_model_is_used_as_it_is_whatever_changed(folder: Path) -> None:
    weights = (folder / "run" / "train" / "manifest.json").read_bytes()

    def said(*sets: str, train: bool = False) -> str:
        lines = Lines()
        wanted = RecommendRequest(None, "popular:3", 2, folder / f"{len(list(folder.iterdir()))}.csv")
        recommend(load(folder / "pipeline", folder, *sets), wanted, lines, train=train)
        return "\n".join(line for line in lines.text.splitlines() if line.startswith("train "))

    assert said() == ""
    assert "used as it is, trained on 2" in said("train.max_steps=20")
    assert "train.max_steps: unset, now 20; `msr train " in said("train.max_steps=20")
    assert "split.max_history: 3, now 2" in said("split.max_history=2")
    assert (folder / "run" / "train" / "manifest.json").read_bytes() == weights
    with pytest.raises(UserError, match=r"train.model.path: somebody, but the model was trained from nobody.* --train"):
        said("train.model.path=somebody")
    assert "the one before is kept" in said("train.max_steps=20", train=True)
    assert said().startswith("train       found again")
    assert (folder / "run" / "train" / "manifest.json").read_bytes() == weights
