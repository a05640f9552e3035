"""The report of many users stays small: the whole page, and each part's budget."""

import base64
import gzip
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
from msr_adapter.report.thumbnails import make_thumbnails
from tests.support.judged_run import Run, make_run
from tests.support.many_users import make_many

FAST = ProtocolConfig(name="fast", metrics=("hr", "mrr"), slices=(), confidence=ConfidenceConfig(samples=100))


def embedded(page: str) -> tuple[dict[str, Any], list[str]]:
    """Return the explorer's data and its covers' lines."""
    data, covers = re.findall(r'<script type="text/plain" id="explorer-\w+">(.*?)</script>', page, re.DOTALL)
    return json.loads(gzip.decompress(base64.b64decode(data))), covers.split("\n")


def test_five_thousand_users_stay_under_25_megabytes(tmp_path: Path) -> None:
    run = make_many(tmp_path)
    run.evaluate(FAST, baselines=("random",), score_dirs={"trained": run.trained})
    page = (run.root / "evaluate" / "report.html").read_bytes()
    assert len(page) < 25_000_000
    data, covers = embedded(page.decode())
    assert len(data["users"]["id"]) == 5_000
    assert len(data["candidates"]["item"]) == 5_000 * 21
    assert len(data["steps"]["read"]) == 5_000 * 3
    assert len(covers) == len(data["items"]["title"]) == 2_016
    assert all(line.startswith("UklGR") for line in covers)  # every cover is there: RIFF in base64
    assert b"The explorer holds" not in page


def test_beyond_the_limit_users_are_sampled_with_the_cases_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msr_adapter.report.user_sample.USER_LIMIT", 12)
    run = make_run(tmp_path)
    run.evaluate()
    data, _ = embedded(run.report())
    assert len(data["users"]["id"]) == len(set(data["users"]["id"])) == 12
    assert data["users"]["id"] == sorted(data["users"]["id"])
    assert sorted(data["kinds"].values()) == ["Best", "Best", "Typical", "Typical", "Worst", "Worst"]
    cases = re.findall(r'aria-label="(\w+) case, user (\w+)"', run.report())
    assert {data["users"]["id"][int(user)]: kind for user, kind in data["kinds"].items()} == {u: k for k, u in cases}
    assert "The explorer holds 12 of 40 users" in " ".join(run.report().split())
    first = run.report()
    run.evaluate()
    assert run.report() == first  # the sample is seeded


def test_users_with_too_long_texts_are_dropped_but_never_the_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msr_adapter.report.user_sample._TEXT_LIMIT", 500)
    run = make_run(tmp_path)
    run.evaluate()
    data, _ = embedded(run.report())
    texts = [data["texts"][text] for text in data["steps"]["text"]]
    assert sum(len(text.encode()) for text in texts) <= 500
    assert 6 <= len(data["users"]["id"]) < 40
    assert len(data["kinds"]) == 6


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    generator = np.random.default_rng(0)
    for number in range(40):
        pixels = generator.integers(0, 255, (160, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return [f"{number}.png" for number in range(40)]


def test_covers_shrink_before_any_is_left_out(tmp_path: Path, pictures: list[str]) -> None:
    whole = make_thumbnails(pictures, tmp_path, 10**9)
    assert (whole.side, len(whole.images), whole.left_out) == (144, 40, frozenset())
    size = sum(map(len, whole.images.values()))
    smaller = make_thumbnails(pictures, tmp_path, size // 2)
    assert smaller.side < 144
    assert len(smaller.images) == 40
    assert sum(map(len, smaller.images.values())) <= size // 2


def test_what_finds_no_room_is_named_the_least_wanted_last(tmp_path: Path, pictures: list[str]) -> None:
    smallest = make_thumbnails(pictures, tmp_path, 1)
    assert (smallest.images, smallest.left_out) == ({}, frozenset(pictures))
    all_small = make_thumbnails(pictures, tmp_path, 10**5)
    one = max(map(len, all_small.images.values()))
    some = make_thumbnails(pictures, tmp_path, 5 * one)
    assert some.side == 56
    assert list(some.images) == pictures[: len(some.images)]
    assert 3 <= len(some.images) < 40
    assert some.left_out == frozenset(pictures[len(some.images) :])


def test_equal_pictures_travel_once_and_those_left_out_are_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _with_shared_picture(tmp_path)
    run.evaluate()
    data, covers = embedded(run.report())
    shared = [covers[data["items"]["id"].index(item)] for item in ("006", "007")]
    number = next(place for place, line in enumerate(covers) if line and not line.startswith("=") and line in shared)
    assert sorted(shared) == sorted([covers[number], f"={number}"])
    monkeypatch.setattr("msr_adapter.report.page._COVER_BYTES", 1)
    run.evaluate()
    _, covers = embedded(run.report())
    assert set(covers) <= {"-", ""}
    assert "pictures were left out for the same reason" in run.report()


def _with_shared_picture(folder: Path) -> Run:
    """Return a run in which items 006 and 007 have one picture."""

    run = make_run(folder)
    items = schema.read_table(run.data / "items.parquet", schema.ITEMS).to_pylist()
    items[7]["image"] = items[6]["image"]
    table = pa.Table.from_pylist(items, schema.ITEMS)
    schema.write_table(table, schema.ITEMS, run.data / "items.parquet")
    return run
