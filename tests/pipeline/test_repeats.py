"""Several trainings of one model: each in its folder, all else shared; means, spread and tests over all of them."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.cli.app import app
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import ModelConfig
from msr_adapter.files import digest
from msr_adapter.llamafactory.model_weights import Weights
from msr_adapter.pipeline.checks import check
from msr_adapter.pipeline.fingerprints import train_config
from msr_adapter.pipeline.kept import runs_below
from msr_adapter.pipeline.planning import plan
from msr_adapter.pipeline.repeated_trainings import repeat_seed, repeated, training_seed, training_seeds
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGES
from tests.support.scripted_pipeline import scripted

TRAINED: list[int] = []
"""Seeds of the trainings that were done."""


def pretend(c: Context) -> dict[str, Any]:
    """Write "weights" that are the seed."""
    TRAINED.append(training_seed(c.pipeline))
    (c.out / "model").mkdir()
    (c.out / "model" / "model.safetensors").write_text(str(TRAINED[-1]))
    (c.out / "model" / "config.json").write_text("{}")
    return {}


def by_weights(_: ModelConfig, weights: Weights) -> ScriptedBackend:
    """Return a backend whose answers depend on the weights."""
    backend = ScriptedBackend(trained=bool(weights.folders))
    backend.identity = digest(["scripted", weights.stamps()])
    return backend


def stage_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = tuple(replace(stage, run=pretend) if stage.name == "train" else stage for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)
    monkeypatch.setattr("msr_adapter.backends.scripted.make", by_weights)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repeats")
    (folder / "scripted.yaml").write_text(scripted(40, "[0.5, 0.1, 0.4]"))
    with pytest.MonkeyPatch.context() as patch:
        stage_for(patch)
        patch.chdir(folder)
        msr("run", "scripted.yaml", "--run-dir", "run", "--set", "train.repeats=3")
        msr("run", "scripted.yaml", "--run-dir", "once")
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the runs, to be changed."""
    shutil.copytree(finished, tmp_path / "copy")
    stage_for(monkeypatch)
    monkeypatch.chdir(tmp_path / "copy")
    TRAINED.clear()
    return tmp_path / "copy"


def msr(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*words], env={"COLUMNS": "250"})
    assert done.exit_code == code, done.output + str(done.exception)
    return done.output


def metrics_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "evaluate" / "metrics.json").read_text())
    return found


def again(*sets: str, force: tuple[str, ...] = ()) -> str:
    words = [word for each in sets for word in ("--set", each)] + [word for one in force for word in ("--force", one)]
    return msr("run", "scripted.yaml", "--run-dir", "run", *words)


def test_each_training_has_a_seed_and_a_folder_and_shares_all_else(finished: Path) -> None:
    run = finished / "run"
    seeds = training_seeds(load_pipeline(str(finished / "scripted.yaml"), ("train.repeats=3",)).pipeline)
    assert len(set(seeds)) == 3
    folders = [run, run / "trainings" / "2", run / "trainings" / "3"]
    assert [int((one / "train" / "model" / "model.safetensors").read_text()) for one in folders] == seeds
    for name in ("data/examples.parquet", "users/users.parquet", "dataset/dataset_info.json"):
        assert len({(one / name).stat().st_ino for one in folders}) == 1  # one file, thrice linked
    assert not (folders[1] / "evaluate").exists()
    assert metrics_of(run)["trainings"]["seeds"] == seeds
    log = (run / "run.log").read_text()
    assert f"training 2 of 3, seed {seeds[1]}" in log
    assert runs_below(run) == folders


