"""A whole run with a hybrid: what is asked of whom, what is made again, lists by it, comparisons with it."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from msr_adapter.cli.app import app
from msr_adapter.config.loader import load_pipeline
from msr_adapter.evaluate.baselines.catalogue import row_of
from msr_adapter.evaluate.baselines.fitting import fit_again, read_fitted
from msr_adapter.evaluate.baselines.training_log import candidate_scores, read_queries, read_training_log
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.pipeline.checks import check
from msr_adapter.pipeline.planning import plan
from tests.support.scripted_pipeline import pretend_to_train_stages, scripted

HYBRID = "evaluate.hybrid={of: [trained, item-knn, popularity], users: 55}"
GRID = "evaluate.grid={item_knn: {neighbours: [5, 20], damping: [0.0]}}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hybrid")
    text = scripted(200, "[0.4, 0.3, 0.3]", "{protocol: next-item, baselines: [popularity]}")
    (folder / "scripted.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        pretend_to_train_stages(patch)
        patch.chdir(folder)
        msr("run", "scripted.yaml", "--run-dir", "run", "--set", HYBRID, "--set", GRID)
    return folder


@pytest.fixture
def folder(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pretend_to_train_stages(monkeypatch)
    monkeypatch.chdir(finished)
    return finished


def msr(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*words], env={"COLUMNS": "250"})
    assert done.exit_code == code, done.output + str(done.exception)
    return done.output


def test_the_run_says_the_weights_everywhere(folder: Path) -> None:
    metrics = json.loads((folder / "run" / "evaluate" / "metrics.json").read_text())
    assert list(metrics["models"]) == ["trained", "item-knn", "popularity", "oracle", "hybrid"]
    assert metrics["hybrid"]["users"] == 55
    page = (folder / "run" / "evaluate" / "report.html").read_text()
    assert "The hybrid" in page
    assert "without-trained" in page
    assert metrics["hybrid"]["digest"][:8] in page
    told = msr("results", "run")
    assert "hybrid minus it" in told
    log = (folder / "run" / "run.log").read_text()
    assert "fitted on 55 validation users, frozen as" in log
    scored = json.loads((folder / "run" / "score-validation" / "manifest.json").read_text())["summary"]
    assert (scored["users"], scored["candidates"]) == (55, 55 * 21)
    rows = pl.read_parquet(folder / "run" / "score-validation" / "candidates.parquet")
    examples = pl.read_parquet(folder / "run" / "data" / "examples.parquet")
    asked = examples.filter(pl.col("example_id").is_in(rows["example_id"].unique().implode()))
    assert asked["split"].unique().to_list() == ["validation"]


@pytest.mark.parametrize(
    ("change", "made_again"),
    [
        ("evaluate.hybrid={of: [trained, item-knn], users: 55}", {"evaluate"}),
        ("evaluate.hybrid=null", {"evaluate", "baselines"}),
        ("evaluate.hybrid={of: [popularity, item-knn], users: 55}", {"evaluate"}),
        ("evaluate.hybrid={of: [trained, item-knn, popularity], users: 58}", {"score-validation", "evaluate"}),
    ],
)
def test_another_hybrid_is_a_matter_of_the_evaluation(folder: Path, change: str, made_again: set[str]) -> None:
    states = plan(load_pipeline("scripted.yaml", (GRID, change), folder / "run"))
    stale = {name for name, state in states.items() if state != "up to date"}
    # Where no baseline is fitted any more, the stage is not needed.
    assert stale == made_again & set(states)


def test_lists_are_ranked_by_the_hybrid_that_was_frozen(folder: Path, tmp_path: Path) -> None:
    asked = ("recommend", "scripted.yaml", "--run-dir", "run", "--set", HYBRID, "--set", GRID, "--candidates",
             "popular:30", "--top", "30")  # fmt: skip
    msr(*asked, "--out", str(tmp_path / "model.parquet"))
    msr(*asked, "--rank-by", "hybrid", "--out", str(tmp_path / "hybrid.parquet"))
    model, hybrid = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in ("model", "hybrid"))
    assert hybrid["ranked_by"].unique().to_list() == ["hybrid"]
    assert hybrid.group_by("user_id").agg(pl.col("logit").is_sorted(descending=True))["logit"].all()
    weights = json.loads((folder / "run" / "evaluate" / "hybrid.json").read_text())["full"]
    counts = pl.read_parquet(folder / "run" / "data" / "items.parquet").select("item_id", "popularity")
    together = model.join(hybrid, on=("user_id", "item_id"), suffix="_hybrid").join(counts, on="item_id")
    assert len(together) == len(model) == len(hybrid)

    def within(name: str) -> pl.Expr:
        column = pl.col(name).cast(pl.Float64)
        return ((column - column.mean()) / column.std(ddof=0)).over("user_id")

    left = pl.col("logit_hybrid") - weights["intercept"] - weights["weights"]["trained"] * within("logit")
    left -= weights["weights"]["popularity"] * within("popularity")
    rest = together.with_columns(rest=left / weights["weights"]["item-knn"])
    level = rest.group_by("user_id").agg(pl.col("rest").mean(), spread=pl.col("rest").std(ddof=0))
    assert level["rest"].abs().max() < 1e-6  # type: ignore[operator]  # what is left is item-kNN's, standardised
    assert (level["spread"] - 1).abs().max() < 1e-6  # type: ignore[operator]


def test_a_baseline_that_is_fitted_again_is_the_one_that_was_judged(folder: Path) -> None:
    pipeline = load_pipeline("scripted.yaml", (GRID, HYBRID), folder / "run").pipeline
    data, baselines = folder / "run" / "data", folder / "run" / "baselines"
    log, held_out = read_training_log(data), read_held_out(data)
    scorer = fit_again(row_of("item-knn"), pipeline.evaluate, (data, baselines), log, pipeline.seed)
    found = candidate_scores(scorer, read_queries(held_out, data), log.items)
    assert found.tobytes() == read_fitted("item-knn", held_out, baselines).tobytes()


def test_it_is_compared_as_any_model(folder: Path) -> None:
    told = json.loads(msr("compare", "run", "run:hybrid", "--json"))
    assert list(told["models"]) == ["run", "run:hybrid"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "lists.parquet"), "evaluate.hybrid: null: --rank-by hybrid has nothing to rank by"),
        (("--out", "lists", "--set", HYBRID), "a folder of lists is ranked by workers"),
        (("--out", "lists.parquet", "--set", HYBRID, "--run-dir", "other"), "no hybrid was fitted in this run"),
    ],
)
def test_what_the_hybrid_cannot_rank_is_refused(folder: Path, words: tuple[str, ...], said: str) -> None:
    run_dir = () if "--run-dir" in words else ("--run-dir", "run")
    done = msr("recommend", "scripted.yaml", *run_dir, "--rank-by", "hybrid", *words, code=2)
    assert said in done
    assert not list(folder.glob("lists*"))


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("split.fractions=[0.6, 0.0, 0.4]", HYBRID), "split.fractions leaves no validation users"),
        (("split={kind: temporal, test_from: 2020-01-01}", HYBRID), "split.validation_from is not set"),
        (("evaluate.hybrid={of: [trained, popularity], users: 20}",), "there are 20; at least 50 for 2 members"),
    ],
)
def test_check_refuses_a_hybrid_without_enough_validation_users(folder: Path, sets: tuple[str, ...], said: str) -> None:
    problems = [str(problem) for problem in check(load_pipeline("scripted.yaml", sets, folder / "x"))]
    (found,) = [one for one in problems if "hybrid" in one]
    assert said in found
