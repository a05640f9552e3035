"""What a run tells its tracker, and that no tracker stops a run or loses anything."""

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from msr_adapter.config.schema import PipelineConfig
from msr_adapter.errors import StageError, UserError
from msr_adapter.pipeline import check, plan, run
from msr_adapter.pipeline.run_tracking import name_of
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.progress import Reporter
from msr_adapter.tracking.courier import Courier
from msr_adapter.tracking.delivery import DeliveryReport
from msr_adapter.tracking.outbox import outboxes
from msr_adapter.tracking.trackers import TRACKERS
from tests.support.tracking import LOSSES, RecordingTracker, load_tracked, train_by, train_with_a_log

MLFLOW = "{kind: mlflow, server: 'http://127.0.0.1:9'}"


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingTracker:
    train_by(monkeypatch)
    return RecordingTracker(tmp_path / "client", monkeypatch)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.pipeline.run_tracking._slow", set())


def run_all(folder: Path, *sets: str, tracking: str = MLFLOW, force: tuple[str, ...] = ()) -> str:
    """Run everything and return what was said."""
    said = io.StringIO()
    reporter = Reporter(console=Console(file=said, width=200, highlight=False))
    run(load_tracked(folder, tracking, *sets), ("evaluate",), force=force, reporter=reporter)
    return "\n".join(line for line in said.getvalue().splitlines() if "tracking" in line)


def test_the_table_has_exactly_the_kinds_that_the_config_allows() -> None:
    schema = PipelineConfig.model_json_schema()
    allowed = schema["properties"]["tracking"]["anyOf"][0]["discriminator"]["mapping"]
    assert set(allowed) == {row.kind for row in TRACKERS}


def test_settings_curves_checkpoints_metrics_and_files_are_sent(tmp_path: Path, tracker: RecordingTracker) -> None:
    said = run_all(tmp_path)
    assert tracker.told("began") == ["run"]
    settings = {key: value for batch in tracker.told("settings") for key, value in batch.items()}
    assert settings["train.model.path"] == "nobody"
    assert settings["seed"] == "0"
    assert not [key for key in settings if key.startswith(("run_dir", "tracking", "execution"))]
    points = tracker.points()
    assert len(points) == len({point[:2] for point in points})  # each once
    assert {step: value for name, step, value in points if name == "train/loss"} == LOSSES
    assert ("validation/ndcg_at_10", 2, 0.4) in points
    assert ("validation/ndcg_at_10_low", 0, 0.1) in points
    metrics = json.loads((tmp_path / "run" / "evaluate" / "metrics.json").read_text())
    for model, judged in metrics["models"].items():
        wanted = judged["metrics"]["ndcg@10"]
        for suffix, part in (("", "mean"), ("_low", "low"), ("_high", "high")):
            assert (f"test/{model}/ndcg_at_10{suffix}", 3, wanted[part]) in points
    assert set(tracker.told("file")) == {"pipeline.json", "metrics.json", "report.html"}
    assert tracker.told("status")[-1] == "FINISHED"
    assert "sent to MLflow: http://127.0.0.1:9/#/experiments/7/runs/run-" in said

    before = len(tracker.told("connected"))
    assert run_all(tmp_path) == ""
    assert len(tracker.told("connected")) == before
    run_all(tmp_path, force=("evaluate",))  # goes on with the same run
    assert len(tracker.told("began")) == 1
    assert tracker.points() == points  # the same numbers


def test_other_settings_are_another_run_and_their_return_goes_on_with_the_first(
    tmp_path: Path, tracker: RecordingTracker
) -> None:
    run_all(tmp_path)
    run_all(tmp_path, "summarize.users.block=2")
    assert len(set(tracker.told("key"))) == 2
    run_all(tmp_path)
    assert len(tracker.told("began")) == 2
    assert len(outboxes(tmp_path / "run")) == 2


def test_a_tracker_that_is_down_is_told_once_and_what_it_lacks_is_sent_later(
    tmp_path: Path, tracker: RecordingTracker
) -> None:
    tracker.behave("down")
    said = run_all(tmp_path).splitlines()
    assert len([line for line in said if "will be tried again" in line]) <= 1
    assert "msr track" in said[-1]
    assert "hunter2" not in "".join(said)
    assert "12345678" not in "".join(said)
    assert (tmp_path / "run" / "evaluate" / "report.html").exists()
    tracker.behave("up")
    run_all(tmp_path)
    assert {name for name, _, _ in tracker.points()} >= {"train/loss", "test/trained/ndcg_at_10"}
    assert len(tracker.told("began")) == 1