def test_means_are_over_trainings_and_intervals_are_wider(finished: Path) -> None:
    run, once = metrics_of(finished / "run"), metrics_of(finished / "once")
    scores = pl.read_parquet(finished / "run" / "evaluate" / "candidate_scores.parquet")
    assert {"score:trained", "training:2", "training:3"} <= set(scores.columns)
    for number in (2, 3):
        own = pl.read_parquet(finished / "run" / "trainings" / str(number) / "score" / "scores.parquet")
        assert own["logit"].equals(scores[f"training:{number}"], check_names=False)
    primary = run["primary"]
    each = run["trainings"]["means"][primary]
    ours = run["models"]["trained"]["metrics"][primary]
    assert ours["mean"] == pytest.approx(np.mean(each))
    assert each[0] == pytest.approx(once["models"]["trained"]["metrics"][primary]["mean"])
    assert len(set(each)) == 3
    assert run["trainings"]["spread"][primary]["observed"] == pytest.approx(np.std(each, ddof=1))
    assert "trainings" not in once
    assert set(run["trainings"]["needed"]) == {"popularity", "oracle"}
    page = (finished / "run" / "evaluate" / "report.html").read_text()
    assert "The trainings" in page
    assert all(f"{value:.3f}" in page for value in each)
    (told,) = [one["text"] for one in run["findings"] if "mean of 3 trainings" in one["text"]]
    assert "no chance of the users" in told
    for model in ("popularity", "oracle"):  # what is not trained stays as it is
        assert run["models"][model] == once["models"][model]


def test_a_run_without_repeats_is_what_it_was(finished: Path) -> None:
    """The seed of the training is the pipeline's unless it is given, and changes no fingerprint."""
    plain, given = (
        load_pipeline(str(finished / "scripted.yaml"), sets).pipeline for sets in ((), ("train.seed=0", "seed=0"))
    )
    assert train_config(plain) == train_config(given)
    assert "repeats" not in json.dumps(train_config(plain))
    other = load_pipeline(str(finished / "scripted.yaml"), ("train.seed=5",)).pipeline
    assert train_config(other) != train_config(plain)
    assert (training_seed(plain), training_seed(other)) == (0, 5)


def test_the_seeds_of_neighbouring_pipelines_have_nothing_in_common() -> None:
    seeds = {repeat_seed(first, number) for first in range(20) for number in range(2, 12)}
    assert len(seeds) == 200
    assert all(20 < seed < 2**32 for seed in seeds)


def test_a_tracker_is_told_of_the_run_alone(finished: Path) -> None:
    """The further trainings' metrics are in the run's means; as runs of their own they would be called 2, 3, ..."""
    loaded = load_pipeline(str(finished / "scripted.yaml"), ("train.repeats=3", "tracking={kind: tensorboard}"))
    one = repeated(loaded, 2, finished / "cache.sqlite")
    assert loaded.pipeline.tracking is not None
    assert (one.pipeline.tracking, one.resolved["tracking"]) == (None, None)
    assert (one.pipeline.train.repeats, one.pipeline.cache) == (1, finished / "cache.sqlite")


def test_more_repeats_train_the_new_ones_alone_and_fewer_none(folder: Path) -> None:
    again("train.repeats=3")
    assert TRAINED == []
    again("train.repeats=4")
    assert [repeat_seed(0, 4)] == TRAINED
    again("train.repeats=2")
    assert len(TRAINED) == 1
    assert len(metrics_of(folder / "run")["trainings"]["seeds"]) == 2
    again()
    assert len(TRAINED) == 1
    assert "trainings" not in metrics_of(folder / "run")
    assert (folder / "run" / "trainings" / "4" / "train").is_dir()  # kept


def test_a_killed_training_goes_on_and_finished_ones_are_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(c: Context) -> dict[str, Any]:
        if training_seed(c.pipeline) == repeat_seed(0, 5):
            raise KeyboardInterrupt
        return pretend(c)

    def with_training(function: Callable[[Context], dict[str, Any]]) -> None:
        stages = tuple(replace(stage, run=function) if stage.name == "train" else stage for stage in STAGES)
        monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)

    with_training(fail)
    CliRunner().invoke(app, ["run", "scripted.yaml", "--run-dir", "run", "--set", "train.repeats=5"])
    assert [repeat_seed(0, 4)] == TRAINED
    with_training(pretend)
    again("train.repeats=5")
    assert [repeat_seed(0, 4), repeat_seed(0, 5)] == TRAINED
    assert len(metrics_of(folder / "run")["trainings"]["seeds"]) == 5


