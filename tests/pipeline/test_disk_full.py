"""A full disk ends a stage with one sentence, and the same command continues when there is room again."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from msr_adapter.files import file_digest
from msr_adapter.generation.completion_store import CompletionStore
from msr_adapter.pipeline.stages import STAGES
from tests.support.hostile_files import copy_here, finish, msr
from tests.support.scripted_pipeline import scripted

EVALUATE = "{protocol: next-item, baselines: [popularity, item-knn], scorer: {path: ours, backend: scripted}}"
YAML = scripted(evaluate=EVALUATE)
RUN = "run p.yaml --run-dir run --set train.cutoff_len=2048"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "p.yaml").write_text(YAML)
    return finish(folder, RUN)


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copy_here(made, tmp_path, monkeypatch)


def outputs(run: Path) -> dict[str, str]:
    """Return what a run found out, by file; of the page, which names times, that it is there."""
    found = [path for path in run.rglob("*") if path.suffix in (".parquet", ".png", ".json") and path.parent != run]
    return {
        path.relative_to(run).as_posix(): "" if path.name == "manifest.json" else file_digest(path)
        for path in found
        if ".partial" not in str(path)
    }


def full_in(part: str) -> Callable[[int], None]:
    """Return an `os.fsync` to which the disk is full below a folder called ``part``."""
    real = os.fsync

    def fsync(handle: int) -> None:
        if part in str(Path(f"/proc/self/fd/{handle}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    return fsync


def made_stages(made: Path) -> Iterator[str]:
    yield from (stage.name for stage in STAGES if (made / "run" / stage.name).is_dir())


def test_every_stage_calls_a_full_disk_a_full_disk_and_is_resumed(
    made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outputs(made / "run")
    shutil.rmtree(folder / "run")
    tried = []
    for stage in made_stages(made):
        with monkeypatch.context() as patched:
            patched.setattr("msr_adapter.files.os.fsync", full_in(f".{stage}.partial/"))
            code, said, bug = msr(RUN)
        assert bug is None, stage
        assert code == 1, stage
        assert "the disk is full" in said
        assert f"{folder}/run" in said
        assert " MB at " in said
        assert "the same command continues" in said
        assert not (folder / "run" / stage).exists()
        tried.append(stage)
    assert {"data", "items", "users", "score", "baselines", "evaluate"} <= set(tried)
    assert msr(RUN)[0] == 0
    assert outputs(folder / "run") == expected
    assert not list((folder / "run").glob(".*.partial"))


def test_a_full_disk_in_the_cache_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(folder / "run")
    opened = CompletionStore.__init__

    def small(self: CompletionStore, path: Path, *, must_exist: bool = False) -> None:
        opened(self, path, must_exist=must_exist)
        self._db.execute("PRAGMA max_page_count=8")

    with monkeypatch.context() as patched:
        patched.setattr(CompletionStore, "__init__", small)
        code, said, bug = msr(RUN)
    assert (code, bug) == (1, None)
    assert "the disk is full" in said
    assert "the same command continues" in said
    assert msr(RUN)[0] == 0


def test_a_full_disk_in_the_log_is_one(folder: Path) -> None:
    (folder / "run" / "run.log").unlink()
    (folder / "run" / "run.log").symlink_to("/dev/full")
    code, said, bug = msr(RUN)
    assert (code, bug) == (1, None)
    assert "the disk is full" in said
    assert "run.log" in said or f"{folder}/run" in said


def test_a_full_disk_before_the_first_stage_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/.msr-run")

    shutil.rmtree(folder / "run")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "touch", no_room)
        code, said, bug = msr(RUN)
    assert (code, bug) == (1, None)
    assert "the disk is full" in said
    assert msr(RUN)[0] == 0


@pytest.mark.parametrize(
    "command",
    [
        "results run --out metrics.txt",
        "candidates export p.yaml --run-dir run --out lists.parquet --set train.cutoff_len=2048",
        "cache export run --out all.jsonl",
    ],
)
def test_other_commands_call_it_so_too(folder: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    out = command.split("--out ")[1].split()[0]
    with monkeypatch.context() as patched:
        patched.setattr("msr_adapter.files.os.fsync", full_in(f"{out}."))
        code, said, bug = msr(command)
    assert bug is None
    assert code == 1, said
    assert "the disk is full" in said
    assert not (folder / out).exists()
