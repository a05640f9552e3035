"""The Python API: what it exports, that it imports nothing heavy, and that it says what the commands say."""

import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import msr_adapter as msr
from msr_adapter import schema
from msr_adapter.progress import Reporter
from msr_adapter.workflows.recommend import RecommendRequest
from msr_adapter.workflows.recommend.workflow import recommend
from msr_adapter.workflows.score_pairs import PairsRequest
from msr_adapter.workflows.score_pairs.workflow import score_table
from tests.support.recommending import load, without_training, write, write_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("api")
    write_pipeline(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msr_adapter.pipeline.planning.STAGES", without_training())
        msr.load(
            folder / "scripted.yaml", run_dir=folder / "run", quiet=True, evaluate__protocol__negatives=3,
            train__negatives=1,
        ).run()  # fmt: skip
        yield folder


@pytest.fixture
def opened(folder: Path) -> msr.Run:
    return msr.open(folder / "run", quiet=True)


def test_all_is_there_and_documented() -> None:
    assert set(msr.__all__) == {
        "MsrError", "Pipeline", "Problem", "Run", "StageError", "UserError", "__version__", "load", "open",
    }  # fmt: skip
    assert set(msr.__all__) <= set(dir(msr))
    for name in set(msr.__all__) - {"__version__"}:
        assert inspect.getdoc(getattr(msr, name))
    for kind in (msr.Run, msr.Pipeline):
        public = [member for name, member in vars(kind).items() if not name.startswith("_")]
        assert all(inspect.getdoc(member) for member in public)
    with pytest.raises(AttributeError, match="has no attribute 'recommand'"):
        msr.recommand  # noqa: B018


def test_neither_import_nor_names_bring_torch() -> None:
    code = (
        "import sys, msr_adapter as msr\n"
        "assert not {'polars', 'pydantic', 'torch'} & set(sys.modules), 'import'\n"
        "msr.open, msr.load, msr.Run, msr.UserError\n"
        "assert not {'torch', 'transformers', 'llamafactory'} & set(sys.modules), 'names'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_tables_are_those_of_the_stages(folder: Path, opened: msr.Run) -> None:
    data = folder / "run" / "data"
    assert opened.items["item_id"].to_list() == list("abcdefghij")
    assert opened.items["summary"].null_count() < 10
    assert opened.candidates.height == len(schema.read_table(data / "candidates.parquet", schema.CANDIDATES))
    assert opened.candidates.null_count().sum_horizontal()[0] == 0
    test = opened.candidates.filter(pl.col("split") == "test")
    assert opened.scores.select("example_id", "item_id").equals(test.select("example_id", "item_id"))
    assert set(opened.summaries.columns) == {"example_id", "split", "user_id", "summary"}
    assert opened.summaries.height == opened.examples.height
    assert opened.interactions.columns == schema.INTERACTIONS.names
    models = set(opened.metrics["model"])
    assert {"trained", "popularity"} <= models == set(opened.per_user["model"])
    row = opened.metrics.row(by_predicate=(pl.col("model") == "trained") & (pl.col("metric") == "ndcg@3"), named=True)
    assert row["low"] <= row["mean"] <= row["high"]
    mean = opened.per_user.filter(pl.col("model") == "trained")["ndcg@3"].mean()
    assert mean == pytest.approx(row["mean"])
    assert opened.report.is_file()
    assert opened.name == "scripted"
    assert opened.config["train"]["negatives"]


def test_recommending_is_the_command(folder: Path, opened: msr.Run, tmp_path: Path) -> None:
    wanted = RecommendRequest(write(tmp_path / "u.csv", ("user_id",), [("u3",), ("u1",)]), "popular:6", 3,
                              tmp_path / "recs.parquet")  # fmt: skip
    recommend(load(folder, folder), wanted, Reporter(quiet=True))
    expected = pl.DataFrame(schema.read_table(wanted.out, schema.RECOMMENDATIONS))
    assert opened.recommend(["u3", "u1"], candidates="popular:6", top=3).equals(expected)
    assert opened.recommend(pl.Series(["u3", "u1"]), candidates="popular:6", top=3).equals(expected)
    listed = opened.recommend(["u3"], candidates={"item_id": ["a", "j"]}, top=2, include_seen=True)
    assert set(listed["item_id"]) == {"a", "j"}
    later = pl.DataFrame({"user_id": ["new"], "item_id": ["a"], "timestamp": [1_800_000_000_000]})
    assert opened.recommend(["new"], candidates="popular:6", top=1, interactions=later)["history_items"].to_list() == [
        1
    ]


def test_items_that_came_after_the_training_are_recommended_and_scored(folder: Path, opened: msr.Run) -> None:
    new = pl.DataFrame({"item_id": ["n1", "bb"], "title": ["First of all", "Between"]})
    lists = opened.recommend(["u1"], candidates="all", top=12, items=new)
    told = dict(lists.select("item_id", "logit").iter_rows())
    assert {"n1", "bb"} <= set(told)
    new.write_csv(folder / "new.csv")
    pairs = {"user_id": ["u1", "u1", "u1"], "item_id": ["bb", "n1", "j"]}
    for items in (new, folder / "new.csv"):
        found = opened.score(pairs, items=items)
        assert found["logit"].to_list() == [told[item] for item in ("bb", "n1", "j")]
    assert opened.items.height == 10  # nothing of the run has changed
    with pytest.raises(msr.UserError, match="n1"):
        opened.score(pairs)
    with pytest.raises(msr.UserError, match="in the catalogue with other words: a"):
        opened.score(pairs, items={"item_id": ["a"], "title": ["Another"]})


def test_scoring_is_the_command(folder: Path, opened: msr.Run, tmp_path: Path) -> None:
    pairs = pl.DataFrame({"n": [1.5, 2.5], "user_id": ["u1", "u0"], "item_id": ["a", "j"], "tags": [["x"], []]})
    pairs.write_parquet(tmp_path / "p.parquet")
    wanted = PairsRequest(tmp_path / "p.parquet", tmp_path / "s.parquet")
    score_table(load(folder, folder), wanted, Reporter(quiet=True))
    found = opened.score(pairs)
    assert found.equals(pl.read_parquet(wanted.out))
    assert found.select(pairs.columns).equals(pairs)
    skipped = opened.score({"who": ["nobody", "u1"], "item_id": ["a", "a"]}, columns={"user": "who"}, unknown="skip")
    assert skipped["not_scored"].to_list() == ["unknown user", None]


def test_opening_makes_nothing_again(folder: Path, opened: msr.Run) -> None:
    assert set(msr.load(folder / "scripted.yaml", run_dir=folder / "run", evaluate__protocol__negatives=3,
                        train__negatives=1).plan().values()) == {"up to date"}  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in (folder / "run").glob("*/manifest.json")}
    opened.recommend(["u1"], candidates="popular:6", top=1)
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "run").glob("*/manifest.json")}
    # Still known as what no command may write over.
    assert "scripted.yaml" in (folder / "run" / ".msr-run").read_text()


