"""`msr results`: TREC and ranx files give the same metrics when read back; tables hold the run's numbers."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import pytrec_eval
from typer.testing import CliRunner, Result

from msr_adapter import schema
from msr_adapter.cli import app
from msr_adapter.config.schema import ConfidenceConfig, ProtocolConfig
from msr_adapter.evaluate.results import read_finished
from msr_adapter.evaluate.trec_ranx_export import write_ranx, write_trec
from tests.support.judged_run import Run, make_run

PROTOCOL = ProtocolConfig(
    name="all",
    metrics=("hr", "recall", "precision", "mrr", "map", "ndcg"),
    k=(3, 5),
    confidence=ConfidenceConfig(samples=100),
)
WITHOUT_TIES = ("trained", "random", "oracle")


def msr(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A judged run in which some users have two targets."""
    made = make_run(tmp_path_factory.mktemp("run"))
    path = made.data / "candidates.parquet"
    table = schema.read_table(path, schema.CANDIDATES)
    labels = table["label"].to_numpy().copy()
    labels[np.arange(50, 300, 50)] = 1
    table = table.set_column(2, schema.CANDIDATES.field("label"), pa.array(labels))
    schema.write_table(table, schema.CANDIDATES, path)
    made.evaluate(PROTOCOL)
    return made


def _means(run: Run, model: str) -> dict[str, float]:
    return {name: value["mean"] for name, value in run.metrics()["models"][model]["metrics"].items()}


def test_pytrec_eval_reads_the_same_numbers(run: Run, tmp_path: Path) -> None:
    files = write_trec(read_finished(run.root), tmp_path)
    runs = [f"run.{name}.txt" for name in run.metrics()["models"]]
    assert [file.name for file in files] == ["qrels.txt", *runs, "users.tsv"]
    with files[0].open() as file:
        judged = pytrec_eval.parse_qrel(file)
    names = {"hr": "success", "recall": "recall", "precision": "P", "map": "map_cut", "ndcg": "ndcg_cut"}
    evaluator = pytrec_eval.RelevanceEvaluator(judged, {f"{name}.3,5" for name in names.values()})
    for model in WITHOUT_TIES:
        with (tmp_path / f"run.{model}.txt").open() as file:
            found = evaluator.evaluate(pytrec_eval.parse_run(file))
        assert len(found) == 40
        for ours, theirs in names.items():
            for k in (3, 5):
                mean = np.mean([row[f"{theirs}_{k}"] for row in found.values()])
                assert _means(run, model)[f"{ours}@{k}"] == pytest.approx(mean, abs=1e-12), (model, ours, k)


