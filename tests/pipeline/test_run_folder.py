"""The run folder: one process at a time, stages whole or absent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msr_adapter.errors import UserError
from msr_adapter.evaluate.results import read_finished
from msr_adapter.files import write_json
from msr_adapter.pipeline.run_folder import Manifest, RunFolder, output_digest
from msr_adapter.run_folder_mark import FORMAT, older_stages


def tree(root: Path) -> dict[str, bytes | str | None]:
    """Return all that is below a folder: files' bytes, links' targets."""
    return {
        path.relative_to(root).as_posix(): (
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        )
        for path in sorted(root.rglob("*"))
    }


def a_manifest(stage: str = "data", output: str = "o") -> Manifest:
    return Manifest(stage, {"config": "c"}, output, {"rows": 1}, 0.5, "2030-01-01T00:00:00+0000")


def test_a_stage_appears_whole_with_its_manifest(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    out = folder.begin("data")
    (out / "items.parquet").write_text("x")
    assert folder.manifest("data") is None
    assert not folder.stage("data").exists()
    folder.publish(a_manifest())
    assert folder.manifest("data") == a_manifest()
    assert (folder.stage("data") / "items.parquet").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_publishing_replaces_the_outdated_stage(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (folder.begin("data") / "old").write_text("old")
    folder.publish(a_manifest(output="1"))
    (folder.begin("data") / "new").write_text("new")
    folder.publish(a_manifest(output="2"))
    assert [path.name for path in sorted(folder.stage("data").iterdir())] == ["manifest.json", "new"]


def test_what_a_stage_can_go_on_from_goes_when_it_is_in_its_place(tmp_path: Path) -> None:
    folder, other = RunFolder(tmp_path), RunFolder(tmp_path / "variant")
    for one in (folder, other):
        (one.unfinished("train") / "key").mkdir(parents=True)
    folder.begin("train"), folder.discard("train"), folder.begin("data")
    folder.publish(a_manifest("data"))
    assert folder.unfinished("train").exists()
    folder.begin("train")
    folder.publish(a_manifest("train"))
    assert not folder.unfinished("train").exists()
    assert other.unfinished("train").exists()


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (folder.begin("data") / "half").write_text("half")
    assert list(folder.begin("data").iterdir()) == []


def test_what_somebody_put_in_the_place_of_a_stage_is_never_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "data").write_text("put here by somebody")
    (tmp_path / "items").mkdir()
    (tmp_path / "items" / "thesis.txt").write_text("years")
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "manifest.json").write_text('{"name": "of a web site"}')
    before = tree(tmp_path)
    for name in ("data", "items", "users"):
        with pytest.raises(UserError, match=rf"{name} run_dir: was not made by msr .* Move it away"):
            folder.begin(name)
    assert tree(tmp_path) == before
    folder.begin("train")
    (tmp_path / "train").mkdir()  # while the stage ran
    (tmp_path / "train" / "mine").write_text("x")
    with pytest.raises(UserError, match="was not made by msr"):
        folder.publish(a_manifest("train"))
    assert (tmp_path / "train" / "mine").read_text() == "x"


@pytest.mark.parametrize("left", ["", "{", "[]", "\xff"])
def test_a_stage_with_a_damaged_manifest_and_an_empty_folder_are_replaced(tmp_path: Path, left: str) -> None:
    folder = RunFolder(tmp_path)
    folder.begin("data")
    folder.publish(a_manifest())
    (folder.stage("data") / "manifest.json").write_text(left)
    (tmp_path / "items").mkdir()
    for name in ("data", "items"):
        folder.begin(name)
        folder.publish(a_manifest(name))
        assert folder.manifest(name) == a_manifest(name)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "data"}'])
def test_an_unreadable_manifest_means_not_done(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path)
    folder.begin("data")
    folder.publish(a_manifest())
    (folder.stage("data") / "manifest.json").write_text(text)
    assert folder.manifest("data") is None


def test_a_manifest_that_is_no_text_or_a_folder_means_not_done(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.begin("data")
    folder.publish(a_manifest())
    manifest = folder.stage("data") / "manifest.json"
    manifest.write_bytes(b"\xff\xfe")
    assert folder.manifest("data") is None
    manifest.unlink()
    manifest.mkdir()
    assert folder.manifest("data") is None


HOLD_THE_LOCK = """
import pathlib, sys
from msr_adapter.pipeline.run_folder import RunFolder
with RunFolder(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_gets_a_clear_error_and_the_lock_goes_with_the_first(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"in use by process {first.pid}; one process at a time"),
            RunFolder(tmp_path).locked(),
        ):
            pytest.fail("two processes hold the lock")
        first.kill()
    with RunFolder(tmp_path).locked():
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_written_is_the_users_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = RunFolder(tmp_path / "file" / "run")
    with pytest.raises(UserError, match=r"cannot be written .*--run-dir"), folder.locked():
        pytest.fail("locked a folder below a file")


def test_output_digest_sees_content_and_absence(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = output_digest(tmp_path, ("a", "b"))
    (tmp_path / "b").write_text("")
    second = output_digest(tmp_path, ("a", "b"))
    (tmp_path / "a").write_text("2")
    assert len({first, second, output_digest(tmp_path, ("a", "b"))}) == 3


def test_large_outputs_made_again_are_the_same(tmp_path: Path) -> None:
    """Whatever its size, a table counts by content: what was trained from it is found again when it is remade."""
    table, rows = tmp_path / "examples.parquet", tmp_path / "msr_train" / "rows.parquet"
    rows.parent.mkdir()
    for path in (table, rows):
        with path.open("wb") as file:
            file.truncate(65 * 2**20)
    outputs = ("examples.parquet", "msr_train")
    first = output_digest(tmp_path, outputs)
    for path in (table, rows):
        os.utime(path, (1, 1))
    assert output_digest(tmp_path, outputs) == first
    with rows.open("r+b") as file:
        file.write(b"x")
    os.utime(rows, (1, 1))
    assert output_digest(tmp_path, outputs) != first


def test_a_run_of_an_older_version_is_told_apart(tmp_path: Path) -> None:
    stage = tmp_path / "evaluate"
    stage.mkdir()
    write_json(stage / "metrics.json", {})
    for manifest, older in (({"stage": "evaluate"}, True), ({"stage": "evaluate", "format": FORMAT}, False)):
        write_json(stage / "manifest.json", manifest)
        assert older_stages(tmp_path, ("data", "evaluate")) == (["evaluate"] if older else [])
        with pytest.raises(UserError) as caught:
            read_finished(tmp_path)
        assert ("run of an older version of msr" in str(caught.value)) is older
        assert ("Run its pipeline again" in str(caught.value)) is older


def test_a_stage_that_is_still_right_is_renewed_and_not_made_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.locked():
        folder.begin("data")
        folder.publish(Manifest("data", {}, "digest", {}, 1.0, "now"))
        assert older_stages(folder.root, ("data",)) == ["data"]
        folder.renew("data")
    assert older_stages(folder.root, ("data",)) == []
    assert folder.manifest("data") == Manifest("data", {}, "digest", {}, 1.0, "now", format=FORMAT)
