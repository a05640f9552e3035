"""What of an item, and of a user, is embedded: texts and images as a model is given them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from msr_adapter.config.schema import EmbeddingConfig
from msr_adapter.generation import Image
from msr_adapter.item_images import images_of
from msr_adapter.prompts import neutralise
from msr_adapter.prompts.neutralize import TEXT_LIMIT


@dataclass(frozen=True)
class ItemContents:
    """Texts and images of items, in the order of ITEMS."""

    texts: Sequence[str]
    """Title and summary, a line each; empty where the item has neither."""
    images: Sequence[tuple[Image, ...]]
    parts: Sequence[str]
    """What each consists of: "title+image+summary"; empty = nothing to embed."""

    def counts(self) -> dict[str, int]:
        """Return how many items consist of what, in the order of the table's first."""
        found: dict[str, int] = {}
        for parts in self.parts:
            found[parts] = found.get(parts, 0) + 1
        return found


def read_item_contents(
    config: EmbeddingConfig, items: pa.Table, summaries: Mapping[str, str], folder: Path, *, images: bool
) -> ItemContents:
    """Return what is embedded of each of ``items`` (ITEMS); ``images`` says whether the model can read them.

    Images lie relative to ``folder``; ``summaries`` are by item id. Parts that an item lacks are left out.
    """
    ids, titles = items["item_id"].to_pylist(), items["title"].to_pylist()
    every = images_of(items, folder)
    texts: list[str] = []
    shown: list[tuple[Image, ...]] = []
    parts: list[str] = []
    for number, item in enumerate(ids):
        said = {"title": titles[number], "summary": neutralise(summaries.get(item, ""), TEXT_LIMIT)}
        told = {part: said[part].strip() for part in ("title", "summary") if part in config.parts}
        seen = images and "image" in config.parts and bool(every[number])
        texts.append("\n".join(text for text in told.values() if text))
        shown.append(every[number] if seen else ())
        there = {"title": bool(told.get("title")), "image": seen, "summary": bool(told.get("summary"))}
        parts.append("+".join(part for part, is_there in there.items() if is_there))
    with_prompt = [f"{config.item_prompt}{text}" if text else "" for text in texts]
    return ItemContents(with_prompt, shown, parts)


def user_text(config: EmbeddingConfig, summary: str) -> str:
    """Return what is embedded of a user: the summary, neutralised as prompts have it; empty where there is none."""
    text = neutralise(summary, TEXT_LIMIT).strip()
    return f"{config.user_prompt}{text}" if text else ""
