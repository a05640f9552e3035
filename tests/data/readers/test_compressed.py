"""Compressed sources: opened as what they hold; bombs, damage and unknown kinds are refused before reading."""

import gzip
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.config.schema import DataConfig
from msr_adapter.data.readers import compressed
from msr_adapter.data.readers.compressed import compression_problems
from msr_adapter.errors import UserError
from msr_adapter.text_tables.opening import open_plain, plain_suffix
from tests.support.data_builders import build_in, random_rows, table_data


def problems(path: Path, max_expansion: int = 100) -> list[str]:
    return [str(one) for one in compression_problems([path], max_expansion)]


def packed(path: Path, *members: bytes) -> Path:
    path.write_bytes(b"".join(gzip.compress(member, mtime=0) for member in members))
    return path


def test_the_suffix_is_that_of_the_content() -> None:
    names = {"a.jsonl.gz": ".jsonl", "a.CSV.GZ": ".csv", "a.csv": ".csv", "a.gz": "", "a.b.parquet": ".parquet"}
    assert {name: plain_suffix(Path(name)) for name in names} == names


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_the_first_bytes_decide_how_a_file_is_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"plain")
    with open_plain(tmp_path / name) as file:
        assert file.read() == b"plain"
    packed(tmp_path / name, b"one,", b"two")
    with open_plain(tmp_path / name) as file:
        assert file.read() == b"one,two"


def test_a_bomb_is_refused_by_the_limit_of_the_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_FINE", 1000)
    bomb = packed(tmp_path / "log.csv.gz", b"a" * 1_000_000)
    size = bomb.stat().st_size
    assert size * 100 < 1_000_000 < size * 1000
    assert problems(bomb, 1000) == []
    assert problems(bomb, 100) == [
        f"{bomb}: its {size:,} bytes hold more than {size * 100:,}; data.max_expansion: 100 allows 100 times the size "
        "of a compressed file. Raise data.max_expansion if you trust the file"
    ]
    assert problems(bomb.rename(tmp_path / "log.csv"), 100) != []


def test_a_bomb_in_a_later_member_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_FINE", 1000)
    assert "hold more than" in problems(packed(tmp_path / "log.csv.gz", b"user,item\n", b"0" * 10**6))[0]


def test_what_every_file_may_hold(tmp_path: Path) -> None:
    assert problems(packed(tmp_path / "log.csv.gz", b"a\n" * 2**20)) == []
    bomb = problems(packed(tmp_path / "log.csv.gz", b"a\n" * 33 * 2**20), 1)
    assert "hold more than 67,108,864" in bomb[0]


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(0, 1200), st.integers(0, 600))
def test_the_count_is_exact(
    tmp_path_factory: pytest.TempPathFactory, members: list[bytes], limit: int, padding: int
) -> None:
    path = packed(tmp_path_factory.mktemp("gz") / "a.gz", *members)
    path.write_bytes(path.read_bytes() + b"\0" * padding)
    held, _ = compressed._measure(path, limit)
    assert (held > limit) == (sum(map(len, members)) > limit)


def test_the_count_is_exact_whatever_the_size_of_a_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.gz", b"x" * 5000, b"", b"yz" * 100)
    for chunk in (1, 2, 7, 64):
        monkeypatch.setattr(compressed, "_CHUNK", chunk)
        assert compressed._measure(path, 5200)[0] == 5200
        assert compressed._measure(path, 5199)[0] == 5200


@pytest.mark.parametrize("kept", [5, 20, -1])
def test_a_cut_file_is_reported(tmp_path: Path, kept: int) -> None:
    whole = packed(tmp_path / "log.csv.gz", bytes(range(256)) * 4)
    whole.write_bytes(whole.read_bytes()[:kept])
    assert problems(whole) == [f"{whole}: a damaged gzip file (it ends too early). Copy or download it again"]


@pytest.mark.parametrize("place", [12, -6])
def test_a_damaged_file_is_reported(tmp_path: Path, place: int) -> None:
    path = packed(tmp_path / "log.csv.gz", b"user,item\n" * 9)
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)
    assert "a damaged gzip file" in problems(path)[0]


def test_garbage_after_a_member_is_damage(tmp_path: Path) -> None:
    path = packed(tmp_path / "log.csv.gz", b"user,item\n")
    path.write_bytes(path.read_bytes() + b"garbage")
    assert "a damaged gzip file" in problems(path)[0]


@pytest.mark.parametrize(
    ("kind", "start"),
    [("zstd", b"\x28\xb5\x2f\xfd"), ("zip", b"PK\x03\x04"), ("xz", b"\xfd7zXZ\0"), ("zlib", zlib.compress(b"a,b\n"))],
)
def test_other_kinds_are_named(tmp_path: Path, kind: str, start: bytes) -> None:
    (tmp_path / "log.csv").write_bytes(start)
    assert f"compressed with {kind}; plain text, Parquet or gzip" in problems(tmp_path / "log.csv")[0]


def test_text_and_absent_files_are_no_concern(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("x^2,item\n")
    assert problems(tmp_path / "log.csv") == problems(tmp_path / "nowhere.csv.gz") == []


def test_the_files_of_a_folder_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_FINE", 1000)
    (tmp_path / "deep").mkdir()
    bomb = packed(tmp_path / "deep" / "part.jsonl.gz", b"0" * 10**6)
    packed(tmp_path / "fine.jsonl.gz", b"0" * 10)
    assert [text.split(":")[0] for text in problems(tmp_path)] == [str(bomb)]


def test_an_endless_line_is_seen_within_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "_CHUNK", 10)
    monkeypatch.setattr(compressed, "LONGEST_LINE", 5000)
    path = packed(tmp_path / "log.csv.gz", b"user,item\n" + b"a" * 9000)
    assert compression_problems([path], 100, budget=1000) == []
    assert problems(path) == [
        f"{path}: holds a line of more than 5,000 bytes; a table with one row per line. "
        "Decompress it if you trust the file"
    ]
    assert problems(packed(path, *[b"a" * 4000 + b"\n"] * 5)) == []


def test_a_budget_ends_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_FINE", 1000)
    monkeypatch.setattr(compressed, "_CHUNK", 100)
    bomb = packed(tmp_path / "log.csv.gz", b"0,0\n" * 2**14)
    assert compression_problems([bomb], 2, budget=1.0) == []
    assert compression_problems([bomb], 2) != []


def test_the_stage_stops_before_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "ALWAYS_FINE", 1000)
    data = table_data(tmp_path, random_rows(4, 5, 3))
    bomb = packed(tmp_path / "log.csv", b"user,item\n" + b"\n" * 10**6)
    assert isinstance(data, DataConfig)
    with pytest.raises(UserError, match=f"{bomb}: its .* hold more than"):
        build_in(tmp_path, data)
