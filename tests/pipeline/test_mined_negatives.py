"""Whole runs whose training negatives are mined from an earlier run: what is asked, drawn, made again and refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import UserError
from msr_adapter.generation import CompletionCache
from msr_adapter.pipeline import WHOLE, check, notes, plan, run
from msr_adapter.pipeline.earlier_run import open_earlier
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.progress import Reporter
from msr_adapter.score import score
from msr_adapter.stage_arguments import Client, Job
from tests.support.scripted_pipeline import pretend_to_train, scripted

QUIET = Reporter(quiet=True)
MINED = "train.negatives={kind: mined, run: first, count: 2, top: 5, among: 20}"


def train(c: Context) -> dict[str, Any]:
    """Pretend, and leave all that a full model is known by."""
    found = pretend_to_train(c)
    (c.out / "model" / "config.json").write_text("{}")
    return found


@pytest.fixture(autouse=True)
def _pretends(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch)


def _pretend(patch: pytest.MonkeyPatch) -> None:
    stages = tuple(replace(stage, run=train) if stage.name == "train" else stage for stage in STAGES)
    patch.setattr("msr_adapter.pipeline.planning.STAGES", stages)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an earlier run, and one that mined it."""
    folder = tmp_path_factory.mktemp("mined")
    with pytest.MonkeyPatch.context() as patch:
        _pretend(patch)
        patch.chdir(folder)
        Path("first.yaml").write_text(scripted().replace("name: scripted", "name: first"))
        Path("second.yaml").write_text("extends: first.yaml\nname: second\n")
        run(first(), WHOLE, reporter=QUIET)
        run(second(), WHOLE, reporter=QUIET)
    return folder


