"""Which order of the question leaves fewer tokens to process: users first, or items first."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.candidate_rows import read_examples
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.filesystem import read_object
from msr_adapter.llamafactory.token_counts import Count, token_counter
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.stage_context import prompts_of
from msr_adapter.prompts import Prompts

_ORDERS = ("recommend", "recommend-image-first")
_TITLES = 1_000
"""Items whose titles are measured."""
_USER, _ITEM, _IMAGE = "qzuserqz", "qzitemqz", "<image>"


@dataclass(frozen=True)
class PromptShape:
    """What is to be scored, and how long its parts are, in tokens."""

    rows: int
    users: int
    items: int
    """Different candidates."""
    user_summary: float
    title: float
    image: float


def share_left(shape: PromptShape, ahead: float, around: float, *, item_first: bool) -> float:
    """Return the share of the prompts' tokens that is left to process when each user, or each item, is computed once.

    ``around`` are the tokens beside user summary, title and image; ``ahead`` those of them that stand before whatever
    comes second, the user or the item. The formulas are in docs/scoring.md.
    """
    row = around + shape.user_summary + shape.title + shape.image
    shared = ahead + (shape.title + shape.image if item_first else shape.user_summary)
    groups = shape.items if item_first else shape.users
    return (groups * shared + shape.rows * (row - shared)) / (shape.rows * row)


def compare_orders(pipeline: PipelineConfig, folder: RunFolder) -> list[str]:
    """Return a line on how many tokens each order of the question leaves to process, by the data and lengths stages.

    Nothing if the tokens of an image are not known, or there are no test candidates.
    """
    lengths = read_object(folder.stage("lengths") / "lengths.json")
    if lengths["image"] is None:
        return []
    count, how = token_counter(pipeline.train.model)
    shape = _shape(folder.stage("data"), lengths, count)
    if not shape.rows:
        return []
    left = {name: _left(prompts_of(pipeline, name), count, lengths["overhead"], shape) for name in _ORDERS}
    best = min(left, key=left.__getitem__)
    told = "scoring: " + ", ".join(f"`train.prompt: {name}` leaves {part:.0%}" for name, part in left.items())
    told += (
        f" of the tokens to process (user summary {shape.user_summary:.0f}, image {shape.image:.0f}, a candidate is "
    )
    told += f"shown to {shape.rows / shape.items:.1f} users; {how})"
    return [told if best == pipeline.train.prompt else f"{told}; the order is part of what is trained"]


def _shape(data_dir: Path, lengths: Mapping[str, Any], count: Count) -> PromptShape:
    """Return the numbers of test candidates, users and items, and the typical length of each part of a prompt."""
    kept = read_examples(data_dir, "test")
    rows, items = 0, set[str]()
    for chunk in schema.read_chunks(data_dir / "candidates.parquet", schema.CANDIDATES):
        mine = chunk["item_id"].filter(pa.array(np.isin(chunk["example_id"].to_numpy(), kept)))
        rows += len(mine)
        items.update(pc.unique(mine).to_pylist())
    titles = schema.read_table(data_dir / "items.parquet", schema.ITEMS, ["title"])["title"].slice(0, _TITLES)
    of_history = lengths["recent"]["median"] if "recent" in lengths else 0.0
    title_tokens = [count(title) for title in titles.to_pylist()]
    return PromptShape(
        rows, len(kept), len(items), lengths["user_summary"]["median"] + of_history,
        float(np.median(title_tokens or [0])),
        lengths["image"]["median"],
    )  # fmt: skip


def _left(prompts: Prompts, count: Count, overhead: int, shape: PromptShape) -> float:
    """Return the share that this template leaves, from where it puts the user and the item."""
    text = prompts.recommend(_USER, _ITEM, image=bool(shape.image))
    user, item = text.find(_USER), min(place for place in (text.find(_ITEM), text.find(_IMAGE)) if place >= 0)
    # What a chat template adds is nearly all before the question: the system text.
    ahead = overhead + count(_bare(text[: max(user, item)]))
    return share_left(shape, ahead, overhead + count(_bare(text)), item_first=item < user)


def _bare(text: str) -> str:
    return text.replace(_USER, "").replace(_ITEM, "").replace(_IMAGE, "")
