"""The outbox of one run of a tracker: what is to be sent, and what was sent of it.

run_dir/tracking/<kind>-<digest of tracker and settings>/
  outbox.json   `Outbox`: written by the run
  files/        what is sent as it is: the settings, the metrics, the report
  sent.json     `Sent`: written by whoever sends, after each step
  .lock         held by whoever sends

A run folder with other settings has another outbox, and so another run in the tracker: a curve is never drawn over
another training's. When the settings return, their run goes on.
"""

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from msr_adapter.files import digest, file_digest, link, read_json_object, remove, write_json

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]
"""As MLflow calls them."""

TRACKING = "tracking"
"""The folder of the outboxes in a run folder."""
_KEY = 16
"""Characters of what names a run in all trackers."""
_NAME = 12
"""Characters of a digest in a folder's name."""
_NOT_OF_A_RUN = ("run", "report", "interval", "wait")
"""Keys of a tracker that do not decide where its run is."""


class Point(NamedTuple):
    """One value of a curve, or of a metric."""

    name: str
    step: int
    value: float
    time: int
    """Milliseconds since the epoch."""


@dataclass
class Outbox:
    """What is to be sent of one run."""

    tracker: Mapping[str, Any]
    """The config of the tracker."""
    key: str
    """Names the run in all trackers, whatever its name."""
    name: str
    group: str
    """The pipeline's name: variants of an ablation and trials of a sweep are found together."""
    began: int
    """Milliseconds since the epoch."""
    ended: int = 0
    status: Status = "RUNNING"
    settings: Mapping[str, str] = field(default_factory=dict)
    """Dotted key -> value, as text."""
    points: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)
    """Name -> step -> value and time."""

    def put(self, points: Iterable[Point]) -> None:
        """Take points; one that is known with the same value keeps its time."""
        for point in points:
            known = self.points.setdefault(point.name, {})
            if point.value != known.get(str(point.step), (None, 0))[0]:
                known[str(point.step)] = (point.value, point.time)

    def each_point(self) -> Iterator[Point]:
        """Yield all points, in the order of steps."""
        found = [Point(name, int(step), value, time) for name, curve in self.points.items()
                 for step, (value, time) in curve.items()]  # fmt: skip
        yield from sorted(found, key=lambda point: (point.step, point.name))


@dataclass
class Sent:
    """What the tracker has."""

    run_id: str = ""
    """The tracker's own name of the run; empty before there is one."""
    asked: bool = False
    """A run was asked for: it may be there though its id is not known."""
    url: str = ""
    status: str = ""
    settings: bool = False
    points: dict[str, dict[str, float]] = field(default_factory=dict)
    """Name -> step -> value."""
    files: dict[str, str] = field(default_factory=dict)
    """Name -> digest."""

    def lacks(self, point: Point) -> bool:
        """Say whether a point was not sent, or with another value."""
        return self.points.get(point.name, {}).get(str(point.step)) != point.value

    def note(self, points: Iterable[Point]) -> None:
        """Note that points were sent."""
        for point in points:
            self.points.setdefault(point.name, {})[str(point.step)] = point.value


class OutboxFolder:
    """An outbox on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def lock(self) -> Path:
        """Held by whoever sends."""
        return self.root / ".lock"

    def read(self) -> Outbox | None:
        """Return what is to be sent; None where there is nothing that can be read."""
        try:
            return Outbox(**read_json_object(self.root / "outbox.json"))
        except TypeError:
            return None

    def write(self, outbox: Outbox) -> None:
        """Write what is to be sent."""
        write_json(self.root / "outbox.json", asdict(outbox))

    def sent(self) -> Sent:
        """Return what was sent: nothing, where the note of it is gone."""
        try:
            return Sent(**read_json_object(self.root / "sent.json"))
        except TypeError:
            return Sent()

    def write_sent(self, sent: Sent) -> None:
        """Note what was sent."""
        write_json(self.root / "sent.json", asdict(sent))

    def forget(self) -> None:
        """Have everything sent anew, to another run of the tracker."""
        if outbox := self.read():
            outbox.key = new_key()
            self.write(outbox)
        remove(self.root / "sent.json")

    def files(self) -> dict[str, Path]:
        """Return the files that are to be sent, by their names."""
        return {path.name: path for path in sorted((self.root / "files").glob("[!.]*"))}

    def put_file(self, path: Path, name: str = "") -> None:
        """Take a file of a finished stage, by a link where the disk allows it: the stage may be replaced later."""
        target = self.root / "files" / (name or path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and file_digest(target) == file_digest(path):
            return
        remove(target)
        link(path, target)

    def put_json(self, name: str, value: object) -> None:
        """Take a JSON document as a file."""
        write_json(self.root / "files" / name, value)


class Unsent(NamedTuple):
    """What the tracker lacks."""

    settings: bool
    points: list[Point]
    files: dict[str, Path]
    status: bool

    def __bool__(self) -> bool:
        return bool(self.settings or self.points or self.files or self.status)


def new_key() -> str:
    """Return a name for a run that no other has."""
    return uuid.uuid4().hex[:_KEY]


def now() -> int:
    """Return the time as points have it: milliseconds since the epoch."""
    return round(time.time() * 1000)


def unsent(folder: OutboxFolder, outbox: Outbox, sent: Sent) -> Unsent:
    """Return what ``outbox`` has and was not sent."""
    files = {name: path for name, path in folder.files().items() if sent.files.get(name) != file_digest(path)}
    points = [point for point in outbox.each_point() if sent.lacks(point)]
    return Unsent(not sent.settings, points, files, sent.status != outbox.status)


def outbox_folder(run_dir: Path, tracker: Mapping[str, Any], settings: Mapping[str, str]) -> OutboxFolder:
    """Return the outbox of a run folder for a tracker and the settings of now; it may not be there yet."""
    where = {key: value for key, value in tracker.items() if key not in _NOT_OF_A_RUN}
    name = digest([where, dict(settings)])[:_NAME]
    return OutboxFolder(run_dir / TRACKING / f"{tracker['kind']}-{name}")


def outboxes(run_dir: Path) -> list[OutboxFolder]:
    """Return all outboxes of a run folder and of the runs in it: an ablation's variants, a sweep's trials."""
    patterns = ("", "ablations/*/", "sweeps/*/trials/*/")
    found = [path for below in patterns for path in sorted(run_dir.glob(f"{below}{TRACKING}/*/outbox.json"))]
    return [OutboxFolder(path.parent) for path in found]
