"""`msr track`: what a tracker lacks of a run is sent later, and nothing is computed."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.run_folder_mark import MARK
from msr_adapter.tracking.outbox import Outbox, OutboxFolder, Point
from tests.support.tracking import RecordingTracker


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["track", *arguments])


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingTracker:
    return RecordingTracker(tmp_path / "client", monkeypatch)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = tmp_path / "run"
    for below in ("", "ablations/direct"):
        outbox = Outbox(
            {"kind": "mlflow", "server": "http://127.0.0.1:9"}, f"key{len(below)}", f"run/{below}", "demo", 1
        )
        outbox.put([Point("train/loss", 1, 0.5, 1)])
        OutboxFolder(root / below / "tracking" / "mlflow-1").write(outbox)
    (root / MARK).touch()
    return root


def test_what_is_missing_of_a_run_and_its_variants_is_sent_once(run: Path, tracker: RecordingTracker) -> None:
    told = json.loads(msr(str(run), "--json", "--quiet").stdout)
    assert [(row["run"], row["sent"] > 0, row["error"]) for row in told["runs"]] == [
        ("run/", True, ""),
        ("run/ablations/direct", True, ""),
    ]
    assert len(tracker.points()) == 2
    assert "2 runs up to date in the tracker" in msr(str(run)).stdout
    assert len(tracker.points()) == 2
    assert msr(str(run), "--again", "--quiet").exit_code == 0
    assert len(tracker.points()) == 4


def test_a_tracker_that_is_still_down_is_exit_code_1_and_nothing_is_lost(run: Path, tracker: RecordingTracker) -> None:
    tracker.behave("down")
    done = msr(str(run))
    assert done.exit_code == 1
    assert "2 of 2 runs could not be sent: ConnectionError" in done.stderr
    assert "same command" in done.stderr
    assert "hunter2" not in done.output
    tracker.behave("up")
    assert msr(str(run)).exit_code == 0


def test_a_run_that_was_never_tracked_is_told_how(tmp_path: Path) -> None:
    (tmp_path / MARK).touch()
    done = msr(str(tmp_path))
    assert done.exit_code == 2
    assert "nothing was ever tracked here" in done.stderr
    assert "--set 'tracking={kind: mlflow" in done.stderr