def test_force_train_makes_every_training_again(folder: Path) -> None:
    again("train.repeats=3", force=("train",))
    assert [0, repeat_seed(0, 2), repeat_seed(0, 3)] == TRAINED


def test_train_trains_all_and_scores_none(folder: Path) -> None:
    msr("train", "scripted.yaml", "--run-dir", "fresh", "--set", "train.repeats=2")
    assert [0, repeat_seed(0, 2)] == TRAINED
    assert not (folder / "fresh" / "trainings" / "2" / "score").exists()


def test_commands_that_use_the_first_model_train_no_other(folder: Path) -> None:
    msr("recommend", "scripted.yaml", "--run-dir", "fresh", "--set", "train.repeats=2", "--out", "recs.csv")
    assert TRAINED == [0]


def test_the_evaluation_is_out_of_date_when_a_training_is(folder: Path) -> None:
    loaded = load_pipeline("scripted.yaml", ("train.repeats=3",), folder / "run")
    assert set(plan(loaded).values()) == {"up to date"}
    shutil.rmtree(folder / "run" / "trainings" / "3" / "score")
    assert plan(loaded)["evaluate"] == "scores of training 3 changed"
    again("train.repeats=3")
    assert TRAINED == []
    assert set(plan(loaded).values()) == {"up to date"}


def test_comparisons_cover_trainings_and_say_how_many_they_need(folder: Path) -> None:
    told = json.loads(msr("compare", "run", "once", "--json"))
    rows = {row["metric"]: row for row in told["differences"]}
    primary = told["tests"]["primary"]
    assert rows[primary]["trainings"] == [1, 3]
    ours = metrics_of(folder / "run")["models"]["trained"]["metrics"]
    assert told["models"]["run"]["metrics"][primary] == ours[primary]
    text = " ".join(msr("compare", "run", "once", "--metric", primary).split())
    assert "once (1 training) minus run (3 trainings): interval and p cover users and trainings" in text
    assert "p adjusted (Holm)" in text
    assert "Of once there is one training" in text
    alone = msr("compare", "once", "once:popularity", "--metric", primary)
    assert "training" not in alone
    assert "max-T" in alone


def test_ablations_are_trained_as_often(folder: Path) -> None:
    msr("ablate", "scripted.yaml", "--run-dir", "run", "--only", "no-image", "--set", "train.repeats=2", "--train")
    table = (folder / "run" / "ablations" / "ablation.md").read_text()
    assert "intervals and tests cover users and trainings" in table
    assert (folder / "run" / "ablations" / "no-image" / "trainings" / "2" / "score").is_dir()


def test_runs_and_prune_know_them(folder: Path) -> None:
    (row,) = [one for one in json.loads(msr("runs", ".", "--json"))["runs"] if one["name"] == "run"]
    assert row["trainings"] == 3
    again("train.repeats=3", "train.epochs=2")
    found = json.loads(msr("prune", "run", "--stage", "train", "--json"))["kept"]
    assert sorted(one["folder"].split("/kept/")[0] for one in found if "trainings" in one["folder"]) == [
        "trainings/2", "trainings/3"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (("train.launch.nodes=2",), "machines meet for one training"),
        (("evaluate.scorer={path: x, backend: server, server: {url: 'http://127.0.0.1:1/v1'}}",), "one trained model"),
    ],
)
def test_what_cannot_be_repeated_is_refused_by_name(finished: Path, sets: tuple[str, ...], said: str) -> None:
    loaded = load_pipeline(str(finished / "scripted.yaml"), ("train.repeats=3", *sets))
    (found,) = [str(problem) for problem in check(loaded) if "train.repeats" in str(problem)]
    assert said in found