def test_errors_are_those_of_the_commands(folder: Path, opened: msr.Run, tmp_path: Path) -> None:
    with pytest.raises(msr.UserError, match="Did you mean") as caught:
        msr.load(folder / "scripted.yaml", trian__epochs=2)
    assert isinstance(caught.value.problems[0], msr.Problem)
    with pytest.raises(msr.UserError, match="neither a run folder nor a pipeline"):
        msr.open(tmp_path / "nothing")
    with pytest.raises(msr.UserError, match="no run that says what it was made with"):
        msr.open(tmp_path)
    with pytest.raises(msr.UserError, match="1 of 1 users are not in the log: nobody"):
        opened.recommend(["nobody"], candidates="popular:6", top=3)
    with pytest.raises(msr.UserError, match="Did you mean `train`"):
        msr.load(folder / "scripted.yaml", run_dir=tmp_path / "run").run("trian")
    unfinished = msr.load(folder / "scripted.yaml", run_dir=tmp_path / "run").open()
    with pytest.raises(msr.UserError, match="the stage data has not made it"):
        _ = unfinished.items
    assert issubclass(msr.UserError, msr.MsrError)
    assert issubclass(msr.StageError, msr.MsrError)


def test_settings_are_yaml(folder: Path) -> None:
    pipeline = msr.load(
        folder / "scripted.yaml", split__fractions=[0.6, 0.2, 0.2], templates=Path("small"), train__too_long="truncate"
    )
    assert pipeline.config["split"]["fractions"] == [0.6, 0.2, 0.2]
    assert pipeline.config["train"]["too_long"] == "truncate"
    assert pipeline.config["templates"].endswith("small")
    assert pipeline.run_dir.name == "scripted"


def test_progress_is_plain_lines_or_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    msr.open(folder / "run").recommend(["u1"], candidates="popular:6", top=1)
    said = capsys.readouterr()
    assert "data        up to date" in said.err
    assert "\x1b" not in said.err
    assert said.out == ""
    msr.open(folder / "run", quiet=True).recommend(["u1"], candidates="popular:6", top=1)
    assert capsys.readouterr() == ("", "")
