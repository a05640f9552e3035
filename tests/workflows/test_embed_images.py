"""`msr embed` by a model that reads images: a CLIP made from nothing, saved as sentence-transformers saves one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from msr_adapter.embedding import read_vectors
from msr_adapter.progress import Reporter
from msr_adapter.workflows.embed import EmbedRequest, embed
from tests.support.recommending import ITEMS, Asked, load, order, own_run, rows, trained, write_pipeline
from tests.support.sentence_models import clip_model

SEEN = ITEMS[:6]
"""The items that have an image."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("finished")
    write_pipeline(folder)
    (folder / "images").mkdir()
    for place, item in enumerate(SEEN):
        Image.new("RGB", (40, 30), (40 * place, 255 - 40 * place, 90)).save(folder / "images" / f"{item}.png")
    yaml = folder / "scripted.yaml"
    yaml.write_text(yaml.read_text().replace("data:\n", "data:\n  images: {folder: images}\n"))
    with trained(folder):
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return own_run(finished, tmp_path)


def embedded(folder: Path, *sets: str, model: Path | None = None, **wanted: Any) -> pl.DataFrame:
    loaded = load(folder / "pipeline", folder, f"embedding.model={model or clip_model()}", *sets)
    out = folder / "vectors.parquet"
    embed(loaded, EmbedRequest(**{"out": out, "overwrite": True, **wanted}), Reporter(quiet=True))
    return pl.read_parquet(out, glob=False)


def units(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_text_and_image_of_an_item_count_alike(folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    found = embedded(folder, "embedding.parts=[title, image]", kinds="items")
    assert found["parts"].to_list() == ["title+image"] * len(SEEN) + ["title"] * (len(ITEMS) - len(SEEN))
    network = SentenceTransformer(str(clip_model()), device="cpu")
    texts = units(network.encode([f"Title {item}" for item in ITEMS]))
    stored = [folder / "run" / "data" / path for path in images_of(folder)]
    images = units(network.encode([Image.open(path).convert("RGB") for path in stored]))
    expected = texts.copy()
    expected[: len(SEEN)] = units(texts[: len(SEEN)] + images)
    assert read_vectors(folder / "vectors.parquet", "item", list(ITEMS)) == pytest.approx(expected, abs=1e-5)


def test_images_alone_and_items_without_one(folder: Path) -> None:
    found = embedded(folder, "embedding.parts=[image]", kinds="items")
    assert dict(found.select("id", "parts").iter_rows()).get("a") == "image"
    vectors = read_vectors(folder / "vectors.parquet", "item", list(ITEMS))
    assert vectors[: len(SEEN)].any(axis=1).all()
    assert not vectors[len(SEEN) :].any()


def test_a_text_that_is_longer_than_the_network_reads_is_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the tokenizer, as that of many a CLIP, does not say how much that is."""
    asked = Asked(monkeypatch)
    (folder / "long.csv").write_text("item_id,title\nn1," + "long " * 40 + "\n")
    silent = clip_model(told_length=False)
    sets = (f"embedding.model={silent}", "embedding.parts=[title, image]")
    order(folder, sets, items=folder / "long.csv", candidates="embedding:6", top=3)
    assert len(rows(folder)) == 30
    shown = [image.path for one in asked.scored for image in one.images]
    assert shown  # images of the catalogue are found where new items stand beside it
    assert all(path.is_file() for path in shown)
    found = embedded(folder, "embedding.item_prompt=a very long beginning of everything ", model=silent, kinds="items")
    assert found.height == len(ITEMS)


def images_of(folder: Path) -> list[str]:
    items = pl.read_parquet(folder / "run" / "data" / "items.parquet", glob=False)
    return items.filter(pl.col("image").is_not_null()).sort("item_id")["image"].to_list()
