"""`msr score`: the table as it was with a score beside every row; what nobody knows; killed and gone on from."""

import filecmp
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from msr_adapter import schema
from msr_adapter.errors import UserError
from msr_adapter.pipeline import run
from msr_adapter.progress import Reporter
from msr_adapter.workflows.score_pairs import pair_codes
from tests.support.paths import ROOT
from tests.support.recommending import ITEMS, Asked, load, order, own_run, trained, write, write_pipeline
from tests.support.recommending import rows as recommended
from tests.support.scoring_pairs import score_rows, write_pairs_table, write_wide_pipeline

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import msr_adapter.pipeline.planning as planning
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.workflows.score_pairs import workflow
from tests.support.recommending import without_training
from tests.support.scoring_pairs import score_rows

planning.STAGES = without_training()
workflow.PAIRS = int(sys.argv[4])
answer = ScriptedBackend.complete

def told(backend, requests, *follow):
    if requests[0].choices:
        time.sleep(float(sys.argv[3]))
        print("asked", len(requests), flush=True)
    return answer(backend, requests, *follow)

ScriptedBackend.complete = told
folder = Path(sys.argv[2])
score_rows(folder, folder / "scored.csv")
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("finished")
    write_pipeline(folder)
    with trained(folder):
        run(load(folder, folder), ("score",), reporter=Reporter(quiet=True))
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return own_run(finished, tmp_path)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("wide")
    write_wide_pipeline(folder)
    with trained(folder):
        yield folder


HEADER = ("when", "user", "what", "item")
ROWS = [(1, "u1", "x", "a"), (2, "u0", '"y, z"', "j"), (3, "u1", "", "a"), (4, "u9", "007", "b")]


def scored(folder: Path, out: str = "out.csv", **more: object) -> pl.DataFrame:
    score_rows(folder, folder / out, **more)
    return pl.read_csv(folder / out, schema_overrides={"what": pl.String})


def test_columns_and_order_stay_and_scores_are_those_of_recommending(folder: Path) -> None:
    write(folder / "pairs.csv", HEADER, ROWS)
    table = scored(folder)
    assert table.columns == [*HEADER, "score", "logit"]
    assert table["what"].to_list() == ["x", "y, z", None, "007"]
    assert table["item"].to_list() == list("ajab")
    order(folder, candidates="all", top=10, include_seen=True)
    known = {(row["user_id"], row["item_id"]): (row["score"], row["logit"]) for row in recommended(folder)}
    found = [(row["score"], row["logit"]) for row in table.iter_rows(named=True)]
    assert found == [known[row["user"], row["item"]] for row in table.iter_rows(named=True)]


def test_a_pair_that_stands_twice_is_asked_about_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "pairs.csv", HEADER, ROWS * 5)
    asked = Asked(monkeypatch)
    table = scored(folder)
    assert len(asked.scored) == 3
    assert table.height == 20
    assert table["logit"].to_list()[:4] * 5 == table["logit"].to_list()


def test_with_the_histories_of_the_test_scores_are_those_of_the_evaluation(folder: Path) -> None:
    data = folder / "run" / "data"
    examples = pl.DataFrame(schema.read_table(data / "examples.parquet", schema.EXAMPLES)).select(
        "example_id", "user_id"
    )
    known = pl.DataFrame(schema.read_table(folder / "run" / "score" / "scores.parquet", schema.SCORES))
    pairs = known.join(examples, on="example_id", maintain_order="left").sample(fraction=1, shuffle=True, seed=3)
    pairs.select("user_id", "item_id", "answer_mass").write_parquet(folder / "pairs.parquet")
    score_rows(folder, folder / "out.parquet", pairs=folder / "pairs.parquet", histories="test")
    table = pl.read_parquet(folder / "out.parquet")
    assert table["answer_mass"].dtype == pl.Float64
    assert table.select("score", "logit").equals(pairs.select("score", "logit"))
    write(folder / "pairs.csv", HEADER, ROWS[1:2])
    with pytest.raises(UserError, match="unknown user: u0"):  # of the training split
        score_rows(folder, folder / "out.csv", histories="test")


