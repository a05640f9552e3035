"""The catalogue as vectors: what each item is of, and where it lies."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from msr_adapter.config.schema import EmbeddingConfig
from msr_adapter.embedding.embedder import Embedder
from msr_adapter.embedding.embedding_table import EmbeddedRows
from msr_adapter.embedding.item_content import read_item_contents


@dataclass(frozen=True)
class Catalogue:
    """Items and what is said of them."""

    items: pa.Table
    """ITEMS."""
    summaries: Mapping[str, str]
    """Item id -> its summary, where it has one."""
    folder: Path
    """What paths of images are relative to."""


def embed_catalogue(config: EmbeddingConfig, embedder: Embedder, catalogue: Catalogue) -> EmbeddedRows:
    """Return a vector of each item, in the order of ITEMS; zeros where there is nothing to embed. Says of what."""
    items = catalogue.items
    has_images = items["image"].null_count < len(items)
    images = "image" in config.parts and has_images and embedder.reads_images()
    found = read_item_contents(config, items, catalogue.summaries, catalogue.folder, images=images)
    if "image" in config.parts and has_images and not images:
        embedder.reporter.note(f"  {embedder.label} reads no images: items are embedded without")
    told = ", ".join(f"{number:,} by {parts.replace('+', ', ')}" for parts, number in found.counts().items() if parts)
    embedder.reporter.note(f"  items by their parts: {told or 'none has anything to embed'}")
    vectors = embedder.embed("items", found.texts, found.images)
    return EmbeddedRows("item", items["item_id"].to_pylist(), found.parts, vectors)
