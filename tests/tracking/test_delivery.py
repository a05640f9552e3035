"""Deliveries of an outbox: what was sent is not sent again, and no client's fault is anybody else's."""

from pathlib import Path

import pytest

from msr_adapter.files import write_json
from msr_adapter.system import locked
from msr_adapter.tracking.courier import Courier, send_now
from msr_adapter.tracking.delivery import BUSY
from msr_adapter.tracking.outbox import Outbox, OutboxFolder, Point, outboxes
from tests.support.tracking import RecordingTracker

SETTINGS = {f"key.{number}": str(number) for number in range(130)}
POINTS = [Point("train/loss", step, 1 / step, 1_000 * step) for step in range(1, 2_502)]


@pytest.fixture
def tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecordingTracker:
    return RecordingTracker(tmp_path / "client", monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> OutboxFolder:
    made = OutboxFolder(tmp_path / "run" / "tracking" / "mlflow-abc")
    outbox = Outbox({"kind": "mlflow", "server": "http://127.0.0.1:9"}, "key1", "demo", "demo", 1_000)
    outbox.settings = SETTINGS
    outbox.put(POINTS)
    outbox.status, outbox.ended = "FINISHED", 9_000
    made.put_json("pipeline.json", {"seed": 0})
    made.write(outbox)
    return made


@pytest.mark.parametrize("moment", ["began", "settings", "points", "file", "status"])
def test_a_delivery_that_is_killed_is_gone_on_with(
    folder: OutboxFolder, tracker: RecordingTracker, moment: str
) -> None:
    tracker.behave(f"dies at {moment}")
    assert "ended with 9" in send_now(folder, 60).error
    tracker.behave("up")
    assert send_now(folder, 60).error == ""
    assert len(tracker.told("began")) == 1
    assert [(name, step, value) for name, step, value, _ in POINTS] == tracker.points()
    assert {key: value for batch in tracker.told("settings") for key, value in batch.items()} == SETTINGS
    assert tracker.told("file") == ["pipeline.json"]
    assert tracker.told("status") == ["FINISHED"]
    # A run may be there whose id never came back: it is looked for by its key.
    assert tracker.told("searched") == (["tags.`msr.key` = 'key1'"] if moment == "began" else [])


def test_a_tracker_that_hangs_is_left_after_a_while(folder: OutboxFolder, tracker: RecordingTracker) -> None:
    tracker.behave("hangs")
    assert "longer than 1 s" in send_now(folder, 1).error
    tracker.behave("up")
    assert send_now(folder, 60).sent == len(POINTS) + 3


def test_only_what_is_new_is_sent(folder: OutboxFolder, tracker: RecordingTracker) -> None:
    send_now(folder, 60)
    connected = len(tracker.told("connected"))
    assert send_now(folder, 60).sent == 0
    assert len(tracker.told("connected")) == connected
    outbox = folder.read()
    assert outbox is not None
    outbox.put([Point("train/loss", 1, 1.0, 5), Point("train/loss", 2, 0.25, 5), Point("test/mrr", 2, 0.1, 5)])
    folder.write(outbox)
    before = len(tracker.points())
    assert send_now(folder, 60).sent == 2
    assert set(tracker.points()[before:]) == {("train/loss", 2, 0.25), ("test/mrr", 2, 0.1)}


def test_everything_is_sent_anew_to_another_run_when_asked(folder: OutboxFolder, tracker: RecordingTracker) -> None:
    send_now(folder, 60)
    folder.forget()
    send_now(folder, 60)
    assert len(set(tracker.told("key"))) == 2
    assert len(tracker.points()) == 2 * len(POINTS)


def test_a_delivery_beside_a_run_is_one_at_a_time(folder: OutboxFolder, tracker: RecordingTracker) -> None:
    tracker.behave("hangs")
    courier = Courier(folder, "mlflow")
    assert courier.start() is None
    assert courier.start() is None
    courier.stop()
    tracker.behave("up")
    assert courier.finish(60).error == ""


def test_two_processes_do_not_send_at_a_time(folder: OutboxFolder, tracker: RecordingTracker) -> None:
    with locked(folder.lock):
        assert send_now(folder, 60).error == BUSY
    assert tracker.told("connected") == []


def test_an_outbox_that_was_damaged_is_told(folder: OutboxFolder, tracker: RecordingTracker) -> None:
    write_json(folder.root / "outbox.json", {"another": "layout"})
    assert "nothing that can be read" in send_now(folder, 60).error


def test_the_outboxes_of_variants_and_trials_are_found(tmp_path: Path, folder: OutboxFolder) -> None:
    outbox = folder.read()
    assert outbox is not None
    for below in ("ablations/direct", "sweeps/space/trials/ab12"):
        OutboxFolder(tmp_path / "run" / below / "tracking" / "mlflow-x").write(outbox)
    assert len(outboxes(tmp_path / "run")) == 3
    assert outboxes(tmp_path) == []
