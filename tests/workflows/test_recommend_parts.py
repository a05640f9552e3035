"""`msr recommend --out FOLDER`: the lists of one file, part by part; killed, gone on from, and spread over workers."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from msr_adapter.errors import UserError
from msr_adapter.workflows.recommend import user_shards
from tests.support.paths import ROOT
from tests.support.recommending import TAKEN, Asked, order, own_run, trained, write_pipeline

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import msr_adapter.pipeline.planning as planning
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.workflows.recommend import in_parts, user_shards
from tests.support.recommending import order, without_training

planning.STAGES = without_training()
user_shards.GROUP, user_shards.PAIRS = 3, 7
answer = ScriptedBackend.complete

def slow(backend, requests, *follow):
    if requests[0].choices:
        time.sleep(0.15)
        print("asked", len(requests), flush=True)
    return answer(backend, requests, *follow)

ScriptedBackend.complete = slow
folder = Path(sys.argv[2])
order(folder, out=folder / "lists", candidates="popular:4", overwrite=False)
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("finished")
    write_pipeline(folder)
    with trained(folder):
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(user_shards, "GROUP", 3)
    monkeypatch.setattr(user_shards, "PAIRS", 7)
    return own_run(finished, tmp_path)


def parts(folder: Path, name: str = "lists") -> list[Path]:
    return sorted((folder / name).glob("part-*.parquet"))


def listed(folder: Path, name: str = "lists") -> pl.DataFrame:
    return pl.concat(pl.read_parquet(path) for path in parts(folder, name))


def test_parts_hold_the_lists_of_one_file_and_a_manifest(folder: Path) -> None:
    order(folder, candidates="popular:4")
    counts = order(folder, out=folder / "lists", candidates="popular:4", overwrite=False)
    assert listed(folder).equals(pl.read_parquet(folder / "recs.parquet"))
    manifest = json.loads((folder / "lists" / "manifest.json").read_text())
    assert [part["users"] for part in manifest["parts"]] == [3, 3, 3, 1]
    assert [part["rows"] for part in manifest["parts"]] == [pl.read_parquet(path).height for path in parts(folder)]
    assert manifest["rows"] == counts["rows"] == sum(part["rows"] for part in manifest["parts"])
    assert counts["scores"]["candidates"] == 40
    assert {path.name for path in (folder / "lists").iterdir()} == {
        "manifest.json", *(path.name for path in parts(folder)),
    }  # fmt: skip
    assert not list((folder / "run").glob(".recommend*"))


def test_users_without_a_history_have_the_fallback_there_too(folder: Path, tmp_path: Path) -> None:
    who = tmp_path / "who.csv"
    who.write_text("user_id\nu4\nstranger\nu1\nanother\n")
    asked = {"users": who, "unknown_users": "fallback", "candidates": "popular:4"}
    order(folder, **asked)
    counts = order(folder, out=folder / "lists", overwrite=False, **asked)
    assert listed(folder).equals(pl.read_parquet(folder / "recs.parquet"))
    assert counts["users_without_history"] == counts["unknown_users"] == 2


def test_a_killed_command_goes_on_with_what_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", WORKER, str(ROOT), str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(6):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    there = {path.name: path.stat().st_mtime_ns for path in parts(folder)}
    assert 0 < len(there) < 4
    assert not (folder / "lists" / "manifest.json").exists()
    shards = len(list((folder / "lists" / ".unfinished").glob("part-*/*.parquet")))
    asked = Asked(monkeypatch)
    counts = order(folder, out=folder / "lists", candidates="popular:4", overwrite=False)
    assert counts["parts_kept"] == len(there)
    # A shard has one user of four candidates here.
    assert len(asked.scored) == 40 - 4 * (3 * len(there) + shards)
    assert {name: (folder / "lists" / name).stat().st_mtime_ns for name in there} == there
    assert counts["scores"]["candidates"] == 40
    shutil.copytree(folder / "lists", folder / "resumed")
    order(folder, out=folder / "lists", candidates="popular:4", overwrite=True)
    for one, other in zip(parts(folder), parts(folder, "resumed"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_what_is_there_is_not_lost_unasked(folder: Path) -> None:
    asked = {"out": folder / "lists", "candidates": "popular:4", "overwrite": False}
    order(folder, **asked)
    with pytest.raises(UserError, match="has ranked lists already"):
        order(folder, **asked)
    (folder / "lists" / "manifest.json").unlink()
    (folder / "lists" / ".unfinished").mkdir()
    (folder / "lists" / ".unfinished" / "request.json").write_text('{"top": 9}')
    with pytest.raises(UserError, match="unfinished lists of another request"):
        order(folder, **asked)
    order(folder, **{**asked, "overwrite": True})
    assert len(parts(folder)) == 4
    (folder / "lists" / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match=r"files that msr did not write \(mine.txt\)"):
        order(folder, **{**asked, "overwrite": True})
    assert (folder / "lists" / "mine.txt").read_text() == "precious"
    with pytest.raises(UserError, match="in the run folder"):
        order(folder, out=folder / "run" / "lists", candidates="popular:4", overwrite=False)


def test_other_settings_are_another_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("msr_adapter.workflows.recommend.part_folder.PartFolder.close_part", stop)
        with pytest.raises(KeyboardInterrupt):
            order(folder, out=folder / "lists", candidates="popular:4", overwrite=False)
    with pytest.raises(UserError, match=r"another request \(other candidates, top\)"):
        order(folder, out=folder / "lists", candidates="popular:5", top=2, overwrite=False)
    order(folder, out=folder / "lists", candidates="popular:4", overwrite=False)
    assert listed(folder)["user_id"].n_unique() == len(TAKEN)


def test_two_workers_write_the_same_parts(folder: Path) -> None:
    asked = {"candidates": "popular:4", "overwrite": False}
    order(folder, out=folder / "alone", **asked)
    order(folder, sets=("execution.workers=2",), out=folder / "lists", **asked)
    for one, other in zip(parts(folder), parts(folder, "alone"), strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.slow
def test_a_ray_cluster_writes_the_same_parts(folder: Path) -> None:
    pytest.importorskip("ray")
    asked = {"candidates": "popular:4", "overwrite": False}
    order(folder, out=folder / "alone", **asked)
    order(folder, sets=("execution.workers=2", "execution.engine=ray"), out=folder / "lists", **asked)
    for one, other in zip(parts(folder), parts(folder, "alone"), strict=True):
        assert one.read_bytes() == other.read_bytes()
