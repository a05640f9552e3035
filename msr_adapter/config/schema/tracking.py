"""Experiment trackers: where settings, curves, metrics and the report of a run are sent."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from msr_adapter.config.schema.base import Seconds, StrictModel, allowed

_ADDRESS = r"^https?://[^@\s]+$"
_ADDRESS_WORDS = allowed("an address that begins with http:// or https://, without a password, or null")


class TrackerConfig(StrictModel):
    """What all trackers have in common."""

    run: str | None = Field(None, min_length=1, max_length=200)
    """Name of the run in the tracker; default: the run folder's, with the run that it lies in
    (`demo/ablations/direct`)."""
    report: bool = True
    """Send `report.html` too: it shows titles, images and histories of sampled users."""
    interval: Seconds = 60
    """Seconds between two deliveries of the training loss while a training runs."""
    wait: Seconds = 60
    """Seconds that a command waits at its end for a slow tracker; what is left is sent by `msr track RUN`."""


class MlflowConfig(TrackerConfig):
    """An MLflow server, through the client `mlflow-skinny` (the extra `mlflow`)."""

    kind: Literal["mlflow"]
    """An MLflow server. A user name, password or token are those of MLflow's own environment variables."""
    server: str | None = Field(None, pattern=_ADDRESS, json_schema_extra=_ADDRESS_WORDS)
    """Its address, such as `http://127.0.0.1:5000`; default: `MLFLOW_TRACKING_URI` of the environment."""
    experiment: str | None = Field(None, min_length=1, max_length=200)
    """Default: the pipeline's name; made if it is not there."""


class WandbConfig(TrackerConfig):
    """Weights & Biases (the extra `wandb`)."""

    kind: Literal["wandb"]
    """Weights & Biases. The key is `WANDB_API_KEY` of the environment, or what `wandb login` left."""
    server: str | None = Field(None, pattern=_ADDRESS, json_schema_extra=_ADDRESS_WORDS)
    """Address of a server of one's own; default: `WANDB_BASE_URL` of the environment, or the public service."""
    project: str | None = Field(None, min_length=1, max_length=128)
    """Default: the pipeline's name."""
    entity: str | None = Field(None, min_length=1, max_length=200)
    """User or team; default: the one of the key."""
    offline: bool = False
    """Write a folder in the run folder, for `wandb sync`, and ask no server."""


class TensorboardConfig(TrackerConfig):
    """Event files for TensorBoard (the extra `tensorboard`)."""

    kind: Literal["tensorboard"]
    """Event files for `tensorboard --logdir`."""
    folder: Path | None = None
    """Where each run gets a folder of its name; default: in the run folder, so that `tensorboard --logdir runs` shows
    all runs."""


TrackingConfig = MlflowConfig | WandbConfig | TensorboardConfig
"""One of the trackers; the table of them is `tracking.trackers`."""