@pytest.fixture
def folder(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def first(*sets: str, run_dir: str = "runs/first") -> LoadedPipeline:
    return load_pipeline("first.yaml", sets, Path.cwd() / run_dir)


def second(*sets: str, run_dir: str = "runs/second") -> LoadedPipeline:
    return load_pipeline("second.yaml", [MINED, *sets], Path.cwd() / run_dir)


def table(path: str) -> pl.DataFrame:
    return pl.read_parquet(Path("runs") / path)


def states(loaded: LoadedPipeline) -> set[str]:
    """The stages that would run."""
    return {name for name, state in plan(loaded).items() if state != "up to date"}


def asked(earlier: str, known: pl.Expr) -> dict[str, list[str]]:
    """Return whom an earlier run's model should be asked about what: what is popular in training and not known."""
    log, examples = table(f"{earlier}/data/interactions.parquet"), table(f"{earlier}/data/examples.parquet")
    counts = log.filter("training").group_by("item_id").len()
    items = table(f"{earlier}/data/items.parquet").select("item_id").join(counts, on="item_id", how="left")
    popular = items.fill_null(0).sort("len", "item_id", descending=[True, False])["item_id"].to_list()
    trained = examples.filter(pl.col("split") == "train")["user_id"].unique().to_list()
    seen = {user: set(log.filter(known & (pl.col("user_id") == user))["item_id"]) for user in trained}
    return {user: [item for item in popular if item not in seen[user]][:20] for user in trained}


def lists(path: str) -> dict[str, list[str]]:
    return dict(table(path).group_by("user_id", maintain_order=True).agg("item_id").iter_rows())


@pytest.mark.usefixtures("folder")
def test_training_users_are_asked_about_what_is_popular_and_not_theirs() -> None:
    assert lists("second/mine/mined.parquet") == asked("first", known=pl.lit(True))


@pytest.mark.usefixtures("folder")
def test_what_is_held_out_of_a_training_user_is_asked_about_only_where_it_is_in_the_future() -> None:
    """By leave-last-out a held-out item is never a negative of its user; by time, nobody knows it yet."""
    times = table("first/data/interactions.parquet")["timestamp"]
    moments = [int(times.quantile(share) or 0) for share in (0.6, 0.8)]
    by_time = f"split={{kind: temporal, validation_from: {moments[0]}, test_from: {moments[1]}}}"
    for split, known in (("split={kind: leave-last-out}", pl.lit(True)), (by_time, pl.col("training"))):
        name = "time" if "temporal" in split else "last"
        run(first(split, run_dir=f"runs/{name}"), ("train",), reporter=QUIET)
        run(second(split, f"train.negatives.run={name}", run_dir=f"runs/{name}-mined"), ("data",), reporter=QUIET)
        assert lists(f"{name}-mined/mine/mined.parquet") == asked(name, known)


@pytest.mark.usefixtures("folder")
def test_the_model_is_asked_with_the_history_before_the_latest_training_target() -> None:
    """The scores are those of the very prompts that training has: of its own negatives, where they were asked about."""
    earlier = open_earlier(Path("runs/first").resolve())
    out = Path("scored")
    out.mkdir()
    with CompletionCache(out / "cache.sqlite") as cache:
        client = Client(earlier.prompts, ScriptedBackend(trained=True), cache)
        score(earlier.pipeline.train, earlier.dirs, client, Job(out, QUIET), split="train")
    examples = table("first/data/examples.parquet").select("example_id", "user_id")
    theirs = pl.read_parquet(out / "scores.parquet").join(examples, on="example_id")
    both = theirs.join(table("second/mine/mined.parquet"), on=["user_id", "item_id"], suffix="_mined")
    assert len(both) > 0
    assert both["logit"].to_list() == both["score_mined"].to_list()


@pytest.mark.usefixtures("folder")
def test_negatives_are_among_the_top_and_the_held_out_lists_are_those_of_the_first() -> None:
    examples, rows = table("second/data/examples.parquet"), table("second/data/candidates.parquet")
    mined = table("second/mine/mined.parquet").sort("score", descending=True).group_by("user_id").head(5)
    top = mined.select("user_id", "item_id")
    owned = rows.join(examples.select("example_id", "user_id", "split"), on="example_id")
    drawn = owned.filter((pl.col("split") == "train") & (pl.col("label") == 0))
    assert len(drawn) == 2 * owned["user_id"].filter(owned["split"] == "train").n_unique()
    assert drawn.join(top, on=["user_id", "item_id"], how="anti").is_empty()
    held_out = pl.col("example_id").is_in(examples.filter(pl.col("split") != "train")["example_id"].implode())
    assert rows.filter(held_out).equals(table("first/data/candidates.parquet").filter(held_out))
    counts = json.loads(Path("runs/second/data/audit.json").read_text())["counts"]
    assert counts["users_with_mined_items"] == owned["user_id"].filter(owned["split"] == "train").n_unique()


@pytest.mark.usefixtures("folder")
def test_nothing_is_computed_twice() -> None:
    assert states(second()) == set()
    again = run(second(), WHOLE, reporter=QUIET)
    assert {outcome.state for outcome in again.stages} == {"up to date"}
    counts = json.loads(Path("runs/second/mine/manifest.json").read_text())["summary"]
    assert counts["computed"] == counts["candidates"] == len(table("second/mine/mined.parquet"))
    [forced, *_] = run(second(), ("mine",), force=("mine",), reporter=QUIET).stages
    assert (forced.summary["computed"], forced.summary["cached"]) == (0, counts["candidates"])
    assert states(second()) == set()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("change", "begins"),
    [("train.negatives.top=4", "data"), ("train.negatives.among=19", "mine"),
     ("train.negatives.retriever=item-knn", "mine"), ("train.negatives={kind: uniform, count: 2}", "data")],
)  # fmt: skip
def test_a_key_makes_again_what_depends_on_it(change: str, begins: str) -> None:
    assert next(name for name, state in plan(second(change)).items() if state != "up to date") == begins


