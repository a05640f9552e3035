"""Tables on disk: what is read of a file, and that parts of it are left unread."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msr_adapter import schema

SUMMARIES = schema.USER_SUMMARIES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """150,000 texts, which make three parts."""
    ids = list(range(0, 300_000, 2))
    table = pa.table([ids, [f"user {number}" for number in ids]], schema=SUMMARIES)
    schema.write_table(table, SUMMARIES, tmp_path / "users.parquet")
    return tmp_path / "users.parquet"


@pytest.mark.parametrize(
    ("low", "high", "count"),
    [(0, 299_998, 150_000), (131_070, 131_072, 2), (5, 5, 0), (-9, 0, 1), (299_998, 10**9, 1), (7, 3, 0)],
)
def test_exactly_the_rows_between_are_read(path: Path, low: int, high: int, count: int) -> None:
    found = schema.read_between(path, SUMMARIES, "example_id", low, high)
    expected = [number for number in range(0, 300_000, 2) if low <= number <= high]
    assert len(expected) == count
    assert found["example_id"].to_pylist() == expected
    assert found["summary"].to_pylist() == [f"user {number}" for number in expected]


def test_parts_without_such_rows_are_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, size: int, groups: list[int]) -> object:
        asked.extend(groups)
        return original(self, size, groups)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    schema.read_between(path, SUMMARIES, "example_id", 140_000, 140_100)
    assert asked == [1]
    assert [len(part) for part in schema.read_chunks(path, SUMMARIES)] == [65_536, 65_536, 18_928]


def test_another_schema_is_refused(path: Path) -> None:
    with pytest.raises(pa.ArrowInvalid):
        schema.read_between(path, schema.SCORES, "example_id", 0, 1)
