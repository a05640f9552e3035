"""A run on an MLflow server, through its own client."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msr_adapter.errors import StageError
from msr_adapter.redaction import redact
from msr_adapter.tracking.outbox import Outbox, Point, Sent

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "msr.key"
"""The tag by which a run is found whose id was lost on the way back."""
_METRICS = 1000
"""Of a request, as many as the server takes."""
_PARAMS = 100
"""Of a request."""
_LONGEST = 6000
"""Characters of a setting."""


class MlflowRun:
    """The run of an outbox; begun where it is not there yet."""

    def __init__(self, outbox: Outbox, sent: Sent, folder: Path) -> None:
        from mlflow import MlflowClient

        address = str(outbox.tracker.get("server") or os.environ.get("MLFLOW_TRACKING_URI") or "")
        if not address:
            raise StageError("MLFLOW_TRACKING_URI is not set, and the pipeline names no tracking.server")
        self._client = MlflowClient(tracking_uri=address)
        self._outbox = outbox
        experiment = _experiment(self._client, str(outbox.tracker.get("experiment") or outbox.group))
        self.run_id = sent.run_id or (_find(self._client, experiment, outbox.key) if sent.asked else "")
        if not self.run_id:
            # A tag, not a setting: it may be long after the run that this is told.
            tags = {KEY: outbox.key, "msr.pipeline": outbox.group}
            made = self._client.create_run(experiment, start_time=outbox.began, tags=tags, run_name=outbox.name)
            self.run_id = made.info.run_id
        where = f"{address.rstrip('/')}/#/experiments/{experiment}/runs/{self.run_id}"
        self.url = redact(where)

    def send_settings(self, settings: Mapping[str, str]) -> None:
        """Log them as params; longer ones than MLflow takes are cut there, and whole in the file of the settings."""
        from mlflow.entities import Param

        params = [Param(key, value[:_LONGEST]) for key, value in settings.items()]
        for start in range(0, len(params), _PARAMS):
            self._client.log_batch(self.run_id, params=params[start : start + _PARAMS])

    def send_points(self, points: Iterable[Point]) -> None:
        """Log them as metrics."""
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
        for start in range(0, len(metrics), _METRICS):
            self._client.log_batch(self.run_id, metrics=metrics[start : start + _METRICS])

    def send_files(self, files: Mapping[str, Path]) -> None:
        """Log them as artefacts."""
        for path in files.values():
            self._client.log_artifact(self.run_id, str(path))

    def close(self, status: str) -> None:
        """Set the run's status, and when it ended."""
        if status == "RUNNING":
            self._client.update_run(self.run_id, status=status)
        else:
            self._client.set_terminated(self.run_id, status=status, end_time=self._outbox.ended or None)


def _experiment(client: "MlflowClient", name: str) -> str:
    """Return the id of an experiment, made if it is not there."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException:  # made by somebody else meanwhile
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        step = "Restore it in MLflow, or name another with tracking.experiment"
        raise StageError(f"the experiment {name} was deleted in MLflow", next_step=step)
    return str(found.experiment_id)


def _find(client: "MlflowClient", experiment: str, key: str) -> str:
    found = client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)
    return str(found[0].info.run_id) if found else ""
