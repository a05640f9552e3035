"""What the models read of some users: histories, user summaries as they grew, and of the items titles and summaries."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.evaluate.candidates import flat
from msr_adapter.report.report_context import ReportContext
from msr_adapter.report.thumbnails import together
from msr_adapter.schema import EXAMPLES, ITEM_SUMMARIES, ITEMS, USER_STEPS, USER_SUMMARIES, read_table

_USER_SUMMARY, _TITLE, _ITEM_SUMMARY = 1500, 140, 400
"""Characters shown."""


@dataclass(frozen=True)
class SummaryStep:
    """The user summary after a block of the history."""

    items_read: int
    """Items read so far, from the oldest."""
    text: str


@dataclass(frozen=True)
class ItemText:
    """What is known of an item; clipped."""

    title: str
    summary: str
    image: str | None
    """Path relative to the data stage's folder."""


@dataclass(frozen=True)
class ShownTexts:
    """Texts of some examples, by example id, and of some items, by item id."""

    histories: Mapping[int, Sequence[str]]
    """Item ids, oldest first."""
    steps: Mapping[int, Sequence[SummaryStep]]
    """At least the last step, unless there is no user summary at all."""
    items: Mapping[str, ItemText]


def read_user_texts(
    examples: Sequence[int], candidates: Iterable[str], data_dir: Path, context: ReportContext
) -> ShownTexts:
    """Read the rows of ``examples`` and of the items in their histories or among ``candidates``."""
    histories = _lookup(data_dir / "examples.parquet", EXAMPLES, "example_id", examples, "history")
    wanted = sorted({item for history in histories.values() for item in history} | set(candidates))
    users_dir = context.users_dir
    shown = context.user_summaries_dir or users_dir
    steps = _steps(examples, histories, users_dir, shown) if users_dir and shown else {}
    return ShownTexts(histories, steps, _items(wanted, data_dir, context.items_dir))


def _steps(
    examples: Sequence[int], histories: Mapping[int, Sequence[str]], users_dir: Path, shown: Path
) -> dict[int, list[SummaryStep]]:
    """Return how each user summary grew; its last text is the one that prompts show."""
    path, steps = users_dir / "steps.parquet", dict[int, list[SummaryStep]]()
    if path.exists():
        table = read_table(path, USER_STEPS)
        rows = table.filter(pc.is_in(table["example_id"], value_set=pa.array(examples, pa.int64())))
        columns = (rows[name].to_pylist() for name in ("example_id", "items_read", "summary"))
        for example, read, text in zip(*columns, strict=True):
            steps.setdefault(example, []).append(SummaryStep(read, clip(text, _USER_SUMMARY)))
    final = _lookup(shown / "users.parquet", USER_SUMMARIES, "example_id", examples, "summary")
    if shown != users_dir:  # truncated: prompts show less than was written
        for example, grown in steps.items():
            grown[-1] = SummaryStep(grown[-1].items_read, clip(final.get(example) or "", _USER_SUMMARY))
    missing = {example: text for example, text in final.items() if text and example not in steps}
    return steps | {
        example: [SummaryStep(len(histories[example]), clip(text, _USER_SUMMARY))] for example, text in missing.items()
    }


def _items(wanted: Sequence[str], data_dir: Path, items_dir: Path | None) -> dict[str, ItemText]:
    path = data_dir / "items.parquet"
    titles, images, more = (
        _lookup(path, ITEMS, "item_id", wanted, column) for column in ("title", "image", "more_images")
    )
    summaries: dict[Any, Any] = {}
    if items_dir is not None:
        summaries = _lookup(items_dir / "items.parquet", ITEM_SUMMARIES, "item_id", wanted, "summary")
    return {
        item: ItemText(
            clip(titles.get(item) or "(no title)", _TITLE),
            clip(summaries.get(item, ""), _ITEM_SUMMARY),
            images.get(item) and together([images[item], *(one["path"] for one in more[item] or ())]),
        )
        for item in wanted
    }


def _lookup(path: Path, schema: pa.Schema, key: str, wanted: Sequence[object], value: str) -> dict[Any, Any]:
    """Return ``key`` -> ``value`` of the ``wanted`` rows; no file means no rows."""
    if not path.exists():
        return {}
    table = read_table(path, schema)
    rows = table.filter(pc.is_in(table[key], value_set=pa.array(wanted, schema.field(key).type)))
    return dict(zip(flat(rows[key]).to_pylist(), flat(rows[value]).to_pylist(), strict=True))


def clip(text: str, limit: int) -> str:
    """Return ``text`` on one line, without control characters, cut after ``limit`` characters."""
    clean = text[: 4 * limit]
    if not clean.isprintable():  # control characters, half surrogate pairs, line and paragraph separators
        clean = "".join(" " if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in clean)
    line = " ".join(clean.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
