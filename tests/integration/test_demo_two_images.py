"""A generated shop whose items have two images: what the second shows is said in words, and learned; beyond chance."""

import json
import re
from collections import Counter
from pathlib import Path

import polars as pl
import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import SyntheticSourceConfig
from msr_adapter.data import BuildInputs, build
from msr_adapter.progress import Reporter
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.stage_arguments import Job
from msr_adapter.synthetic import MOTIFS, Shopping, generate
from tests.integration.test_demo_attributes import said
from tests.support.paths import ROOT


def prompts() -> Prompts:
    return Prompts(ROOT / "templates" / "demo-two-images")


def test_the_history_says_what_was_chosen_more_than_once() -> None:
    items = [
        HistoryItem("Last River, a drama", "Covers: boat, kite; blue, red. Genres: drama twice."),
        HistoryItem("Last Garden, a western", "Covers: boat, star; red twice. Genres: western twice."),
        HistoryItem("Silent River, a drama", "Covers: kite twice; red, yellow. Genres: drama twice."),
        HistoryItem("", ""),
    ]
    assert prompts().history(items=items) == "Covers: boat twice, kite often. Genres: drama twice."
    assert prompts().history(items=items[:1]) == "Covers: none. Genres: none."


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        ("Covers: boat, kite; blue, red. Genres: drama twice.", " A boat. A kite."),
        ("Covers: kite twice; blue, red. Genres: drama twice.", " A kite. A kite."),
        ("Covers: kite; red. Genres: drama.", " A kite."),
        ("", ""),
    ],
)
def test_the_question_says_what_each_image_shows(summary: str, told: str) -> None:
    asked = prompts().recommend("Covers: x.", "Last River, a drama", 0, HistoryItem("Last River, a drama", summary))
    assert asked.splitlines()[0] == f"Title: Last River, a drama.{told}"
    shown = prompts().recommend("Covers: x.", "Last River, a drama", 2, HistoryItem("Last River, a drama", summary))
    assert shown == f"<image>\n<image>\n{asked}"


def test_the_summariser_is_shown_every_image() -> None:
    asked = prompts().item_summary("Last River, a drama", 2)
    assert asked.splitlines()[1:3] == ["- Last River, a drama. <image>"] * 2
    assert prompts().item_summary("", 0) == "Choices:\n- (no title).\nWrite the preferences."


def test_both_pipelines_draw_the_same_lists(tmp_path: Path) -> None:
    digests = []
    for name, images in (("demo-two-images", 2), ("demo-one-image", 1)):
        pipeline = load_pipeline(name, ["data.source.users=60"]).pipeline
        inputs = BuildInputs(pipeline.data, pipeline.split, pipeline.evaluate.protocol, pipeline.train.negatives)
        digests.append(build(inputs, Job(tmp_path / name, Reporter(quiet=True), 7))["candidates_digest"])
        more = pl.read_parquet(tmp_path / name / "items.parquet")["more_images"].list.len().fill_null(0)
        assert more.max() == more.min() == images - 1
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_a_second_image_raises_auc_beyond_the_interval(tmp_path: Path) -> None:
    runs = tmp_path / "demo-one-image", tmp_path / "demo-two-images"
    for run in runs:
        said("run", run.name, "--run-dir", str(run), "--quiet")
    assert exact(runs[1]) > 0.75
    compared = json.loads(said("compare", *map(str, runs), "--json"))
    [auc] = [one for one in compared["differences"] if one["metric"] == "auc"]
    assert auc["low"] > 0


def exact(run: Path) -> float:
    """Return the share of items whose summary names the motifs of both images, and none beside."""
    source = load_pipeline(run.name, []).pipeline.data.source
    assert isinstance(source, SyntheticSourceConfig)
    shop = generate(
        source.users, source.items, source.interactions_per_user, source.noise, 7, Shopping(second_image=True)
    )
    seconds = shop.facets.second_motif
    assert seconds is not None
    summaries = dict(pl.read_parquet(run / "items" / "items.parquet").iter_rows())
    right = 0
    for code, item_id in enumerate(shop.items["item_id"].to_pylist()):
        told: Counter[str] = Counter()
        for word, level in re.findall(r"([a-z]+)( twice)?", summaries.get(item_id, "")):
            told[word] += 2 if level else 1
        true = Counter([MOTIFS[shop.facets.motif[code]], MOTIFS[seconds[code]]])
        right += {word: number for word, number in told.items() if word in MOTIFS} == dict(true)
    return right / len(summaries)
