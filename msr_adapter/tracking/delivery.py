"""One delivery: what an outbox has and its tracker lacks is sent, and noted step by step."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from msr_adapter.files import file_digest
from msr_adapter.redaction import quoted
from msr_adapter.system import LockHeldError, locked
from msr_adapter.tracking.outbox import Outbox, OutboxFolder, Sent, Unsent, unsent
from msr_adapter.tracking.trackers import TrackerRun, tracker_of

BUSY = "another process is sending"
_AT_ONCE = 1000
"""Points after which it is noted that they were sent."""


@dataclass(frozen=True)
class DeliveryReport:
    """What became of a delivery."""

    sent: int = 0
    """Points, files, settings and states."""
    url: str = ""
    """Where people look at the run."""
    error: str = ""
    """Why not all was sent; empty if it was."""


def deliver(root: Path) -> DeliveryReport:
    """Send what is in the outbox ``root`` and was not sent; whatever a tracker's client raises is an error here."""
    folder = OutboxFolder(root)
    outbox = folder.read()
    if outbox is None:
        return DeliveryReport(error=f"{root} has nothing that can be read")
    try:
        with locked(folder.lock):
            return _deliver(folder, outbox)
    except LockHeldError:
        return DeliveryReport(error=BUSY)
    except Exception as error:
        url = folder.sent().url
        return DeliveryReport(url=url, error=f"{type(error).__name__}: {quoted(error)}")


def _deliver(folder: OutboxFolder, outbox: Outbox) -> DeliveryReport:
    sent = folder.sent()
    if not unsent(folder, outbox, sent):
        return DeliveryReport(url=sent.url)
    with _opened(folder, outbox, sent) as run:
        left = unsent(folder, outbox, sent)  # a new folder of wandb's has nothing
        for _ in _send(run, outbox, left, sent):
            folder.write_sent(sent)
    sent.status = outbox.status
    folder.write_sent(sent)
    return DeliveryReport(len(left.points) + len(left.files) + left.settings + left.status, sent.url)


@contextmanager
def _opened(folder: OutboxFolder, outbox: Outbox, sent: Sent) -> Iterator[TrackerRun]:
    """Begin the run or go on with it; it is noted before anything is sent, so that a kill leaves no second one."""
    if not sent.run_id:
        folder.write_sent(Sent(asked=True))
    run = tracker_of(str(outbox.tracker["kind"])).open(outbox, sent, folder.root)
    sent.run_id, sent.url, sent.asked = run.run_id, run.url, True
    folder.write_sent(sent)
    try:
        yield run
    except Exception:
        with suppress(Exception):  # what went wrong first is what is told
            run.close(outbox.status)
        raise
    run.close(outbox.status)


def _send(run: TrackerRun, outbox: Outbox, left: Unsent, sent: Sent) -> Iterator[None]:
    """Send what is left, and yield after each step."""
    if left.settings:
        run.send_settings(outbox.settings)
        sent.settings = True
        yield
    for start in range(0, len(left.points), _AT_ONCE):
        points = left.points[start : start + _AT_ONCE]
        run.send_points(points)
        sent.note(points)
        yield
    if left.files:
        run.send_files(left.files)
        sent.files |= {name: file_digest(path) for name, path in left.files.items()}
        yield
