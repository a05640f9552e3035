"""Several machines, one training: the first says what is trained as long as it trains, the others join in.

The file by which they meet lies in the run folder, which all of them see. The first machine touches it again and again:
one that a killed training left behind is not taken for a running one, whatever the machines' clocks say.
"""

import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from msr_adapter.errors import StageError
from msr_adapter.files import write_json
from msr_adapter.llamafactory.failures import explain
from msr_adapter.llamafactory.launcher import child_environment, trainer_process
from msr_adapter.llamafactory.nodes import Node
from msr_adapter.progress import Reporter

RENDEZVOUS = ".train-nodes.json"
"""Name of the file in the run folder."""

_BEAT_S = 2.0
_POLL_S = 0.5


@contextlib.contextmanager
def announced(path: Path, yaml: Path, place: Node) -> Iterator[None]:
    """Tell the other machines, while the context lasts, that ``yaml`` is trained now. Nothing to do for one machine."""
    if place.nodes == 1 or place.ray:
        yield
        return
    write_json(path, {"yaml": str(yaml.resolve()), "nodes": place.nodes, "processes": place.processes})
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, ended), daemon=True)
    beat.start()
    try:
        yield
    finally:
        ended.set()
        beat.join()
        path.unlink(missing_ok=True)


def join(run_dir: Path, place: Node, wait: float, *, small: bool, reporter: Reporter) -> None:
    """Wait for the first machine to train in ``run_dir``, train with it, and return when all have ended.

    What the trainer says here goes to `train-node-<rank>.log`. Raises `StageError` if nobody trains within ``wait``
    seconds, if the machines do not agree on their number, or if training fails.
    """
    reporter.note(f"machine {place.rank} of {place.nodes} waits for the first one to start training in {run_dir}")
    yaml = _meet(run_dir / RENDEZVOUS, place, wait)
    log = run_dir / f"train-node-{place.rank}.log"
    cache = run_dir / f".datasets-cache-{place.rank}"
    reporter.note(f"LLaMA-Factory starts; its output goes to {log}")
    environment = child_environment(os.environ, cache, small=small)
    shutil.rmtree(cache, ignore_errors=True)  # of an attempt that was killed
    try:
        with log.open("wb") as sink, trainer_process(place, yaml, environment, sink) as process:
            returncode = process.wait()
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    if returncode != 0:
        raise explain(returncode, log, 0)
    reporter.note("trained; the first machine keeps the model and continues")


def _beat(path: Path, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_S):
        with contextlib.suppress(OSError):  # a shared disk that is away for a moment
            os.utime(path)


def _meet(path: Path, place: Node, wait: float) -> Path:
    """Return the YAML of the training that is under way: its file is touched while we look."""
    # A change of the file's time is what counts, not the time itself: machines' clocks differ.
    deadline = time.monotonic() + wait
    first = _touched(path)
    while time.monotonic() < deadline:
        time.sleep(_POLL_S)
        if (now := _touched(path)) not in (None, first):
            return _read(path, place)
        first = first if now is not None else None
    raise StageError(
        f"the first machine did not start training within {wait:g} s ({path})",
        "it was not started, is still building its data, uses another run folder, or its model is already up to date",
        "start the same command there with NODE_RANK=0, or raise train.launch.wait",
    )


def _touched(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _read(path: Path, place: Node) -> Path:
    """Return the YAML that the first machine trains. Raises `StageError` if it counts other machines or processes."""
    said = json.loads(path.read_text(encoding="utf-8"))
    if (said["nodes"], said["processes"]) != (place.nodes, place.processes):
        raise StageError(
            f"the first machine trains with {said['nodes']} machines of {said['processes']} processes, but this one "
            f"would with {place.nodes} of {place.processes}",
            "the pipelines differ, or the machines have different numbers of GPUs",
            "run the same pipeline on all of them, with a number for train.launch.processes",
        )
    return Path(said["yaml"])
