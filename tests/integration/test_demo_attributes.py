"""A generated shop in which price and brand matter: what templates say of them is learned; counted beyond chance."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.data import BuildInputs, build
from msr_adapter.progress import Reporter
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.prompts.attributes import Attributes
from msr_adapter.stage_arguments import Job
from tests.support.paths import ROOT


def said(*arguments: str) -> str:
    """Run `msr` in a process of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "msr_adapter", *arguments], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
        capture_output=True, text=True, timeout=3_600,
    )  # fmt: skip
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def prompts() -> Prompts:
    return Prompts(ROOT / "templates" / "demo-attributes")


def item(title: str, **attributes: str | float) -> HistoryItem:
    named: Attributes = tuple(attributes.items())
    return HistoryItem(title, "", attributes=named)


def test_the_history_counts_brands_and_prices() -> None:
    items = [
        item("Last River, a drama", brand="Kite", price=5.0), item("Last Garden, a drama", brand="Kite", price=9.99),
        item("Silent River, a drama", brand="Kite", price=8), item("Silent Bridge, a western", brand="Boat", price=45),
    ]  # fmt: skip
    told = prompts().history(items=items)
    assert told == "Brands: boat, kite often; green often, red. Genres: drama often, western."


def test_without_attributes_the_same_templates_say_none() -> None:
    plain = [item("Last River, a drama"), item("Last Garden, a western")]
    assert prompts().history(items=plain) == "Genres: drama, western."
    assert "A green" not in prompts().recommend(user_summary="x", title="Last River, a drama", image=False)


def test_both_pipelines_draw_the_same_lists(tmp_path: Path) -> None:
    digests = []
    for name in ("demo-attributes", "demo-attributes-blind"):
        pipeline = load_pipeline(name, ["data.source.users=60"]).pipeline
        inputs = BuildInputs(pipeline.data, pipeline.split, pipeline.evaluate.protocol, pipeline.train.negatives)
        digests.append(build(inputs, Job(tmp_path / name, Reporter(quiet=True), 7))["candidates_digest"])
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_attributes_raise_auc_beyond_the_interval(tmp_path: Path) -> None:
    for name in ("demo-attributes", "demo-attributes-blind"):
        said("run", name, "--run-dir", str(tmp_path / name), "--quiet")
    compared = json.loads(
        said("compare", *(str(tmp_path / f"demo-attributes{end}") for end in ("-blind", "")), "--json")
    )
    [auc] = [one for one in compared["differences"] if one["metric"] == "auc"]
    assert auc["low"] > 0
