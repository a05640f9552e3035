"""Hostile data: each a clear error or a counted drop; never a crash, never a read outside the folder."""

import gzip
import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.config.messages import is_path, kind_of
from msr_adapter.config.schema import (
    DataConfig,
    HuggingFaceSourceConfig,
    ImagesConfig,
    MovieLensSourceConfig,
    OfficialAmazonSourceConfig,
    SourceConfig,
    StrictModel,
    SyntheticSourceConfig,
    TableSourceConfig,
)
from msr_adapter.data.checks import packed_problems
from msr_adapter.data.images.decode import ImageError, decode, quiet_pillow
from msr_adapter.errors import UserError
from tests.support.data_builders import Built, build_in, random_rows, table_data, write_csv

USERS, ITEMS = 30, 12
MODEL = "{model: {path: tiny}}"
CANARY = (255, 0, 255)
"""The colour of the picture that nothing may read."""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *more: bytes) -> bytes:
    """Return a PNG that claims a size and holds next to nothing."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(more)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def gradient(dtype: type, *shape: int) -> Any:
    return np.linspace(0, np.iinfo(dtype).max, int(np.prod(shape))).reshape(shape).astype(dtype)


def build_log(folder: Path, named: dict[str, str | bytes | None], config: ImagesConfig) -> Built:
    """Build a log in which every id of ``named`` is an item, and says what its image is."""
    ids = list(named)
    rows = [(user, ids[int(item[1:])], time) for user, item, time in random_rows(USERS, len(ids), 4)]
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_parquet(folder / "log.parquet")
    items = pl.DataFrame({"item": ids, "title": [""] * len(ids), "image": list(named.values())})
    items.write_parquet(folder / "items.parquet")
    source = TableSourceConfig(kind="table", interactions=folder / "log.parquet", items=folder / "items.parquet")
    return build_in(folder / "build", DataConfig(source=source, images=config))


def assert_no_canary(built: Built, secret: bytes) -> None:
    files = [path for path in built.out.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        assert secret not in data
        if path.suffix in (".png", ".jpg", ".webp"):
            with Image.open(path) as image:
                assert CANARY not in [colour for _, colour in image.convert("RGB").getcolors(2**24) or []]


def hideout(folder: Path) -> tuple[Path, bytes]:
    """Return a folder of covers, and the bytes of the picture that lies outside it under many names."""
    secret = saved(Image.new("RGB", (9, 9), CANARY), "PNG")
    covers = folder / "covers"
    (covers / "deep").mkdir(parents=True)
    (folder / "etc").mkdir()
    for place in ("secret.png", "etc/passwd", "etc/passwd.png", "secret", "..png"):
        (folder / place).write_bytes(secret)
    (covers / "link.png").symlink_to(folder / "secret.png")
    (covers / "deep" / "up").symlink_to("../..")
    (covers / "deep" / "chain.png").symlink_to("../link.png")
    return covers, secret


HOSTILE_IDS = ["../../etc/passwd", "../etc/passwd", "../secret", "../secret.png", "/etc/passwd", "..", ".", "link",
               "chain", "deep/up/secret", "a\0../secret", "~/secret", "%2e%2e/secret", "..\\secret", "|id", "$(id)",
               "-rf", "x" * 5000, "\u202egnp", "con", "é/../secret"]  # fmt: skip


def test_an_item_id_is_no_path(tmp_path: Path) -> None:
    covers, secret = hideout(tmp_path)
    (covers / "-rf.png").write_bytes(saved(Image.new("RGB", (9, 9), "green"), "PNG"))
    built = build_log(tmp_path / "b", dict.fromkeys(HOSTILE_IDS), ImagesConfig(folder=covers))
    assert_no_canary(built, secret)
    assert {row["item_id"] for row in built.rows("items")} == set(HOSTILE_IDS)
    assert [row["item_id"] for row in built.rows("items") if row["image"]] == ["-rf"]
    assert built.counts["images_missing_outside"] == 2
    assert built.counts["images_missing_absent"] == len(HOSTILE_IDS) - 3


def test_an_image_path_stays_in_the_folder(tmp_path: Path) -> None:
    covers, secret = hideout(tmp_path)
    (covers / "deep" / "fine.png").write_bytes(saved(Image.new("RGB", (9, 9), "green"), "PNG"))
    paths = ["../secret.png", "../../etc/passwd", str(tmp_path / "secret.png"), "link.png", "deep/chain.png",
             "deep/up/secret.png", "deep/../../secret.png", "a\0.png", "file:///etc/passwd", "deep/fine.png", "deep",
             "", "x" * 5000, "..\\secret.png", "C:/secret.png"]  # fmt: skip
    named = {f"item{n}": path for n, path in enumerate(paths)}
    built = build_log(tmp_path / "b", dict(named), ImagesConfig(folder=covers))
    assert_no_canary(built, secret)
    assert [row["item_id"] for row in built.rows("items") if row["image"]] == ["item9"]
    missing = {name: n for name, n in built.counts.items() if name.startswith("images_missing")}
    assert missing == {"images_missing_outside": 10, "images_missing_absent": 3, "images_missing_not_fetched": 1}
    assert "outside: they name or link to a file outside data.images.folder" in str(built.audit["findings"])


SIDEWAYS = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
"""Orientation 6."""

IMAGES = {
    "bomb": png(50_000, 50_000),
    "wide": png(2**31 - 1, 1),
    "svg": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
    "html": b"<html><script>alert(1)</script></html>",
    "cut": saved(Image.effect_noise((90, 90), 50).convert("RGB"), "PNG")[:900],
    "text": b"\xff\xfe\x00",
    "empty": b"",
    "gif": saved(Image.new("RGB", (9, 9), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (9, 9))]),
    "cmyk": saved(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95),
    "grey16": saved(Image.fromarray(gradient(np.uint16, 16, 16)), "PNG"),
    "orient": saved(Image.new("RGB", (9, 4), "red"), "JPEG", exif=SIDEWAYS),
}  # fmt: skip


@pytest.mark.parametrize("as_bytes", [True, False])
def test_hostile_pictures_are_refused_or_made_plain(tmp_path: Path, as_bytes: bool) -> None:
    covers = tmp_path / "covers"
    covers.mkdir()
    for name, data in IMAGES.items():
        (covers / f"{name}.jpg").write_bytes(data)
    config = ImagesConfig() if as_bytes else ImagesConfig(folder=covers)
    built = build_log(tmp_path / "b", {name: data if as_bytes else None for name, data in IMAGES.items()}, config)
    stored = {row["item_id"]: row["image"] for row in built.rows("items")}
    assert {item for item, path in stored.items() if path} == {"gif", "cmyk", "grey16", "orient"}
    empty = "images_missing_absent" if as_bytes else "images_missing_empty"
    missing = {name: n for name, n in built.counts.items() if name.startswith("images_missing")}
    assert missing == {
        "images_missing_too_large": 2,
        "images_missing_not_an_image": 4,
        "images_missing_broken": 1,
        empty: 1,
    }
    assert built.counts["images_first_frame"] == 1
    assert built.counts["items_text_only"] == 8
    pictures = {}
    for item, path in stored.items():
        if path:
            with Image.open(built.out / path) as image:
                assert image.mode == "RGB"
                pictures[item] = np.asarray(image)
    red = pictures["cmyk"][30, 30]
    assert red[0] > 200
    assert max(red[1:]) < 60
    assert np.array_equal(pictures["grey16"][..., 0], gradient(np.uint16, 16, 16) // 256)
    assert pictures["gif"][4, 4].tolist() == [255, 0, 0]
    assert pictures["orient"].shape == (9, 4, 3)


def test_sixteen_bit_colours_are_stored_with_eight(tmp_path: Path) -> None:
    rgb = gradient(np.uint16, 4, 4, 3).astype(">u2")
    rows = b"".join(b"\0" + rgb[y].tobytes() for y in range(4))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    found = decode(data, ImagesConfig())
    assert not found.plain
    assert np.abs(np.asarray(found.picture).astype(int) - rgb.astype(int) // 256).max() <= 1


def test_a_bomb_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pixel is decoded: the decoder that must not run is taken away."""
    monkeypatch.setattr(Image.Image, "load", None)
    for data in (IMAGES["bomb"], png(8_001, 8_000), png(60_000, 60_000)):
        with pytest.raises(ImageError, match="too_large"), quiet_pillow():
            decode(data, ImagesConfig())
    monkeypatch.undo()
    with pytest.raises(ImageError, match="broken"):
        decode(png(100, 100), ImagesConfig())


