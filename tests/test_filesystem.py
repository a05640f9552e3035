"""A full disk by any library's words, and what may lie where a file or a folder is expected."""

import errno
import os
import pickle
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from msr_adapter import schema
from msr_adapter.errors import Problem, StageError, UserError
from msr_adapter.files import digest, path_stamp, read_json_object, remove
from msr_adapter.filesystem import (
    DamagedFileError,
    DiskFullError,
    FileSystemError,
    files_below,
    guarded,
    is_full,
    open_file,
    parse_json,
    printable,
    read_object,
    real,
)
from tests.support.hostile_files import device, fifo, folder_there, limited, listening, nested, self_link

FULL = Path("/dev/full")
needs_dev_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")


def by_python(_: Path) -> None:
    with FULL.open("wb") as file:
        file.write(b"x" * 10)


def by_arrow(_: Path) -> None:
    with pa.OSFile(str(FULL), "w") as file:
        pq.write_table(pa.table({"x": range(10)}), file)


def by_polars(_: Path) -> None:
    pl.DataFrame({"x": range(10)}).write_csv(FULL)


def by_rust(_: Path) -> None:
    """As safetensors tells it, which replaces the file and so cannot be shown /dev/full."""
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


def by_sqlite(folder: Path) -> None:
    base = sqlite3.connect(folder / "small.sqlite")
    base.execute("PRAGMA max_page_count=3")
    base.execute("CREATE TABLE t (x BLOB)")
    try:
        base.execute("INSERT INTO t VALUES (zeroblob(100000))")
    finally:
        base.close()


def by_quota(_: Path) -> None:
    raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


@needs_dev_full
@pytest.mark.parametrize("write", [by_python, by_arrow, by_polars, by_rust, by_sqlite, by_quota])
def test_a_full_disk_is_called_one_whichever_library_met_it(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(DiskFullError) as told, guarded(tmp_path):
        write(tmp_path)
    assert told.value.exit_code == 1
    assert "the disk is full" in str(told.value)
    assert "MB at" in str(told.value)
    assert str(tmp_path) in str(told.value)
    assert is_full(told.value)


@needs_dev_full
def test_a_full_disk_is_seen_through_what_others_made_of_it(tmp_path: Path) -> None:
    def claim() -> None:
        try:
            by_python(tmp_path)
        except OSError as error:
            raise UserError(Problem("run", "run_dir", "cannot be written")) from error

    with pytest.raises(DiskFullError), guarded(tmp_path):
        claim()
    with pytest.raises(DiskFullError), guarded(tmp_path):
        raise StageError("LLaMA-Factory failed", "the disk is full", "make room")


@needs_dev_full
@pytest.mark.parametrize(("free", "full"), [(0, True), (2**30, False)])
def test_where_a_library_says_too_little_the_space_left_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, full: bool
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(DiskFullError if full else RuntimeError), guarded(tmp_path):
        torch.save(torch.zeros(10), FULL)


def test_a_quoted_text_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(UserError), guarded(tmp_path):
        raise UserError(Problem("log.csv:3", "title", "the text 'No space left on device' twice"))
    with pytest.raises(ZeroDivisionError), guarded(tmp_path):
        _ = 1 / 0


def test_files_that_cannot_be_used_are_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    self_link(tmp_path / "loop", None)
    with pytest.raises(FileSystemError, match=r"there: cannot be read or written \(Is a directory\)"), guarded():
        (tmp_path / "there").write_text("x")
    with pytest.raises(FileSystemError, match="symbolic links"), guarded():
        (tmp_path / "loop").read_text()


@pytest.mark.parametrize("put", [fifo, device, listening, folder_there, self_link])
def test_nobody_waits_for_what_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Callable[[Path, object], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "file", None)
    with limited(10):
        with pytest.raises(OSError, match=r"file|socket|device|[Dd]irectory|links|address"):
            open_file(tmp_path / "file")
        assert read_json_object(tmp_path / "file") == {}
        with pytest.raises(DamagedFileError):
            schema.read_table(tmp_path / "file", schema.ITEMS)
        with pytest.raises(DamagedFileError):
            list(schema.read_chunks(tmp_path / "file", schema.ITEMS))
        path_stamp(tmp_path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 900 + "1" + "}" * 900, "9" * 5000, "\udcff", "[1]"])
def test_json_that_is_none_or_too_deep_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "score" / "x.json"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    assert read_json_object(path) == {}
    with pytest.raises(DamagedFileError, match=r"x\.json: .*\n.*\n.*--force score"):
        read_object(path)


def test_json_of_usual_depth_is_read() -> None:
    assert parse_json("[" * 60 + "]" * 60)


def damaged(path: Path, how: str) -> None:
    table = pa.table({"item_id": ["a"] * 5000, "summary": ["text"] * 5000}, schema.ITEM_SUMMARIES)
    schema.write_table(table, schema.ITEM_SUMMARIES, path)
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "noise": os.urandom(4000), "empty": b""}.get(how, data))
    if how == "other":
        pq.write_table(pa.table({"item_id": [1]}), path)


@pytest.mark.parametrize("how", ["cut", "noise", "empty", "other"])
def test_a_damaged_table_is_told_with_the_stage_to_make_again(tmp_path: Path, how: str) -> None:
    path = tmp_path / "items" / "items.parquet"
    damaged(path, how)
    for read in (
        lambda: schema.read_table(path, schema.ITEM_SUMMARIES),
        lambda: list(schema.read_chunks(path, schema.ITEM_SUMMARIES)),
        lambda: schema.read_between(path, schema.ITEM_SUMMARIES, "item_id", 0, 1),
    ):
        with pytest.raises(DamagedFileError, match="--force items") as told:
            read()
        assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)


def test_folders_1500_deep_are_walked_stamped_and_removed() -> None:
    with tempfile.TemporaryDirectory() as made:
        top = Path(made) / "n"
        nested(top, None)
        assert list(files_below(top)) == []
        assert path_stamp(top)
        remove(top)
        assert not top.exists()


def test_names_that_are_no_utf_8_are_stamped_and_can_be_printed(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/cover\xff.png")).write_bytes(b"x")
    assert path_stamp(tmp_path, content_limit=0)
    assert digest("\udcff") != digest("\udcfe")
    assert printable("cover\udcff.png") == "cover\\udcff.png"


def test_a_link_to_itself_and_an_unknown_home_stay_as_they_are_written(tmp_path: Path) -> None:
    self_link(tmp_path / "loop", None)
    assert real(tmp_path / "loop") == tmp_path / "loop"
    assert real(Path("~nobody-of-this-name/x")).name == "x"


def test_a_pipe_is_removed_like_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    remove(tmp_path / "pipe")
    assert not (tmp_path / "pipe").exists()
