"""Real trackers, read back by their own readers: a server of MLflow, an offline folder of wandb, event files."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.tracking.courier import send_now
from msr_adapter.tracking.outbox import Outbox, OutboxFolder, Point
from tests.support.tracking import mlflow_server

POINTS = [
    Point("train/loss", 1, 0.9, 1_700_000_000_000),
    Point("train/loss", 2, 0.7, 1_700_000_001_000),
    Point("test/trained/ndcg_at_10", 2, 0.41, 1_700_000_002_000),
    Point("test/item-knn/ndcg_at_10_low", 2, 0.3, 1_700_000_002_000),
]
SETTINGS = {f"train.key_{number}": str(number) for number in range(130)} | {"long": "x" * 7_000}


def outbox(folder: Path, tracker: dict[str, Any], status: str = "FINISHED") -> OutboxFolder:
    made = OutboxFolder(folder / "run" / "tracking" / str(tracker["kind"]))
    content = Outbox(tracker, "key0123456789abc", "demo/ablations/direct", "demo", 1_700_000_000_000)
    content.settings, content.ended = SETTINGS, 1_700_000_009_000
    content.put(POINTS[:1])
    made.write(content)
    report = folder / "report.html"
    report.write_text("<html>the report</html>")
    made.put_file(report)
    made.put_json("pipeline.json", {"seed": 0})
    return made


def go_on(folder: OutboxFolder, status: str) -> None:
    """Add the other points and end the run."""
    content = folder.read()
    assert content is not None
    content.put(POINTS)
    content.status = status  # type: ignore[assignment]
    folder.write(content)


def delivered(folder: OutboxFolder) -> str:
    told = send_now(folder, 120)
    assert told.error == ""
    return told.url


@pytest.mark.slow
def test_a_real_mlflow_server_has_settings_curves_metrics_and_report(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs mlflow-skinny")
    with mlflow_server(tmp_path) as address:
        folder = outbox(tmp_path, {"kind": "mlflow", "server": address, "experiment": None})
        delivered(folder)
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=address)
        run_id = folder.sent().run_id
        assert client.get_run(run_id).info.status == "RUNNING"
        go_on(folder, "FINISHED")
        assert run_id in delivered(folder)

        experiment = client.get_experiment_by_name("demo")
        [run] = client.search_runs([experiment.experiment_id])
        assert (run.info.run_id, run.info.run_name, run.info.status) == (run_id, "demo/ablations/direct", "FINISHED")
        assert run.info.end_time == 1_700_000_009_000
        assert len(run.data.params) == len(SETTINGS)
        assert run.data.params["train.key_7"] == "7"
        assert run.data.metrics["test/trained/ndcg_at_10"] == 0.41
        history = client.get_metric_history(run_id, "train/loss")
        assert [(one.step, one.value, one.timestamp) for one in history] == [
            (point.step, point.value, point.time) for point in POINTS if point.name == "train/loss"
        ]
        assert {one.path for one in client.list_artifacts(run_id)} == {"report.html", "pipeline.json"}
        there = client.download_artifacts(run_id, "report.html", str(tmp_path))
        assert Path(there).read_text() == "<html>the report</html>"

        # A deleted experiment is said, and the run goes its way.
        client.delete_experiment(experiment.experiment_id)
        folder.forget()
        assert "was deleted in MLflow" in send_now(folder, 60).error
    assert send_now(folder, 60).error  # the server is gone


def test_a_folder_of_wandb_has_settings_curves_and_report(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    folder = outbox(tmp_path, {"kind": "wandb", "project": None, "offline": True})
    delivered(folder)
    go_on(folder, "FINISHED")
    place = Path(delivered(folder))
    assert list(folder.root.glob("wandb/offline-run-*")) == [place]  # one folder with everything
    rows, config = read_wandb(next(place.glob("*.wandb")))
    assert config["train.key_7"] == "7"
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [(1, 0.9), (2, 0.7)]
    assert [row["test/trained/ndcg_at_10"] for row in rows if "test/trained/ndcg_at_10" in row] == [0.41]

    # What was synced is the server's: what comes later is added by another folder.
    (place / f"{next(place.glob('*.wandb')).name}.synced").touch()
    content = folder.read()
    assert content is not None
    content.put([Point("train/loss", 3, 0.5, 1)])
    folder.write(content)
    later = Path(delivered(folder))
    assert later != place
    assert [row["train/loss"] for row in read_wandb(next(later.glob("*.wandb")))[0] if "train/loss" in row] == [0.5]


def wandb_records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file of wandb's: a head of 7 bytes, then the log of LevelDB, in blocks of 32 KiB."""
    place, record = 7, b""
    while place + 7 <= len(data):
        if (left := -place % 32_768) and left < 7:  # no head of a record fits: the block ends here
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def read_wandb(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of an offline run, and its config."""
    from wandb.proto import wandb_internal_pb2

    rows: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    for data in wandb_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            rows.append({"/".join(item.nested_key) or item.key: json.loads(item.value_json)
                         for item in record.history.item})  # fmt: skip
        for update in (record.run.config.update, record.config.update):
            config |= {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in update}
    return rows, config


def test_event_files_of_tensorboard_have_curves_and_settings(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = outbox(tmp_path, {"kind": "tensorboard", "folder": None})
    delivered(folder)
    go_on(folder, "FAILED")
    place = delivered(folder)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(place)
    found.Reload()
    assert [(one.step, round(one.value, 6)) for one in found.Scalars("train/loss")] == [(1, 0.9), (2, 0.7)]
    assert found.Scalars("test/trained/ndcg_at_10")[0].wall_time == 1_700_000_002
    text = found.Tensors("settings/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "train.key_7: 7" in text
    assert set(found.Tags()["tensors"]) == {"settings/text_summary", "files/text_summary", "status/text_summary"}


def test_a_shared_folder_has_one_for_each_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = outbox(tmp_path, {"kind": "tensorboard", "folder": str(tmp_path / "all")})
    assert delivered(folder) == str(tmp_path / "all" / "demo/ablations/direct-key012")
