"""Small stage inputs for the tests of the summarisers; not collected by pytest."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from msr_adapter.progress import Reporter
from msr_adapter.schema import EXAMPLES, ITEM_SUMMARIES, ITEMS, write_table


class Lines(Reporter):
    """A reporter whose notes can be read."""

    def __init__(self) -> None:
        self._stream = io.StringIO()
        super().__init__(console=Console(file=self._stream, width=10_000))

    @property
    def text(self) -> str:
        return self._stream.getvalue()


def write_shop(
    folder: Path,
    titles: Mapping[str, str],
    histories: Sequence[Sequence[str]],
    no_image: str = "",
    tested: int = 0,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a data stage's items and examples, the last ``tested`` of the test split.

    Items named in ``no_image`` (one letter each) have no image.
    """
    pictures = [None if item in no_image else f"images/{item}.png" for item in titles]
    items = {
        "item_id": list(titles),
        "title": list(titles.values()),
        "image": pa.array(pictures, pa.string()),
        "image_digest": pa.array([None if item in no_image else f"digest of {item}" for item in titles], pa.string()),
        "more_images": pa.nulls(len(titles), ITEMS.field("more_images").type),
        "popularity": [1] * len(titles),
        "text": [(texts or {}).get(item, "") for item in titles],
        "category": pa.nulls(len(titles), pa.string()),
        **dict.fromkeys(("in_log", "listed"), pa.array([True] * len(titles))),
    }
    write_table(pa.table(items), ITEMS, folder / "items.parquet")
    examples = {
        "example_id": pa.array(range(len(histories)), pa.int64()),
        "split": pa.array(["train"] * (len(histories) - tested) + ["test"] * tested, pa.string()),
        "user_id": pa.array([f"u{number}" for number in range(len(histories))], pa.string()),
        "history": pa.array([list(history) for history in histories], pa.list_(pa.string())),
        "timestamp": pa.array(range(len(histories)), pa.int64()),
    }
    write_table(pa.table(examples), EXAMPLES, folder / "examples.parquet")


def write_summaries(folder: Path, summaries: Mapping[str, str]) -> None:
    """Write an item stage's table."""
    table = pa.table({"item_id": list(summaries), "summary": list(summaries.values())})
    write_table(table, ITEM_SUMMARIES, folder / "items.parquet")