def test_a_bomb_in_the_metadata_of_a_picture() -> None:
    packed = zlib.compress(b"A" * 80 * 2**20)
    text = chunk(b"zTXt", b"Comment\0\0" + packed)
    profile = chunk(b"iCCP", b"icc\0\0" + packed)
    for more in (text, profile):
        with pytest.raises(ImageError, match="broken"), quiet_pillow():
            decode(png(10, 10, more), ImagesConfig())


def is_judged(data: bytes) -> bool:
    """Say whether bytes give a plain picture or a reason why not; any other exception is a crash."""
    with quiet_pillow():
        try:
            return decode(data, ImagesConfig(max_file_pixels=10_000)).picture.mode == "RGB"
        except ImageError as error:
            return error.fault in ("empty", "not_an_image", "broken", "too_large")


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(IMAGES)), st.data())
def test_damage_anywhere_gives_a_picture_or_a_reason(name: str, data: st.DataObject) -> None:
    damaged = bytearray(IMAGES[name])
    for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=8)):
        if damaged:
            damaged[place] = data.draw(st.integers(0, 255))
    assert is_judged(bytes(damaged))


@settings(max_examples=200)
@given(st.binary(max_size=400))
def test_noise_is_no_picture_that_breaks_anything(data: bytes) -> None:
    assert is_judged(data)


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
    OfficialAmazonSourceConfig: ("Toys_user_items_negs_train.csv", "Toys_user_items_negs_test.csv", "Toys_i_map.tsv"),
}
"""Sources that are a folder -> the files in it that are read."""
SOURCES = [
    model
    for model in get_args(get_args(SourceConfig)[0])
    if model not in (SyntheticSourceConfig, HuggingFaceSourceConfig)
]


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