def test_a_tracker_that_let_a_command_down_is_waited_for_less_by_its_next_runs(
    tmp_path: Path, tracker: RecordingTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def finish(courier: Courier, seconds: float) -> DeliveryReport:
        waited.append(seconds)
        return DeliveryReport(error="it took longer")

    monkeypatch.setattr(Courier, "finish", finish)
    monkeypatch.setattr(Courier, "start", lambda courier: None)
    run_all(tmp_path)
    run_all(tmp_path)
    assert waited == [60, 5]


def test_a_run_that_fails_is_failed_and_then_goes_on(
    tmp_path: Path, tracker: RecordingTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(c: Context) -> dict[str, object]:
        raise StageError("the GPU is on fire")

    train_by(monkeypatch, fail)
    with pytest.raises(StageError, match="on fire"):
        run_all(tmp_path)
    assert tracker.told("status")[-1] == "FAILED"
    train_by(monkeypatch, train_with_a_log)
    run_all(tmp_path)
    assert tracker.told("status")[-1] == "FINISHED"
    assert len(tracker.told("began")) == 1


def test_an_interrupted_run_is_killed(
    tmp_path: Path, tracker: RecordingTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(c: Context) -> dict[str, object]:
        raise KeyboardInterrupt

    train_by(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path)
    [folder] = outboxes(tmp_path / "run")
    outbox = folder.read()
    assert outbox is not None
    assert outbox.status == "KILLED"


def test_no_secret_reaches_the_tracker(
    tmp_path: Path, tracker: RecordingTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "canary-of-the-shop")
    run_all(tmp_path, "embedding.item_prompt=canary-of-the-shop")
    for path in (tmp_path / "run" / "tracking").rglob("*"):
        if path.is_file():
            assert b"canary-of-the-shop" not in path.read_bytes(), path
    assert "canary" not in json.dumps(tracker.told("settings"))


def test_the_curve_is_sent_while_the_training_runs(
    tmp_path: Path, tracker: RecordingTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(c: Context) -> dict[str, object]:
        model = c.folder.unfinished("train") / "abc" / "model"
        model.mkdir(parents=True)
        (model / "trainer_log.jsonl").write_text('{"current_steps": 1, "loss": 0.9}\n{"current_steps": 2, "lo')
        for _ in range(300):
            if ("train/loss", 1, 0.9) in tracker.points():
                break
            time.sleep(0.1)
        assert ("train/loss", 1, 0.9) in tracker.points()
        return train_with_a_log(c)

    train_by(monkeypatch, slowly)
    run_all(tmp_path, tracking=f"{MLFLOW[:-1]}, interval: 0.2}}")
    assert {step: value for name, step, value in tracker.points() if name == "train/loss"} == LOSSES


def test_a_tracker_makes_no_stage_out_of_date(tmp_path: Path, tracker: RecordingTracker) -> None:
    run(load_tracked(tmp_path, "null"), ("evaluate",), reporter=Reporter(quiet=True))
    assert not (tmp_path / "run" / "tracking").exists()
    assert set(plan(load_tracked(tmp_path, MLFLOW)).values()) == {"up to date"}
    run_all(tmp_path)
    assert ("train/loss", 1, 0.9) in tracker.points()


def test_a_missing_library_or_address_is_found_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("msr_adapter.pipeline.run_tracking.find_spec", lambda name: None)
    found = {problem.field: str(problem) for problem in check(load_tracked(tmp_path, "{kind: mlflow}"))}
    assert "pip install 'msr-adapter[mlflow]'" in found["tracking.kind"]
    assert "MLFLOW_TRACKING_URI is not set" in found["tracking.server"]


def test_a_password_in_an_address_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without a password"):
        load_tracked(tmp_path, "{kind: mlflow, server: 'http://me:secret@host'}")


def test_runs_in_runs_are_called_after_them() -> None:
    assert name_of(Path("/a/runs/demo")) == "demo"
    assert name_of(Path("/a/runs/demo/ablations/direct")) == "demo/ablations/direct"
    assert name_of(Path("/a/runs/demo/sweeps/space/trials/ab12")) == "demo/sweeps/space/trials/ab12"
