"""Hostile tables and packed files: each a clear error or a counted drop; never a crash."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import polars as pl
import pytest
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.config.error_messages import is_path, kind_of
from msr_adapter.config.schema import (
    DataConfig,
    HuggingFaceSourceConfig,
    MINDSourceConfig,
    MovieLensSourceConfig,
    NetflixSourceConfig,
    OfficialAmazonSourceConfig,
    SourceConfig,
    SqlSourceConfig,
    StrictModel,
    SyntheticSourceConfig,
    TableSourceConfig,
)
from msr_adapter.data.checks import packed_problems
from msr_adapter.errors import UserError
from tests.support.data_builders import Built, build_in, random_rows, table_data, write_csv

USERS, ITEMS = 30, 12
MODEL = "{model: {path: tiny}}"


def table_files(folder: Path, suffix: str, user: str, item: str, title: str) -> DataConfig:
    """Write a log and a table of items in one format, with one hostile user, item and title among the others."""
    rows = [*random_rows(USERS, ITEMS, 4), *[(user, f"i{n:03}", n) for n in range(3)], (user, item, 9)]
    items = [*[(f"i{n:03}", f"title {n}") for n in range(ITEMS)], (item, title)]
    log = pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row")
    table = pl.DataFrame(items, schema=["item", "title"], orient="row")
    for name, frame in (("log", log), ("items", table)):
        path = folder / f"{name}{suffix}"
        if suffix == ".parquet":
            frame.write_parquet(path)
        elif suffix.startswith(".jsonl"):
            text = "".join(json.dumps(row) + "\n" for row in frame.to_dicts())
            path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
        else:
            frame.write_csv(path)
    source = TableSourceConfig(kind="table", interactions=folder / f"log{suffix}", items=folder / f"items{suffix}")
    return DataConfig(source=source)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_nul_bytes_are_data(tmp_path: Path, suffix: str) -> None:
    built = build_in(tmp_path / "b", table_files(tmp_path, suffix, "u\0", "i\0/../x", "one\0two"))
    [row] = [row for row in built.rows("items") if row["item_id"] == "i\0/../x"]
    assert row["title"] == "onetwo"
    assert built.counts["users_kept"] == USERS + 1
    assert "u\0" in {row["user_id"] for row in built.rows("interactions")}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_of_nul_bytes_is_no_table(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"log{suffix}").write_bytes(bytes(5000))
    source = TableSourceConfig(kind="table", interactions=tmp_path / f"log{suffix}")
    with pytest.raises(UserError, match=f"log{suffix}"):
        build_in(tmp_path / "b", DataConfig(source=source))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz"])
@pytest.mark.parametrize("which", ["log", "items"])
def test_bytes_that_are_no_text_are_told_by_line(tmp_path: Path, suffix: str, which: str) -> None:
    data = table_files(tmp_path, suffix.removesuffix(".gz"), "u", "i", "caf\u00e9")
    for name in ("log", "items"):
        plain = tmp_path / f"{name}{suffix.removesuffix('.gz')}"
        content = plain.read_bytes()
        if name == which:
            content = content.replace(b"i003", b"i\xff\xfe3", 1)
        plain.unlink()
        (tmp_path / f"{name}{suffix}").write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    source = TableSourceConfig(kind="table", interactions=tmp_path / f"log{suffix}", items=tmp_path / f"items{suffix}")
    with pytest.raises(UserError, match=rf"{which}{suffix}:\d+: byte 0xff at column \d+ is not UTF-8; text in UTF-8"):
        build_in(tmp_path / "b", data.model_copy(update={"source": source}))


def large_field(folder: Path, suffix: str, size: int) -> Built:
    title = "word " * (size // 5)
    built = build_in(folder / "b", table_files(folder, suffix, "u", "large", title))
    [row] = [row for row in built.rows("items") if row["item_id"] == "large"]
    assert len(row["title"]) <= 1000
    assert built.counts["titles_truncated"] == 1
    return built


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".jsonl.gz", ".parquet"])
def test_a_field_of_two_megabytes_is_cut_and_counted(tmp_path: Path, suffix: str) -> None:
    large_field(tmp_path, suffix, 2 * 10**6)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_field_of_a_hundred_megabytes_is_cut_and_counted(tmp_path: Path, suffix: str) -> None:
    large_field(tmp_path, suffix, 10**8)


def test_ids_of_a_megabyte_are_ids(tmp_path: Path) -> None:
    built = build_in(tmp_path / "b", table_files(tmp_path, ".csv", "u" * 10**6, "i" * 10**6, "x"))
    assert max(len(row["item_id"]) for row in built.rows("items")) == 10**6


def test_a_nul_in_a_path_of_the_pipeline_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        'data:\n  source: {kind: table, interactions: "a\\0b.csv"}\n  images: {folder: "x\\0y"}\n'
        f"summarize: {{items: {MODEL}, users: {MODEL}}}\ntrain: {MODEL}\nevaluate: {{protocol: next-item}}\n"
    )
    done = CliRunner().invoke(app, ["check", str(tmp_path / "my.yaml")])
    assert done.exit_code == 2
    assert f"{tmp_path / 'my.yaml'}:2 data.source.interactions: a NUL character; a path" in done.stderr
    assert f"{tmp_path / 'my.yaml'}:3 data.images.folder: a NUL character; a path" in done.stderr


def bomb_line(_: bytes) -> bytes:
    return b"user,item,timestamp" + b"x" * 70 * 2**20


def bomb_rows(line: bytes) -> bytes:
    return line + b"u,i,1\n" * (12 * 2**20)


@pytest.mark.parametrize("make", [bomb_line, bomb_rows])
@pytest.mark.parametrize("command", ["check", "build-data", "fetch-images"])
def test_a_gzip_bomb_is_an_error_for_every_command(
    tmp_path: Path, make: Callable[[bytes], bytes], command: str
) -> None:
    with gzip.open(tmp_path / "log.csv.gz", "wb", compresslevel=1) as file:
        file.write(make(b"user,item,timestamp\n"))
    (tmp_path / "my.yaml").write_text(
        "data: {source: {kind: table, interactions: log.csv.gz}, images: {folder: .}}\n"
        f"summarize: {{items: {MODEL}, users: {MODEL}}}\ntrain: {MODEL}\nevaluate: {{protocol: next-item}}\n"
    )
    done = CliRunner().invoke(app, [command, str(tmp_path / "my.yaml")])
    assert done.exit_code == 2
    assert f"{tmp_path / 'log.csv.gz'}: its " in done.stderr
    assert "hold more than 67,108,864; data.max_expansion: 100 allows 100 times the size" in done.stderr


FOLDERS = {
    MovieLensSourceConfig: ("ratings.csv", "movies.csv"),
    MINDSourceConfig: ("behaviors.tsv", "news.tsv"),
    NetflixSourceConfig: ("combined_data_1.txt", "combined_data_2.txt", "movie_titles.csv"),
    OfficialAmazonSourceConfig: ("Toys_user_items_negs_train.csv", "Toys_user_items_negs_test.csv", "Toys_i_map.tsv"),
}
"""Sources that are a folder -> the files in it that are read."""
SOURCES = [
    model
    for model in get_args(get_args(SourceConfig)[0])
    if model not in (SyntheticSourceConfig, HuggingFaceSourceConfig, SqlSourceConfig)
]
"""Sources whose files are named by the config or by their format."""


@pytest.mark.parametrize("model", SOURCES, ids=lambda model: model.__name__)
def test_the_packed_files_of_every_reader_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: type[StrictModel]
) -> None:
    monkeypatch.setattr("msr_adapter.data.readers.compressed.ALWAYS_FINE", 1000)
    bomb = gzip.compress(b"0" * 10**6)
    named = {name: tmp_path / f"{name}.csv" for name, field in model.model_fields.items() if is_path(field)}
    files = [path for name, path in named.items() if name != "folder"]
    files += [tmp_path / name for name in FOLDERS.get(model, ())]
    named |= {"folder": tmp_path} if "folder" in named else {}
    for path in files:
        path.write_bytes(bomb)
    source = model.model_validate({"kind": kind_of(model), **named})
    found = packed_problems(DataConfig.model_construct(source=source, max_expansion=100))
    assert {problem.where for problem in found} == {str(path) for path in files}
    assert len(files) >= 2


def test_the_packed_files_of_a_folder_of_a_hub_library_are_looked_at(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "part.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(b"0" * 70 * 2**20)
    source = HuggingFaceSourceConfig.model_validate({"kind": "huggingface", "interactions": {"path": str(tmp_path)}})
    [problem] = packed_problems(DataConfig(source=source))
    assert problem.where == str(tmp_path / "part.jsonl.gz")


def test_a_csv_cannot_smuggle_rows_into_the_audit(tmp_path: Path) -> None:
    data = table_data(tmp_path, [('u,"\n', "=cmd|'/c calc'!A1", 1), *random_rows(USERS, ITEMS, 4)])
    write_csv(
        tmp_path / "log.csv", ["user", "item", "timestamp"], [('u,"\n', "=cmd", 1), *random_rows(USERS, ITEMS, 4)]
    )
    built = build_in(tmp_path / "b", data)
    assert built.counts["users_kept"] == USERS + 1
    assert {row["user_id"] for row in built.rows("interactions")} >= {'u,"'}
