"""The table of trackers; what `tracking.kind` allows is exactly its rows."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from msr_adapter.tracking.outbox import Outbox, Point, Sent


class TrackerRun(Protocol):
    """One run in a tracker, open for what is to be added."""

    run_id: str
    url: str
    """Where people look at it; a folder for what is on this disk."""

    def send_settings(self, settings: Mapping[str, str]) -> None:
        """Add the settings; they are sent once."""

    def send_points(self, points: Iterable[Point]) -> None:
        """Add values, in the order of steps."""

    def send_files(self, files: Mapping[str, Path]) -> None:
        """Add files, or the later versions of them."""

    def close(self, status: str) -> None:
        """Say how the run stands, and have everything written when this returns."""


@dataclass(frozen=True)
class Tracker:
    """All that is known of one kind."""

    kind: str
    label: str
    module: str
    """What must be installed."""
    mend: str
    open: Callable[[Outbox, Sent, Path], TrackerRun]
    """Begins the run in the tracker, or goes on with it. The path is the outbox's folder."""
    while_running: bool
    """Whether the training loss is sent while the training runs; else when a stage ends."""
    environment: Mapping[str, str]
    """What the sending process has in its environment, unless the user has it otherwise."""
    needs_address: Callable[[Mapping[str, Any]], bool] = lambda _: False
    """Whether a config leaves open where the tracker is."""


def _open_mlflow(outbox: Outbox, sent: Sent, folder: Path) -> TrackerRun:
    from msr_adapter.tracking.mlflow_tracker import MlflowRun

    return MlflowRun(outbox, sent, folder)


def _open_wandb(outbox: Outbox, sent: Sent, folder: Path) -> TrackerRun:
    from msr_adapter.tracking.wandb_tracker import WandbRun

    return WandbRun(outbox, sent, folder)


def _open_tensorboard(outbox: Outbox, sent: Sent, folder: Path) -> TrackerRun:
    from msr_adapter.tracking.tensorboard_tracker import TensorboardRun

    return TensorboardRun(outbox, sent, folder)


TRACKERS: tuple[Tracker, ...] = (
    Tracker(
        "mlflow", "MLflow", "mlflow", "pip install 'msr-adapter[mlflow]'", _open_mlflow, True,
        # Its own seven attempts of two minutes each are another process's patience; ours is the next delivery.
        {"MLFLOW_HTTP_REQUEST_TIMEOUT": "20", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
         "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"},
        lambda config: not config.get("server") and not os.environ.get("MLFLOW_TRACKING_URI"),
    ),
    # A run of theirs is open or ended: each delivery would end it, and the next begin it again.
    Tracker("wandb", "Weights & Biases", "wandb", "pip install 'msr-adapter[wandb]'", _open_wandb, False,
            {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}),
    Tracker("tensorboard", "TensorBoard", "tensorboard", "pip install 'msr-adapter[tensorboard]'", _open_tensorboard,
            True, {}),
)  # fmt: skip


def tracker_of(kind: str) -> Tracker:
    """Return the row of a kind."""
    return next(row for row in TRACKERS if row.kind == kind)