def test_every_unknown_id_is_told_at_once_with_its_line(folder: Path) -> None:
    rows = [*ROWS, (5, "nobody", "", "a"), (6, "", "", "b"), (7, "u1", "", "nothing"), (8, "u1", "", "")]
    write(folder / "pairs.csv", HEADER, rows)
    with pytest.raises(UserError) as caught:
        score_rows(folder, folder / "out.csv")
    assert [(one.field, one.found) for one in caught.value.problems] == [
        ("user", "1 row: no user: line 7"), ("user", "1 row: unknown user: nobody (line 6)"),
        ("item", "1 row: no item: line 9"), ("item", "1 row: unknown item: nothing (line 8)"),
    ]  # fmt: skip
    assert not (folder / "out.csv").exists()
    counts = score_rows(folder, folder / "out.jsonl", unknown="skip")
    found = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [row["not_scored"] for row in found] == [
        *[None] * 4, "unknown user", "no user", "unknown item", "no item",
    ]  # fmt: skip
    assert all((row["score"] is None) == (row["not_scored"] is not None) for row in found)
    assert [row["when"] for row in found] == [str(number) for number in range(1, 9)]
    assert counts["not_scored"] == {"no user": 1, "unknown user": 1, "no item": 1, "unknown item": 1}


def test_names_that_clash_are_told_with_all_else(folder: Path) -> None:
    write(folder / "pairs.csv", ("user", "item", "score", "logit"), [("u1", "a", 1, 2)])
    with pytest.raises(UserError) as caught:
        score_rows(folder, folder / "run" / "out.csv")
    assert [one.field for one in caught.value.problems] == ["--out", "score", "logit"]


def test_columns_of_other_names(folder: Path) -> None:
    write(folder / "pairs.csv", ("who", "which"), [("u1", "a"), ("u0", "j")])
    with pytest.raises(UserError, match="--columns user=NAME"):
        score_rows(folder, folder / "out.csv")
    table = scored(folder, columns={"user": "who", "item": "which"})
    assert table.columns == ["who", "which", "score", "logit"]


def test_items_of_no_catalogue_are_shown_by_title_and_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (60, 40), (200, 30, 30)).save(folder / "red.png")
    lines = [
        '{"user_id": "u1", "title": "A <image> lamp", "image": "red.png", "n": 1.50}',
        "",
        '{"title": "A chair", "user_id": "u3", "deep": {"x": [1, 2]}}',
        '{"user_id": "u1", "title": "A chair"}',
    ]
    (folder / "pairs.jsonl").write_text("\n".join(lines))
    asked = Asked(monkeypatch)
    counts = score_rows(folder, folder / "out.jsonl", pairs=folder / "pairs.jsonl")
    assert counts["inline_items"] == 2
    shown = {request.prompt.rpartition("Title: ")[2]: request.images for request in asked.scored}
    assert set(shown) == {"A ‹image› lamp", "A chair"}
    assert [len(images) for images in shown.values()] == [1, 0]
    found = (folder / "out.jsonl").read_text().splitlines()
    # What was there is there to the letter.
    assert [line.partition(', "score"')[0] + "}" for line in found] == [line for line in lines if line]
    values = [json.loads(line) for line in found]
    assert all(0 < row["score"] < 1 for row in values)


def test_titles_stand_in_where_they_are_said_to(folder: Path) -> None:
    rows = [("u1", "a", "anything"), ("u1", "new", "A lamp"), ("u1", "", "A chair")]
    write(folder / "pairs.csv", ("user", "item", "title"), rows)
    with pytest.raises(UserError, match="unknown item: new"):
        score_rows(folder, folder / "out.csv")
    named = {"title": "title"}
    assert scored(folder, columns=named)["score"].null_count() == 0
    write(folder / "one.csv", ("user", "item"), [("u1", "a")])
    alone = scored(folder, "one-scored.csv", pairs=folder / "one.csv")
    assert alone["logit"][0] == scored(folder, columns=named)["logit"][0]  # the catalogue's title, not the table's


