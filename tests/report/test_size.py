"""The report of many users stays small: the whole page, and each part's budget."""

import base64
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from msr_adapter import schema
from msr_adapter.config.schema import ConfidenceConfig, ProtocolConfig
from msr_adapter.report.report_context import PageLimits
from msr_adapter.report.thumbnails import make_thumbnails, together
from tests.support.judged_run import Run, make_run
from tests.support.many_users import make_many

FAST = ProtocolConfig(name="fast", metrics=("hr", "mrr"), slices=(), confidence=ConfidenceConfig(samples=100))


def embedded(page: str) -> tuple[dict[str, Any], list[str]]:
    """Return the explorer's data and the lines of its images."""
    data, images = re.findall(r'<script type="text/plain" id="explorer-\w+">(.*?)</script>', page, re.DOTALL)
    return json.loads(gzip.decompress(base64.b64decode(data))), images.split("\n")


def test_five_thousand_users_stay_under_25_megabytes(tmp_path: Path) -> None:
    run = make_many(tmp_path)
    run.evaluate(FAST, baselines=("random",), score_dirs={"trained": run.trained})
    page = (run.root / "evaluate" / "report.html").read_bytes()
    assert len(page) < 25_000_000
    data, images = embedded(page.decode())
    assert len(data["users"]["id"]) == 5_000
    assert len(data["candidates"]["item"]) == 5_000 * 21
    assert len(data["steps"]["read"]) == 5_000 * 3
    assert len(images) == len(data["items"]["title"]) == 2_016
    assert all(line.startswith("UklGR") for line in images)  # every image is there: RIFF in base64
    assert b"the explorer holds" not in page


def test_beyond_the_limit_users_are_sampled_with_the_cases_and_the_page_says_so(
    tmp_path: Path,
) -> None:
    run, few = make_run(tmp_path), PageLimits(users=12)
    run.evaluate(limits=few)
    data, _ = embedded(run.report())
    assert len(data["users"]["id"]) == len(set(data["users"]["id"])) == 12
    assert data["users"]["id"] == sorted(data["users"]["id"])
    assert sorted(data["kinds"].values()) == ["Best", "Best", "Typical", "Typical", "Worst", "Worst"]
    cases = re.findall(r'aria-label="(\w+) case, user (\w+)"', run.report())
    assert {data["users"]["id"][int(user)]: kind for user, kind in data["kinds"].items()} == {u: k for k, u in cases}
    assert "the explorer holds 12 of 40 users" in " ".join(run.report().split())
    first = run.report()
    run.evaluate(limits=few)
    assert run.report() == first  # the sample is seeded


def test_users_with_too_long_texts_are_dropped_but_never_the_cases(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.evaluate(limits=PageLimits(text_bytes=500))
    data, _ = embedded(run.report())
    texts = [data["texts"][text] for text in data["steps"]["text"]]
    assert sum(len(text.encode()) for text in texts) <= 500
    assert 6 <= len(data["users"]["id"]) < 40
    assert len(data["kinds"]) == 6


@pytest.fixture
def image_paths(tmp_path: Path) -> list[str]:
    generator = np.random.default_rng(0)
    for number in range(40):
        pixels = generator.integers(0, 255, (160, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [f"{number}.png" for number in range(40)]


def test_images_shrink_before_any_is_left_out(tmp_path: Path, image_paths: list[str]) -> None:
    whole = make_thumbnails(image_paths, tmp_path, 10**9)
    assert (whole.side, len(whole.images), whole.left_out) == (144, 40, frozenset())
    size = sum(map(len, whole.images.values()))
    smaller = make_thumbnails(image_paths, tmp_path, size // 2)
    assert smaller.side < 144
    assert len(smaller.images) == 40
    assert sum(map(len, smaller.images.values())) <= size // 2


def test_several_images_of_an_item_are_one_thumbnail_side_by_side(tmp_path: Path, image_paths: list[str]) -> None:
    key = together([image_paths[0], "gone.png", image_paths[1]])
    made = make_thumbnails([image_paths[0], key, together(["gone.png"])], tmp_path, 10**9)
    sizes = [Image.open(io.BytesIO(data)).size for data in made.images.values()]
    assert list(made.images) == [image_paths[0], key]
    assert sizes == [(144, 144), (288, 144)]


def test_images_beyond_the_budget_are_named_the_most_wanted_are_kept(tmp_path: Path, image_paths: list[str]) -> None:
    smallest = make_thumbnails(image_paths, tmp_path, 1)
    assert (smallest.images, smallest.left_out) == ({}, frozenset(image_paths))
    all_small = make_thumbnails(image_paths, tmp_path, 10**5)
    one = max(map(len, all_small.images.values()))
    some = make_thumbnails(image_paths, tmp_path, 5 * one)
    assert some.side == 56
    assert list(some.images) == image_paths[: len(some.images)]
    assert 3 <= len(some.images) < 40
    assert some.left_out == frozenset(image_paths[len(some.images) :])


def test_equal_images_are_stored_once_and_those_left_out_are_marked(tmp_path: Path) -> None:
    run = _with_shared_image(tmp_path)
    run.evaluate()
    data, images = embedded(run.report())
    shared = [images[data["items"]["id"].index(item)] for item in ("006", "007")]
    number = next(place for place, line in enumerate(images) if line and not line.startswith("=") and line in shared)
    assert sorted(shared) == sorted([images[number], f"={number}"])
    run.evaluate(limits=PageLimits(image_bytes=1))
    _, images = embedded(run.report())
    assert set(images) <= {"-", ""}
    assert "images were left out to keep the page small" in run.report()


def _with_shared_image(folder: Path) -> Run:
    """Return a run in which items 006 and 007 have one image."""

    run = make_run(folder)
    items = schema.read_table(run.data / "items.parquet", schema.ITEMS).to_pylist()
    items[7]["image"] = items[6]["image"]
    table = pa.Table.from_pylist(items, schema.ITEMS)
    schema.write_table(table, schema.ITEMS, run.data / "items.parquet")
    return run
