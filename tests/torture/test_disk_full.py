"""A real disk that is full at a chosen write of every stage: told as one, nothing half written, resumed to the same.

On a small file system in memory, which a mount namespace hides from everybody else; no word of it is pretended.
"""

import shutil
from pathlib import Path

import pytest

from tests.support.end_to_end import msr, write_small_pipeline
from tests.torture.full_disk import Point, Seen, namespace, on_a_small_disk, outputs

pytestmark = pytest.mark.slow

PREFIX = namespace()
EXPORT = ("export", "small.yaml", "--out", "exported", "--dtype", "float32")
BASELINES = "[random, popularity, base, item-knn]"
POINTS = (
    Point("data", ("run/data",), r"/\.data\.partial/\.?examples\.parquet"),
    Point("images", ("run/data", "run/cache/images"), r"/\.data\.partial/images/.", leave=16 * 1024),
    Point("lengths", ("run/lengths",), r"/\.lengths\.partial/\.?lengths\.json"),
    Point("item summaries", ("run/items",), r"/\.items\.partial/\.?items\.parquet"),
    Point("user summaries", ("run/users",), r"/\.users\.partial/\.?users\.parquet"),
    Point("cache, new", ("run/items", "run/cache/completions*"), r"completions\.sqlite"),
    Point("cache, while it grows", ("run/items", "run/cache/completions*"), r"completions\.sqlite", leave=96 * 1024),
    Point("dataset", ("run/dataset",), r"/\.dataset\.partial/msr_train"),
    Point("training, its start", ("run/train",), r"/\.train\.unfinished/.*train\.log"),
    Point("checkpoint", ("run/train",), r"/checkpoint-2"),
    Point("checkpoint, in its midst", ("run/train",), r"/checkpoint-2", leave=2 * 2**20),
    Point("score", ("run/score",), r"/\.score\.partial/\.?scores\.parquet"),
    Point("score-base", ("run/score-base",), r"/\.score-base\.partial/\.?scores\.parquet"),
    Point("baselines", ("run/baselines",), r"/\.baselines\.partial/.*parquet"),
    Point("evaluate", ("run/evaluate",), r"/\.evaluate\.partial/\.?metrics\.json"),
    Point("report", ("run/evaluate",), r"/\.evaluate\.partial/\.?report\.html"),
    Point("manifest", ("run/score",), r"/\.score\.partial/\.?manifest\.json"),
    Point("export", ("exported",), r"/\.exported\.[^/]+/.", arguments=EXPORT),
    Point("export, its weights", ("exported",), r"/\.exported\.[^/]+\.tmp$", 2 * 2**20, EXPORT),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    pipeline = write_small_pipeline(folder)
    pipeline.write_text(pipeline.read_text() + f"evaluate: {{baselines: {BASELINES}}}\n")
    for arguments in (("run", "small.yaml"), EXPORT):
        done = msr(*arguments, "--run-dir", "run", "--quiet", cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.skipif(PREFIX is None, reason="no mount namespaces here: neither root nor unprivileged ones")
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_a_full_disk_is_told_and_the_same_command_continues(point: Point, finished: Path) -> None:
    seen = on_a_small_disk(PREFIX or [], finished, point)
    assert seen.filled, "the disk never was full"
    assert_told(seen)
    assert seen.half_written == []
    assert seen.resumed == 0, seen.said_then
    assert seen.outputs == outputs(finished)
    assert seen.left == []


def assert_told(seen: Seen) -> None:
    """Exit code 1, one message that says what is full, how full, and what to do; no traceback."""
    assert seen.code == 1, seen.said
    assert "Traceback" not in seen.said
    assert "the disk is full" in seen.said
    assert "make room" in seen.said or "free some space" in seen.said


def test_where_no_disk_can_be_mounted_it_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert namespace() is None