def test_nested_columns_are_no_csv_but_stay_in_parquet(folder: Path) -> None:
    table = pl.DataFrame({"user_id": ["u1"], "item_id": ["a"], "tags": [["x", "y"]], "day": [1.5]})
    table.write_parquet(folder / "pairs.parquet")
    with pytest.raises(UserError, match="a csv cannot hold tags"):
        score_rows(folder, folder / "out.csv", pairs=folder / "pairs.parquet")
    score_rows(folder, folder / "out.parquet", pairs=folder / "pairs.parquet")
    assert pl.read_parquet(folder / "out.parquet").select(table.columns).equals(table)


def test_parts_and_buckets_change_nothing(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pairs_table(tmp_path, 900)
    (tmp_path / "pipeline").symlink_to(wide)
    score_rows(tmp_path, tmp_path / "one.csv")
    for name, value in {"PART": 200, "_BUCKET": 90}.items():
        monkeypatch.setattr(pair_codes, name, value)
    monkeypatch.setattr("msr_adapter.workflows.score_pairs.workflow.PART", 200)
    monkeypatch.setattr("msr_adapter.workflows.score_pairs.scored_table.PART", 200)
    monkeypatch.setattr("msr_adapter.workflows.score_pairs.workflow.PAIRS", 64)
    shutil.rmtree(tmp_path / "run" / "cache")
    score_rows(tmp_path, tmp_path / "many.csv")
    assert filecmp.cmp(tmp_path / "one.csv", tmp_path / "many.csv", shallow=False)
    assert not list((tmp_path / "run").glob(".score-pairs*"))


def killed(folder: Path, wait: float, shard: int) -> None:
    """Kill the command in the middle of its scores and run it again: what was answered is not asked again."""
    command = [sys.executable, "-c", WORKER, str(ROOT), str(folder), str(wait), str(shard)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(5)]
        process.send_signal(signal.SIGKILL)
        seen += process.stdout.readlines()
    assert not (folder / "scored.csv").exists()
    left = list((folder / "run").glob(".score-pairs*"))
    assert left
    asked, last = sum(int(line.split()[1]) for line in seen), int(seen[-1].split()[1])
    counts = score_rows(folder, folder / "scored.csv")
    assert asked - last <= counts["scores"]["cached"] < counts["pairs"]
    assert not any(path.exists() for path in left)


def same_as_undisturbed(folder: Path, suffixes: Sequence[str]) -> None:
    """Score again in a run that was never disturbed: the files are the same to the byte."""
    again = folder / "again"
    again.mkdir()
    shutil.copy(folder / "pairs.csv", again)
    (again / "pipeline").symlink_to((folder / "pipeline").resolve())
    for suffix in suffixes:
        score_rows(folder, folder / f"scored.{suffix}")
        score_rows(again, again / f"scored.{suffix}")
        assert filecmp.cmp(folder / f"scored.{suffix}", again / f"scored.{suffix}", shallow=False)


def test_a_killed_command_goes_on_and_writes_the_same_file(folder: Path) -> None:
    pairs = [
        (row, user, item) for row, (user, item) in enumerate((f"u{row % 10}", ITEMS[row % 7]) for row in range(90))
    ]
    write(folder / "pairs.csv", ("row", "user", "item"), pairs)
    killed(folder, 0.15, 6)
    same_as_undisturbed(folder, ("jsonl",))


@pytest.mark.slow
def test_a_hundred_thousand_pairs_killed_and_gone_on_with(wide: Path, tmp_path: Path) -> None:
    table = pl.read_csv(write_pairs_table(tmp_path), infer_schema=False)
    (tmp_path / "pipeline").symlink_to(wide)
    run(load(wide, tmp_path), ("train",), reporter=Reporter(quiet=True))
    killed(tmp_path, 0.0, 65_536)
    found = pl.read_csv(tmp_path / "scored.csv", infer_schema=False)
    assert found.height == 100_000
    assert found.select(table.columns).equals(table)
    assert found.select("score", "logit").null_count().row(0) == (0, 0)
    same_as_undisturbed(tmp_path, ("csv", "jsonl", "parquet"))
