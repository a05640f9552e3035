"""What a run tells its experiment tracker: when it begins, after the stages that have something to tell, at the end."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.errors import Problem
from msr_adapter.files import read_json_object, sweep
from msr_adapter.integrity import read_manifest
from msr_adapter.progress import Reporter
from msr_adapter.redaction import redact_values
from msr_adapter.tracking.courier import Courier, Rounds
from msr_adapter.tracking.delivery import DeliveryReport
from msr_adapter.tracking.outbox import Outbox, Status, new_key, now, outbox_folder
from msr_adapter.tracking.run_facts import checkpoint_points, curve_points, flat_settings, metric_points
from msr_adapter.tracking.trackers import Tracker, tracker_of

TELLING = ("train", "evaluate")
"""Stages after which there is something to tell."""
_HURRIED_S = 5.0
"""How long a tracker is waited for by somebody who has pressed Ctrl-C, and after it let this process down once."""
_slow: set[str] = set()
"""Trackers that did: the trials of a sweep, one after the other, do not wait a minute each."""
_LOG = "trainer_log.jsonl"


def check_tracking(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem if the tracker's library is not installed, or nothing says where its server is."""
    tracking = loaded.pipeline.tracking
    if tracking is None:
        return []
    row, problems = tracker_of(tracking.kind), []
    if find_spec(row.module) is None:
        found = f"{row.label} needs the library {row.module}, which is not installed"
        step = f"Run `{row.mend}`, or set tracking=null"
        problems.append(Problem(loaded.where("tracking.kind"), "tracking.kind", found, next_step=step))
    if row.needs_address(tracking.model_dump()):
        found = "missing, and MLFLOW_TRACKING_URI is not set"
        step = "Set it, such as `server: http://127.0.0.1:5000`"
        problems.append(Problem(loaded.where("tracking"), "tracking.server", found, next_step=step))
    return problems


@contextmanager
def tracked(loaded: LoadedPipeline, stages: Sequence[str], reporter: Reporter) -> Iterator[Callable[[str, bool], None]]:
    """Yield a function that is told of each stage that is up to date, and whether it was made now.

    Nothing of it raises: a run does not end for its tracker. Without one, or where none of the ``stages`` has anything
    to tell, nothing is done.
    """
    tracking = loaded.pipeline.tracking
    if tracking is None or not set(TELLING) & set(stages):
        yield lambda stage, made: None
        return
    run = RunTracking(loaded, tracker_of(tracking.kind), reporter)
    run.begin()
    status: Status = "FAILED"
    try:
        yield run.after
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.end(status)


class RunTracking:
    """Fills the outbox of a run and has it sent."""

    def __init__(self, loaded: LoadedPipeline, tracker: Tracker, reporter: Reporter) -> None:
        config = redact_values(loaded.resolved["tracking"])
        settings = flat_settings(loaded.resolved)
        self._root, self._reporter, self._label = loaded.run_dir, reporter, tracker.label
        self._config, self._resolved = config, redact_values(loaded.resolved)
        self._folder = outbox_folder(loaded.run_dir, config, settings)
        key, group = new_key(), loaded.pipeline.name
        known = self._folder.read()
        self._outbox = known or Outbox(config, key, config["run"] or name_of(loaded.run_dir), group, now())
        self._outbox.settings = settings
        self._courier = Courier(self._folder, tracker.kind)
        self._where = f"{tracker.kind} {config.get('server')}"
        self._trouble = False
        self._began = time.time()
        self._lock = threading.Lock()
        self._rounds = Rounds(config["interval"], self._look) if tracker.while_running else None

    def begin(self) -> None:
        """Have the run begin in the tracker, unless it is whole there."""
        with self._changing():
            for folder in (self._folder.root, self._folder.root / "files"):
                sweep(folder, lambda target: True)
            self._folder.put_json("pipeline.json", self._resolved)
            self._set("RUNNING" if self._outbox.status != "FINISHED" else "FINISHED")

    def after(self, stage: str, made: bool) -> None:
        """Take what a stage that is up to date has to tell, and have it sent; ``made``: just now."""
        with self._changing():
            if made:
                self._set("RUNNING")
            if stage == "train":
                self._outbox.put(curve_points(self._root / "train" / "model" / _LOG))
                self._outbox.put(checkpoint_points(read_json_object(self._root / "train" / "selection.json")))
            elif stage == "evaluate":
                metrics = self._root / "evaluate" / "metrics.json"
                self._outbox.put(metric_points(read_json_object(metrics), self._step()))
                self._folder.put_file(metrics)
                if self._config["report"]:
                    self._folder.put_file(self._root / "evaluate" / "report.html")

    def end(self, status: Status) -> None:
        """Send what is left, wait for it for a while, and say what became of it."""
        if self._rounds is not None:
            self._rounds.stop()
        with self._changing(send=False):
            self._set(status)
        hurried = status == "KILLED" or self._where in _slow
        wait = min(self._config["wait"], _HURRIED_S) if hurried else self._config["wait"]
        try:
            told = self._courier.finish(wait)
        except OSError as error:
            told = DeliveryReport(error=f"{self._folder.root}: {error.strerror}")
        if told.error:
            _slow.add(self._where)
            later = f"Nothing is lost: `msr track {self._root}` sends it later"
            self._reporter.note(f"tracking    not everything was sent to {self._label} ({told.error}). {later}")
        elif told.sent:
            self._reporter.note(f"tracking    sent to {self._label}: {told.url}")

    @contextmanager
    def _changing(self, *, send: bool = True) -> Iterator[None]:
        """Hold the outbox, write it, and start a delivery. A disk that takes nothing is told, and ends no run."""
        with self._lock:
            try:
                yield
                self._folder.write(self._outbox)
                told = self._courier.start() if send else None
            except OSError as error:
                told = DeliveryReport(error=f"{self._folder.root}: {error.strerror}")
        if told is not None and told.error and not self._trouble:
            self._trouble = True
            said = f"not everything could be sent to {self._label} ({told.error})"
            self._reporter.note(f"tracking    {said}; the run goes on, and it will be tried again")

    def _set(self, status: Status) -> None:
        if self._outbox.status != status:
            self._outbox.status, self._outbox.ended = status, 0 if status == "RUNNING" else now()

    def _look(self) -> None:
        """Take the curves of a training under way, and have them sent."""
        with self._changing():
            logs = {path: path.stat().st_mtime for path in self._root.glob(f".train.unfinished/*/model/{_LOG}")}
            for path in sorted(logs, key=lambda path: logs[path])[-1:]:
                if logs[path] >= self._began:
                    self._outbox.put(curve_points(path))

    def _step(self) -> int:
        """Return the step of the checkpoint that was kept; 0 where a server scores, and nothing was trained."""
        if self._resolved["evaluate"]["scorer"]:
            return 0
        summary: dict[str, Any] = read_manifest(self._root / "train").get("summary", {})
        return int((summary.get("selection") or {}).get("chosen") or summary.get("steps") or 0)


def name_of(run_dir: Path) -> str:
    """Return a run folder's name, with that of the run which it lies in: ``demo/ablations/direct``."""
    parents = [place for place in run_dir.parents if place.name in ("ablations", "sweeps")]
    return run_dir.relative_to(parents[-1].parent.parent).as_posix() if parents else run_dir.name
