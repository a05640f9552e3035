"""`msr sweep`: what may be searched, that a killed search goes on, that test users stay unseen."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.config.loader import load_pipeline
from msr_adapter.errors import StageError, UserError
from msr_adapter.files import write_json
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.progress import Reporter
from msr_adapter.workflows.sweep.outcome import Outcome
from msr_adapter.workflows.sweep.search import TrialResult, plan_sweep, search
from msr_adapter.workflows.sweep.space import ListedValues, NumberRange, read_space
from tests.support.scripted_pipeline import SCRIPTED, pretend_to_train

QUIET = Reporter(quiet=True)
SPACE = "train.learning_rate: {low: 1e-5, high: 1e-3, log: true}\ntrain.epochs: [1, 2]\n"


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(SCRIPTED)
    Path("space.yaml").write_text(SPACE)


def worth(c: Context) -> float:
    """What the pretended training is worth: best at a rate of 1e-4 and two epochs."""
    train = c.pipeline.train
    return 0.9 - abs(train.learning_rate - 1e-4) * 100 - (0.1 if train.epochs == 1 else 0)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Let a training take no time; return which settings were trained, in their order."""
    asked: list[tuple[float, float]] = []

    def pretend(c: Context) -> dict[str, Any]:
        asked.append((c.pipeline.train.learning_rate, c.pipeline.train.epochs))
        value = worth(c)
        points = [{"step": 0, "value": 0.1, "low": 0.0, "high": 0.2, "loss": 1.0},
                  {"step": 9, "value": value, "low": value - 0.1, "high": value + 0.1, "loss": 0.5}]  # fmt: skip
        write_json(c.out / "selection.json", {"points": points, "chosen": 9, "users": 7, "metric": "gauc"})
        return pretend_to_train(c)

    let_train(monkeypatch, pretend)
    return asked


def let_train(monkeypatch: pytest.MonkeyPatch, pretend: Callable[[Context], dict[str, Any]]) -> None:
    stages = tuple(replace(stage, run=pretend) if stage.name == "train" else stage for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)
    monkeypatch.setattr("msr_adapter.pipeline.runner.STAGES", stages)


def swept(trials: int, space: str = "space.yaml") -> list[TrialResult]:
    return search(plan_sweep("p.yaml", [], None, read_space(Path(space)), trials), QUIET)


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["sweep", "p.yaml", "--space", "space.yaml", *arguments])


def test_a_space_is_read_with_its_kinds() -> None:
    Path("s.yaml").write_text(
        "train.learning_rate: {low: 1e-5, high: 1e-3, log: true}\ntrain.epochs: {low: 1, high: 4}\n"
        "templates: [demo, null]\ntrain.images: [true, false]\n"
    )
    space = read_space(Path("s.yaml"))
    assert space.dimensions == {
        "train.learning_rate": NumberRange(1e-5, 1e-3, log=True),
        "train.epochs": NumberRange(1, 4),
        "templates": ListedValues(("demo", None)),
        "train.images": ListedValues((True, False)),
    }
    assert space.size is None
    assert [each.whole for each in space.dimensions.values() if isinstance(each, NumberRange)] == [False, True]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no settings to search"),
        ("train.epochs: 3", "one value"),
        ("train.epochs: []", "not a list of plain values"),
        ("train.epochs: [1, 1]", "stands there twice"),
        ("train.epochs: {low: 3, high: 1}", "low 3 is not below high 1"),
        ("train.epochs: {low: 1}", "no low or no high"),
        ("train.epochs: {low: 1, high: 2, lgo: true}", "unknown key `lgo`"),
        ("train.epochs: {low: 0, high: 2, log: true}", "logarithmic range from zero"),
        ("train.epochs: {low: a, high: 2}", "an end that is not a number"),
        ("split.max_history: [5, 10]", "cannot be searched"),
        ("evaluate.protocol: [next-item, paper]", "cannot be searched"),
        ("seed: [1, 2]", "cannot be searched"),
        ("train.keep: [best, last]", "cannot be searched"),
        ("train.selection.metric: [gauc, auc]", "cannot be searched"),
        ("train.epochs: [1, 2", "not valid YAML"),
    ],
)
def test_what_is_no_space_is_refused_with_its_line(text: str, told: str) -> None:
    Path("s.yaml").write_text(text)
    with pytest.raises(UserError, match=r"s\.yaml") as caught:
        read_space(Path("s.yaml"))
    assert told in str(caught.value)


def test_values_that_no_pipeline_may_have_are_told_before_anything_runs(trained: list[Any]) -> None:
    Path("s.yaml").write_text("train.epochs: [1, -2]\ntrain.lerning_rate: {low: 1e-5, high: 1e-3}\n")
    with pytest.raises(UserError) as caught:
        swept(3, "s.yaml")
    assert len(caught.value.problems) == 2
    assert "s.yaml:1" in str(caught.value)
    assert "s.yaml:2" in str(caught.value)
    assert "lerning_rate" in str(caught.value)
    assert trained == []
    assert not Path("runs").exists()