@pytest.mark.parametrize("form", ["trec", "ranx"])
def test_queries_are_found_among_the_users(run: Run, tmp_path: Path, form: str) -> None:
    done = msr("results", run.root, "--format", form, "--out", tmp_path / "out", "--json")
    assert json.loads(done.stdout)["files"][-1] == str(tmp_path / "out" / "users.tsv")
    header, *lines = (tmp_path / "out" / "users.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "query\tuser_id"
    examples = schema.read_table(run.data / "examples.parquet", schema.EXAMPLES)
    tested = examples.filter(pc.equal(examples["split"], "test"))
    ids = zip(tested["example_id"].to_pylist(), tested["user_id"].to_pylist(), strict=True)
    assert lines == [f"{query}\t{user}" for query, user in sorted(ids)]
    again = msr("results", run.root, "--format", form, "--out", tmp_path / "out")
    assert (again.exit_code, "users.tsv exists already" in again.stderr) == (2, True)


def test_user_ids_with_tabs_and_quotes_come_back(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = pl.DataFrame({"query": ["1", "2", "3"], "user_id": ["a\tb", 'the "user"', "two\nlines"]})
    monkeypatch.setattr("msr_adapter.evaluate.results.FinishedRun.queries", lambda _: odd)
    write_trec(read_finished(run.root), tmp_path)
    with (tmp_path / "users.tsv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file, delimiter="\t"))[1:] == [list(row) for row in odd.rows()]


def test_a_trec_run_is_in_order_and_whole(run: Run, tmp_path: Path) -> None:
    write_trec(read_finished(run.root), tmp_path)
    lines = [line.split() for line in (tmp_path / "run.trained.txt").read_text().splitlines()]
    assert len(lines) == run.metrics()["candidates"]["rows"]
    assert {(len(line), line[1], line[5]) for line in lines} == {(6, "Q0", "trained")}
    first = [line for line in lines if line[0] == "5"]
    assert [line[3] for line in first] == [str(rank) for rank in range(1, 8)]
    assert sorted((float(line[4]) for line in first), reverse=True) == [float(line[4]) for line in first]


@pytest.mark.slow
def test_ranx_reads_the_same_numbers(run: Run, tmp_path: Path) -> None:
    """Minutes long, because ranx compiles every metric on first use."""
    write_ranx(read_finished(run.root), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ranx

        judged = ranx.Qrels.from_file(str(tmp_path / "qrels.json"), kind="json")
        names = {
            "hr": "hit_rate",
            "recall": "recall",
            "precision": "precision",
            "mrr": "mrr",
            "map": "map",
            "ndcg": "ndcg",
        }
        asked = [f"{name}@{k}" for name in names.values() for k in (3, 5)]
        for model in WITHOUT_TIES:
            ranked = ranx.Run.from_file(str(tmp_path / f"run.{model}.json"), kind="json")
            found = ranx.evaluate(judged, ranked, asked)
            for ours, theirs in names.items():
                for k in (3, 5):
                    assert _means(run, model)[f"{ours}@{k}"] == pytest.approx(found[f"{theirs}@{k}"], abs=1e-12)


def test_ranx_files_are_plain_json(run: Run, tmp_path: Path) -> None:
    finished = read_finished(run.root)
    files = write_ranx(finished, tmp_path)
    judged, ranked = json.loads(files[0].read_text()), json.loads((tmp_path / "run.base.json").read_text())
    assert len(judged) == len(ranked) == 40
    assert sum(len(documents) for documents in judged.values()) == run.metrics()["candidates"]["targets"] == 45
    rows = finished.table.to_pylist()
    assert {(key, item): 1 for key, found in judged.items() for item in found} == {
        (str(row["example_id"]), row["item_id"]): 1 for row in rows if row["label"]
    }
    assert all(ranked[str(row["example_id"])][row["item_id"]] == row["score:base"] for row in rows)


def test_item_ids_with_spaces_and_infinite_scores(run: Run, tmp_path: Path) -> None:
    finished = read_finished(run.root)
    table = finished.table
    items, scores = table["item_id"].to_pylist(), table["score:trained"].to_numpy().copy()
    items[0], items[1], scores[:2] = "a b\t50%", "naïve\u00a0id", [np.inf, -np.inf]
    table = table.set_column(1, "item_id", pa.array(items))
    table = table.set_column(table.column_names.index("score:trained"), "score:trained", pa.array(scores))
    odd = type(finished)(finished.folder, finished.metrics, table)
    write_trec(odd, tmp_path)
    first = [line.split(" ") for line in (tmp_path / "run.trained.txt").read_text("utf-8").splitlines()][:7]
    assert first[0][2] == "a%20b%0950%25"
    assert first[-1][2] == "naïve%C2%A0id"
    assert float(first[0][4]) > 1e300
    write_ranx(odd, tmp_path)
    assert json.loads((tmp_path / "run.trained.json").read_text("utf-8"))["5"]["a b\t50%"] > 1e300


def test_the_command_writes_files_and_says_which(run: Run, tmp_path: Path) -> None:
    done = msr("results", run.root, "--format", "trec", "--out", tmp_path / "new" / "trec", "--json")
    assert done.exit_code == 0, done.output
    files = json.loads(done.stdout)["files"]
    assert len(files) == 7
    assert all(Path(file).stat().st_size for file in files)
    assert len(msr("results", run.root, "--format", "ranx", "--out", tmp_path / "ranx").stdout.splitlines()) == 7


def test_tables(run: Run, tmp_path: Path) -> None:
    mean = f"{_means(run, 'trained')['map@5']:.3f}"
    for form in ("table", "markdown", "latex"):
        text = msr("results", run.root, "--format", form).stdout
        assert mean in text
        assert "MAP@5" in text
        assert "oracle" in text
    assert json.loads(msr("results", run.root, "--json").stdout) == run.metrics()
    done = msr("results", run.root, "--format", "markdown", "--out", tmp_path / "table.md")
    assert done.stdout == f"{tmp_path / 'table.md'}\n"
    assert (tmp_path / "table.md").read_text() == msr("results", run.root, "--format", "markdown").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--format", "trec"), "--out: missing; a folder for the files"),
        (("--format", "ranx", "--out", "file"), "--out: file is a file"),
        (("--format", "latex", "--out", "."), "--out: . is a folder; a file. Try table"),
    ],
)
def test_wrong_places(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    done = msr("results", run.root, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    done = msr("results", tmp_path)
    assert done.exit_code == 2
    assert done.stderr == f"{tmp_path}: no finished evaluation in this folder. Run `msr evaluate` first\n"