@pytest.mark.usefixtures("folder")
def test_an_earlier_run_that_is_trained_again_is_mined_again() -> None:
    run(first(run_dir="runs/other"), WHOLE, reporter=QUIET)
    other = second("train.negatives.run=other")
    assert states(other) == set()  # by content, and not by name
    run(first("train.negatives=3", run_dir="runs/other"), WHOLE, reporter=QUIET)
    assert plan(other)["mine"] == "sources changed"
    assert plan(other)["data"] == "after mine"
    run(first("evaluate.baselines=[popularity, recency]", run_dir="runs/first"), WHOLE, reporter=QUIET)
    assert states(second()) == set()


@pytest.mark.usefixtures("folder")
def test_it_is_said_beforehand_how_often_the_model_is_asked() -> None:
    loaded = second(run_dir="runs/new")
    [told] = [note for note in notes(loaded, plan(loaded)) if note.startswith("train.negatives")]
    assert told == (
        "train.negatives: the model of first is asked about 20 items for each of 6 training users: 120 prompts at "
        "most, once"
    )


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("sets", "found", "step"),
    [
        (("train.negatives.run=nowhere",), "runs/nowhere: no folder", "Run `msr run nowhere` first, or name another"),
        (("train.negatives.run=second",), "runs/second is the run's own folder", "Give this pipeline another name"),
        (("data.source.items=59",), "runs/first has data.source.items: 60, and here it is 59", "Set data.source.items"),
        (("seed=7",), "runs/first has seed: 0, and here it is 7", "Set seed as there, or name a run that was made"),
        (("split.kind=leave-last-out",), "runs/first has split.kind: user-holdout, and here it is leave-last-out", ""),
    ],
)
def test_a_run_that_does_not_fit_is_refused_by_name(sets: tuple[str, ...], found: str, step: str) -> None:
    [problem] = check(second(*sets))
    assert (problem.where, problem.field) == ("--set", "train.negatives.run")
    assert found in problem.found
    assert problem.next_step.startswith(step)


@pytest.mark.usefixtures("folder")
def test_a_run_without_a_model_or_with_another_data_stage_is_refused() -> None:
    run(first(run_dir="runs/bare"), ("data",), reporter=QUIET)
    [problem] = check(second("train.negatives.run=bare"))
    assert "runs/bare/train: no finished training here" in problem.found
    assert problem.next_step == "Run `msr run bare` first, or name another run"
    with pytest.raises(UserError, match="no finished training here"):
        run(second("train.negatives.run=bare", run_dir="runs/refused"), WHOLE, reporter=QUIET)
    assert not Path("runs/refused").exists()
    run(first(run_dir="runs/moved"), WHOLE, reporter=QUIET)
    run(first("seed=3", run_dir="runs/moved"), ("data",), reporter=QUIET)
    [problem] = check(second("train.negatives.run=moved"))
    assert "runs/moved: its data is not what its settings and its log make now (config changed)" in problem.found
    assert problem.next_step == "Run `msr run moved` again, or name another run"


@pytest.mark.usefixtures("folder")
def test_logs_are_compared_by_their_content() -> None:
    rows = table("first/data/interactions.parquet").select("user_id", "item_id", "timestamp")
    log, same, longer = Path("log.csv"), Path("same.csv"), Path("longer.csv")
    for path in (log, same):
        rows.write_csv(path)
    pl.concat([rows, rows.head(1)]).write_csv(longer)

    def source(path: Path) -> str:
        return f"data.source={{kind: table, interactions: {path.resolve()}}}"

    run(first(source(log), run_dir="runs/logged"), ("train",), reporter=QUIET)
    assert check(second(source(same), "train.negatives.run=logged")) == []
    [problem] = check(second(source(longer), "train.negatives.run=logged"))
    assert "runs/logged was made of other files (interactions)" in problem.found
    longer.replace(log)
    [problem, _] = check(second(source(same), "train.negatives.run=logged"))
    assert "runs/logged: its data is not what its settings and its log make now (sources changed)" in problem.found