def test_trials_end_at_the_training_and_the_best_one_becomes_a_pipeline(trained: list[tuple[float, float]]) -> None:
    done = msr("--trials", "6", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [trial["number"] for trial in found["trials"]] == [1, 2, 3, 4, 5, 6]
    assert len(trained) == 6
    best = max(found["trials"], key=lambda trial: trial["value"])
    assert found["best"] == best["number"]
    for trial in found["trials"]:
        assert {path.name for path in Path(trial["run"]).iterdir()}.isdisjoint({"trained", "evaluate", "baselines"})
    written = yaml.safe_load(Path(found["best_pipeline"]).read_text())
    assert written["evaluate"] == {"sweep": {"trials": 6, "metric": "auc", "users": 7}}
    loaded = load_pipeline(found["best_pipeline"])
    assert loaded.pipeline.train.learning_rate == best["settings"]["train.learning_rate"]
    assert loaded.run_dir == Path(best["run"])
    assert (Path(found["best_pipeline"]).parent / "sweep.svg").read_text().startswith("<svg")


def test_the_final_evaluation_trains_nothing_again_and_says_how_many_trials_there_were(trained: list[Any]) -> None:
    done = msr("--trials", "3", "--final", "--json", "--quiet")
    assert done.exit_code == 0, done.output
    assert len(trained) == 3
    best = next(t for t in json.loads(done.stdout)["trials"] if t["number"] == json.loads(done.stdout)["best"])
    metrics = json.loads((Path(best["run"]) / "evaluate" / "metrics.json").read_text())
    assert any("best of 3 trials by AUC on 7 validation users" in each["text"] for each in metrics["findings"])


def test_a_second_call_goes_on_and_a_smaller_one_does_nothing(trained: list[tuple[float, float]]) -> None:
    first = swept(3)
    assert swept(3) == first
    assert len(trained) == 3
    assert swept(5)[:3] == first
    assert len(trained) == 5
    assert len(set(trained)) == 5


def test_a_killed_sweep_ends_with_the_trials_of_one_that_was_not(
    trained: list[tuple[float, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = [(one.settings, one.value) for one in swept(5)]
    Path("other.yaml").write_text(SPACE)
    calls = iter(range(100))

    def killed(c: Context) -> dict[str, Any]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        value = worth(c)
        points = [{"step": 9, "value": value, "low": 0.0, "high": 1.0, "loss": 0.5}]
        write_json(c.out / "selection.json", {"points": points, "chosen": 9, "users": 7, "metric": "gauc"})
        return pretend_to_train(c)

    let_train(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        swept(5, "other.yaml")
    assert [(one.settings, one.value) for one in swept(5, "other.yaml")] == whole


def test_a_small_space_is_tried_whole_and_no_more(trained: list[tuple[float, float]]) -> None:
    Path("s.yaml").write_text("train.epochs: [1, 2]\ntrain.learning_rate: [1e-4, 2e-4]\n")
    found = swept(50, "s.yaml")
    assert {(one.settings["train.learning_rate"], one.settings["train.epochs"]) for one in found} == {
        (rate, epochs) for rate in (1e-4, 2e-4) for epochs in (1, 2)
    }
    assert len(trained) == 4


def test_a_training_that_fails_is_a_trial_without_a_value(monkeypatch: pytest.MonkeyPatch, trained: list[Any]) -> None:
    Path("s.yaml").write_text("train.epochs: [1, 2]\n")
    pretend = next(
        stage.run
        for stage in __import__("msr_adapter.pipeline.planning", fromlist=["x"]).STAGES
        if stage.name == "train"
    )

    def half(c: Context) -> dict[str, Any]:
        if c.pipeline.train.epochs == 1:
            raise StageError("out of memory")
        return pretend(c)

    let_train(monkeypatch, half)
    sweep = plan_sweep("p.yaml", [], None, read_space(Path("s.yaml")), 5)
    found = Outcome(sweep, search(sweep, QUIET))
    assert sorted((one.settings["train.epochs"], one.failure) for one in found.results) == [
        (1, "out of memory"),
        (2, ""),
    ]
    assert found.best.settings == {"train.epochs": 2}
    assert "failed" in str(found.table().rows)

    def never(c: Context) -> dict[str, Any]:
        raise StageError("out of memory")

    let_train(monkeypatch, never)
    Path("t.yaml").write_text("train.learning_rate: [1e-4, 2e-4]\n")
    with pytest.raises(StageError, match="every trial failed"):
        swept(2, "t.yaml")


def test_another_space_under_the_same_name_is_refused(trained: list[Any]) -> None:
    swept(2)
    Path("space.yaml").write_text("train.epochs: [1, 2, 3]\n")
    with pytest.raises(UserError, match="searched another space"):
        swept(3)
