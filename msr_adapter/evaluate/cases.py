"""Example users for the report: what the model read, what it ranked, where the true item came out."""

import base64
import io
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from msr_adapter.evaluate.candidates import HeldOut, flat
from msr_adapter.metrics import GroupMetrics
from msr_adapter.schema import EXAMPLES, ITEM_SUMMARIES, ITEMS, USER_SUMMARIES, read_table

_SHOWN_CANDIDATES = 30
_THUMBNAIL = (112, 112)
_PER_KIND = 2


@dataclass(frozen=True)
class ItemView:
    """An item as the page shows it: clipped text, thumbnail as a data URI."""

    title: str
    thumbnail: str | None
    summary: str


@dataclass(frozen=True)
class CandidateView:
    """One ranked candidate."""

    item: ItemView
    probability: float
    target: bool
    place: int
    """1 = best; tied candidates stand in the order of the table."""


@dataclass(frozen=True)
class Case:
    """One user."""

    kind: str
    """``Best``, ``Typical`` or ``Worst``."""
    user: str
    rank: float
    """Expected rank of the true item."""
    size: int
    history: list[ItemView]
    preference: str
    candidates: list[CandidateView]
    hidden: int
    """Candidates not shown, for very long lists."""


def pick(result: GroupMetrics) -> list[tuple[str, int]]:
    """Choose (kind, user index) of the best, the typical and the worst cases by rank, then by the target's lead."""
    groups = result.groups
    scores = groups.scores.astype(np.float64)
    rivals = scores.copy()
    rivals[groups.positives] = -np.inf
    with np.errstate(invalid="ignore"):  # infinite scores have no lead
        lead = scores[groups.best] - np.maximum.reduceat(rivals, groups.offsets[:-1])
    order = np.lexsort((-lead, result.ranks))
    middle = max(0, (len(order) - _PER_KIND) // 2)
    kinds = {
        "Best": order[:_PER_KIND],
        "Typical": order[middle : middle + _PER_KIND],
        "Worst": order[::-1][:_PER_KIND],
    }
    chosen = {int(user): kind for kind in ("Typical", "Worst", "Best") for user in kinds[kind]}  # few users: best wins
    return [(kind, int(user)) for kind, users in kinds.items() for user in users if chosen[int(user)] == kind]


def make_cases(
    result: GroupMetrics,
    held_out: HeldOut,
    scores: pa.Table,
    data_dir: Path,
    items_dir: Path | None,
    users_dir: Path | None,
) -> list[Case]:
    """Return the chosen users with everything the page shows of them; reads only their rows and images."""
    chosen = pick(result)
    ids = [int(held_out.example_ids[user]) for _, user in chosen]
    histories = _lookup(read_table(data_dir / "examples.parquet", EXAMPLES), "example_id", ids, "history")
    preferences = _summaries(users_dir, "users.parquet", USER_SUMMARIES, "example_id", ids)
    needed = {item for history in histories.values() for item in history}
    for _, user in chosen:
        needed.update(held_out.items[held_out.offsets[user] : held_out.offsets[user + 1]].to_pylist())
    views = _item_views(sorted(needed), data_dir, items_dir)
    return [
        _case(kind, user, result, held_out, [views[item] for item in histories[example]], preferences.get(example, ""),
              _ranked(user, result, held_out, scores, views))
        for (kind, user), example in zip(chosen, ids, strict=True)
    ]  # fmt: skip


def _case(
    kind: str,
    user: int,
    result: GroupMetrics,
    held_out: HeldOut,
    history: list[ItemView],
    preference: str,
    candidates: list[CandidateView],
) -> Case:
    shown = [view for view in candidates if view.place <= _SHOWN_CANDIDATES or view.target]
    return Case(
        kind=kind,
        user=clip(str(held_out.user_ids[user]), 60),
        rank=float(result.ranks[user]),
        size=len(candidates),
        history=history,
        preference=clip(preference, 1500),
        candidates=shown,
        hidden=len(candidates) - len(shown),
    )


def _ranked(
    user: int, result: GroupMetrics, held_out: HeldOut, scores: pa.Table, views: dict[str, ItemView]
) -> list[CandidateView]:
    first, last = int(held_out.offsets[user]), int(held_out.offsets[user + 1])
    order = np.argsort(-result.groups.scores[first:last], kind="stable")
    items = held_out.items[first:last].to_pylist()
    probabilities: npt.NDArray[np.float64] = scores["score"][first:last].to_numpy()
    target = int(result.groups.best[user]) - first
    return [
        CandidateView(views[items[row]], float(probabilities[row]), row == target, place)
        for place, row in enumerate(order.tolist(), start=1)
    ]


def _item_views(items: list[str], data_dir: Path, items_dir: Path | None) -> dict[str, ItemView]:
    table = read_table(data_dir / "items.parquet", ITEMS)
    titles, images = _lookup(table, "item_id", items, "title"), _lookup(table, "item_id", items, "image")
    summaries = _summaries(items_dir, "items.parquet", ITEM_SUMMARIES, "item_id", items)
    return {
        item: ItemView(
            clip(titles.get(item) or "(no title)", 140),
            _thumbnail(data_dir, images.get(item)),
            clip(summaries.get(item, ""), 400),
        )
        for item in items
    }


def _summaries(
    folder: Path | None, name: str, schema: pa.Schema, key: str, wanted: Iterable[object]
) -> dict[object, str]:
    if folder is None or not (folder / name).exists():
        return {}
    return _lookup(read_table(folder / name, schema), key, wanted, "summary")


def _lookup(table: pa.Table, key: str, wanted: Iterable[object], value: str) -> dict[object, Any]:
    rows = table.filter(pc.is_in(table[key], value_set=pa.array(list(wanted), table.schema.field(key).type)))
    return dict(zip(flat(rows[key]).to_pylist(), flat(rows[value]).to_pylist(), strict=True))


def _thumbnail(data_dir: Path, image: str | None) -> str | None:
    """Return a small WebP as a data URI; None for an item without a readable image."""
    if image is None:
        return None
    target = io.BytesIO()
    try:
        with Image.open(data_dir / image) as picture:
            small = picture.convert("RGB")
            small.thumbnail(_THUMBNAIL)
            small.save(target, "WEBP", quality=80)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return "data:image/webp;base64," + base64.b64encode(target.getvalue()).decode()


def clip(text: str, limit: int) -> str:
    """Return ``text`` on one line, without control characters, cut after ``limit`` characters."""
    clean = "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text[: 4 * limit])
    line = " ".join(clean.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"
