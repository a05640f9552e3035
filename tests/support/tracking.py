"""Trackers for tests: a client of MLflow's name that writes what it is told, and a real server."""

import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGES
from tests.support.scripted_pipeline import SCRIPTED, pretend_to_train
from tests.support.server_process import free_port, serving

LOSSES = {1: 0.9, 2: 0.7, 3: 0.6}
SELECTION = {
    "metric": "ndcg@10", "users": 3, "candidates": 60, "chosen": 2, "loss": 0.5, "findings": [],
    "points": [{"step": 0, "value": 0.2, "low": 0.1, "high": 0.3, "loss": 0.8},
               {"step": 2, "value": 0.4, "low": 0.3, "high": 0.5, "loss": 0.5}],
}  # fmt: skip
_FAKE = """
import json, os, time

FOLDER = os.environ["MSR_TEST_TRACKER"]


class MlflowClient:
    def __init__(self, tracking_uri):
        self._say(connected=tracking_uri)

    def _say(self, **said):
        mode = open(os.path.join(FOLDER, "mode")).read()
        if mode == "down":
            raise ConnectionError("no server at http://user:hunter2hunter2@tracker/?token=abcdefgh12345678")
        if mode == "hangs":
            time.sleep(600)
        if mode.startswith("dies at ") and mode[8:] in said:
            os._exit(9)
        with open(os.path.join(FOLDER, "said.jsonl"), "a") as file:
            file.write(json.dumps(said) + "\\n")

    def get_experiment_by_name(self, name):
        return type("Experiment", (), {"experiment_id": "7", "lifecycle_stage": "active"})

    def create_run(self, experiment_id, start_time, tags, run_name):
        self._say(began=run_name, key=tags["msr.key"])
        return type("Run", (), {"info": type("Info", (), {"run_id": "run-" + tags["msr.key"]})})

    def search_runs(self, experiments, text, max_results):
        self._say(searched=text)
        return []

    def log_batch(self, run_id, params=(), metrics=()):
        if params:
            self._say(settings=dict(params))
        if metrics:
            self._say(points=[[name, step, value] for name, value, _, step in metrics])

    def log_artifact(self, run_id, path):
        self._say(file=os.path.basename(path))

    def update_run(self, run_id, status):
        self._say(status=status)

    def set_terminated(self, run_id, status, end_time):
        self._say(status=status)
"""


class RecordingTracker:
    """What a client of MLflow's name was told, in processes that import it in the place of the real one."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "mlflow").mkdir(parents=True)
        (folder / "mlflow" / "__init__.py").write_text(_FAKE)
        (folder / "mlflow" / "entities.py").write_text(
            "Param = lambda key, value: (key, value)\nMetric = lambda *values: values\n"
        )
        (folder / "mlflow" / "exceptions.py").write_text("class MlflowException(Exception): pass\n")
        self._folder = folder
        self.behave("up")
        monkeypatch.setenv("MSR_TEST_TRACKER", str(folder))
        monkeypatch.syspath_prepend(folder)

    def behave(self, mode: str) -> None:
        """Be ``up``, ``down``, ``hangs`` or ``dies at`` something from now on."""
        (self._folder / "mode").write_text(mode)

    def told(self, what: str) -> list[Any]:
        """Return all that was told under a word."""
        path = self._folder / "said.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [row[what] for row in map(json.loads, lines) if what in row]

    def points(self) -> list[tuple[str, int, float]]:
        """Return all points that were sent."""
        return [(name, step, value) for batch in self.told("points") for name, step, value in batch]


def train_with_a_log(c: Context) -> dict[str, Any]:
    """Pretend to train, and leave the log and the choice of checkpoints that a real one does."""
    found = pretend_to_train(c)
    lines = [json.dumps({"current_steps": step, "loss": loss, "lr": 1e-4}) for step, loss in LOSSES.items()]
    (c.out / "model" / "trainer_log.jsonl").write_text("\n".join(lines))
    (c.out / "selection.json").write_text(json.dumps(SELECTION))
    return {**found, "steps": 3}


def train_by(monkeypatch: pytest.MonkeyPatch, training: Any = train_with_a_log) -> None:
    """Let every run of this test train so."""
    stages = tuple(replace(stage, run=training) if stage.name == "train" else stage for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)


def load_tracked(folder: Path, tracking: str, *sets: str) -> LoadedPipeline:
    """Return a scripted pipeline with a tracker; its run is ``folder/run``."""
    (folder / "scripted.yaml").write_text(SCRIPTED)
    return load_pipeline(str(folder / "scripted.yaml"), [f"tracking={tracking}", *sets], folder / "run")


def _server_program() -> str:
    found = os.environ.get("MSR_MLFLOW_SERVER") or shutil.which("mlflow") or ""
    if not Path(found).is_file():
        pytest.skip("needs a whole mlflow in an environment of its own: MSR_MLFLOW_SERVER=/path/to/bin/mlflow")
    return found


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Yield the address of a real MLflow server with a local store; skips where there is none."""
    port = free_port()
    # The program of another environment must not find the libraries of this one.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true"}
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artefacts"]
    command = [_server_program(), "server", *store, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    log = folder / "server.log"
    with serving(command, environment, log) as process:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            if process.poll() is not None:
                pytest.skip(f"MLflow does not start here: {log.read_text()[-300:]}")
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        else:
            pytest.skip("MLflow does not answer within two minutes")
        yield address
