"""A run of Weights & Biases: on a server, or in a folder for `wandb sync`."""

from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from msr_adapter.files import remove
from msr_adapter.tracking.outbox import Outbox, Point, Sent

_STEP = "step"
"""What curves are drawn over: `wandb`'s own counter never goes back, as a training does that goes on from a
checkpoint."""
_SYNCED = "*.synced"
"""What `wandb sync` leaves beside the file of a run that it has sent."""


class WandbRun:
    """The run of an outbox; begun where it is not there yet.

    Offline, a folder that was not synced yet is replaced by one with everything; `sent` is emptied for that.
    """

    def __init__(self, outbox: Outbox, sent: Sent, folder: Path) -> None:
        import wandb

        tracker, settings = outbox.tracker, {}
        if server := tracker.get("server"):
            settings["base_url"] = server
        offline = bool(tracker.get("offline"))
        if offline and replace_unsynced(folder / "wandb"):
            sent.settings, sent.points, sent.files = False, {}, {}
        self._run = wandb.init(
            entity=tracker.get("entity"), project=tracker.get("project") or outbox.group, group=outbox.group,
            name=outbox.name, id=outbox.key, resume=None if offline else "allow", dir=folder,
            mode="offline" if offline else "online",
            settings=wandb.Settings(console="off", disable_git=True, disable_code=True, silent=True,
                                    x_disable_stats=True, x_disable_meta=True, **settings),
        )  # fmt: skip
        self._run.define_metric("*", step_metric=_STEP)
        self.run_id = outbox.key
        self.url = str(Path(self._run.dir).parent if offline else self._run.url)

    def send_settings(self, settings: Mapping[str, str]) -> None:
        """Put them into the run's config."""
        self._run.config.update(dict(settings), allow_val_change=True)

    def send_points(self, points: Iterable[Point]) -> None:
        """Log the points of a step together."""
        for step, found in groupby(points, key=lambda point: point.step):
            row: dict[str, Any] = {point.name: point.value for point in found}
            self._run.log({**row, _STEP: step})

    def send_files(self, files: Mapping[str, Path]) -> None:
        """Log them as an artefact of the run, of which there are versions."""
        import wandb

        artifact = wandb.Artifact(f"run-{self.run_id}", type="report")
        for name, path in files.items():
            artifact.add_file(str(path), name=name)
        self._run.log_artifact(artifact)

    def close(self, status: str) -> None:
        """End this delivery: the run is shown as ended, or as failed."""
        self._run.finish(exit_code=0 if status in ("FINISHED", "RUNNING") else 1)


def replace_unsynced(folder: Path) -> bool:
    """Remove offline runs that were never synced; return whether there was one."""
    found = [run for run in folder.glob("offline-run-*") if not any(run.glob(_SYNCED))]
    for run in found:
        remove(run)
    return bool(found)
