"""The footer of Parquet files: places as PyArrow tells them, and no damage that ends the process."""

import io
import random
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.data.readers.parquet_footer import column_places
from msr_adapter.data.readers.parquet_parts import parquet_parts
from msr_adapter.errors import UserError

ROWS = pa.table(
    {
        "user": [f"u{n % 7}" for n in range(50)],
        "n": list(range(50)),
        "tags": [["a", "b"][: n % 3] for n in range(50)],
        "at": [datetime(2024, 1, 1 + n % 28, tzinfo=UTC) for n in range(50)],
        "nested": [{"price": n / 2, "brand": None} for n in range(50)],
    }
)
WAYS = ({}, {"use_dictionary": False}, {"row_group_size": 7}, {"write_page_index": True}, {"compression": "zstd"},
        {"write_statistics": False, "store_schema": False}, {"version": "1.0", "data_page_version": "2.0"},
        {"sorting_columns": [pq.SortingColumn(1)], "write_page_checksum": True})  # fmt: skip


def _places(path: Path) -> list[tuple[int, int]]:
    found = pq.read_metadata(path)
    columns = [found.row_group(n).column(m) for n in range(found.num_row_groups) for m in range(found.num_columns)]
    return [(one.dictionary_page_offset or one.data_page_offset, one.total_compressed_size) for one in columns]


@pytest.mark.parametrize("way", WAYS)
def test_places_are_those_of_pyarrow(tmp_path: Path, way: dict[str, object]) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(ROWS, path, **way)  # type: ignore[arg-type]
    assert column_places(path) == _places(path)


def test_places_of_files_of_polars(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.from_arrow(ROWS).write_parquet(path, row_group_size=9)  # type: ignore[union-attr]
    assert len(column_places(path)) == 36
    assert column_places(path) == _places(path)


@given(st.integers(0, 2**32))
def test_a_damaged_footer_ends_in_places_or_an_error(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    draw, buffer = random.Random(seed), io.BytesIO()
    pq.write_table(ROWS, buffer, row_group_size=20)
    data = bytearray(buffer.getvalue())
    length = int.from_bytes(data[-8:-4], "little")
    for _ in range(draw.choice((1, 2, 8, 60))):
        data[len(data) - 8 - draw.randrange(length)] = draw.randrange(256)
    path = tmp_path_factory.mktemp("damaged") / "log.parquet"
    path.write_bytes(data)
    try:
        places = column_places(path)
    except ValueError:
        return
    assert all(isinstance(one, int) for place in places for one in place)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1", bytes(7), bytes(100), b"x" * 40 + b"\xff\xff\xff\x7fPAR1"])
def test_what_is_no_parquet_has_no_places(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="footer"):
        column_places(path)


def test_nested_without_end_is_an_error_and_no_recursion(tmp_path: Path) -> None:
    footer = b"\x1c" * 100_000
    path = tmp_path / "log.parquet"
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(ValueError, match="structure of a footer"):
        column_places(path)


def test_statistics_at_which_pyarrow_ends_the_process_are_no_matter(tmp_path: Path) -> None:
    # A histogram of sizes with one number too many: PyArrow throws it through code that catches nothing.
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": ["a", "b"], "item": ["x", "y"]}), path, use_dictionary=False)
    whole = path.read_bytes()
    assert parquet_parts(path) == [path]
    refusals = []
    for place in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole) - 8):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            parquet_parts(path)
        except UserError as error:
            refusals.append(str(error))
    assert refusals
    assert all(str(path) in text for text in refusals)
