"""`msr summarize --preview` and `--dry-run`: prompts and costs without a model, and answers that are never lost."""

import json
import sqlite3
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from typer.testing import CliRunner

from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.cli import app
from msr_adapter.pipeline import plan
from msr_adapter.progress import Reporter
from msr_adapter.workflows.summary_preview import estimate_summaries, preview_summaries
from tests.pipeline.test_run import load, summaries
from tests.support.scripted_pipeline import SCRIPTED

QUIET = Reporter(quiet=True)
BOTH = ("items", "users")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scripted.yaml").write_text(SCRIPTED)
    return tmp_path


def stored(folder: Path) -> int:
    with sqlite3.connect(folder / "run" / "cache" / "completions.sqlite") as database:
        return int(database.execute("SELECT COUNT(*) FROM completions_3").fetchone()[0])


def counts(folder: Path, stage: str) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "run" / stage / "manifest.json").read_text())["summary"]
    return summary


def test_a_preview_asks_nothing_and_finishes_no_stage(folder: Path) -> None:
    shown = preview_summaries(load(folder, "summarize.items.model.template=qwen2_vl"), BOTH, 3, False, QUIET)
    assert [len(shown[stage]) for stage in BOTH] == [3, 3]
    [request] = shown["items"][0]["requests"]
    assert request["prompt"].startswith("<image>\nTitle: ")
    assert "at most 35 words" in request["prompt"]
    assert request["image_tokens"] > 0 < request["text_tokens"]
    assert request["counted"].startswith("estimated")
    first, second, *_ = shown["users"][0]["requests"]
    assert "‹the item's summary›" in first["prompt"]
    assert first["tokens_to_come"] == 3 * 64
    assert "so far: ‹the summary after block 1›" in second["prompt"]
    assert second["tokens_to_come"] == 128 + 64 * second["prompt"].count("‹the item's summary›")
    assert stored(folder) == 0
    assert plan(load(folder))["items"] == "new"


def test_what_a_preview_asks_the_stages_do_not_ask_again(folder: Path) -> None:
    shown = preview_summaries(load(folder), BOTH, 2, True, QUIET)
    assert all("answer" in request for stage in BOTH for owner in shown[stage] for request in owner["requests"])
    assert not any("‹" in request["prompt"] for owner in shown["users"] for request in owner["requests"])
    asked = stored(folder)
    assert asked > 0
    assert plan(load(folder))["items"] == "new"
    summaries(load(folder))
    assert counts(folder, "items")["cached"] + counts(folder, "users")["cached"] == asked


@pytest.mark.parametrize(("users", "made"), [("nobody", 1), ("another", 2)])
def test_never_are_two_models_loaded(folder: Path, monkeypatch: pytest.MonkeyPatch, users: str, made: int) -> None:
    alive, beside, count = WeakSet[Any](), list[int](), 0

    class Watched(ScriptedBackend):
        def complete(self, *asked: Any, **more: Any) -> Any:
            alive.add(self)
            beside.append(len(alive))
            return super().complete(*asked, **more)

    def make(*_: Any) -> Watched:
        nonlocal count
        count += 1
        return Watched()

    monkeypatch.setattr("msr_adapter.distributed.make_backend", make)
    names = ("summarize.items.model.path=nobody", f"summarize.users.model.path={users}")
    shown = preview_summaries(load(folder, *names), BOTH, 2, True, QUIET)
    assert all(shown.values())
    assert (count, set(beside)) == (made, {1})


def test_the_cost_falls_to_nothing_when_all_is_answered(folder: Path) -> None:
    before = estimate_summaries(load(folder), BOTH, QUIET)
    assert all(before[stage]["cached"] == 0 < before[stage]["to_ask"] for stage in BOTH)
    assert "at most" in before["users"]["line"]
    summaries(load(folder))
    assert before["items"]["calls"] == counts(folder, "items")["distinct_requests"]
    assert before["users"]["calls"] >= counts(folder, "users")["distinct_requests"]
    after = estimate_summaries(load(folder), BOTH, QUIET)
    assert [after[stage]["to_ask"] for stage in BOTH] == [0, 0]
    assert after["items"]["line"].endswith("are answered already")


def test_a_stage_without_a_model_has_nothing_to_show(folder: Path) -> None:
    loaded = load(folder, "summarize.items.mode=none", "summarize.users.mode=none")
    assert preview_summaries(loaded, BOTH, 2, True, QUIET) == {"items": [], "users": []}
    assert "no model is asked" in estimate_summaries(loaded, BOTH, QUIET)["users"]["line"]


def test_titles_alone_are_shown_when_items_have_no_summaries(folder: Path) -> None:
    shown = preview_summaries(load(folder, "summarize.items.mode=none"), ("users",), 1, False, QUIET)
    assert shown["users"][0]["requests"][0]["tokens_to_come"] == 0
    assert "‹" not in shown["users"][0]["requests"][0]["prompt"]


def test_fusion_shows_all_three_prompts(folder: Path) -> None:
    [item] = preview_summaries(load(folder, "summarize.items.mode=fusion"), ("items",), 1, False, QUIET)["items"]
    by_text, by_image, both = item["requests"]
    assert (by_text["image"], both["image"]) == (None, None)
    assert by_image["prompt"].startswith("<image>\nThis picture")
    assert "‹the first answer›" in both["prompt"]
    assert both["tokens_to_come"] == 2 * 64


def msr(folder: Path, *options: str) -> Any:
    arguments = ["summarize", str(folder / "scripted.yaml"), "--run-dir", str(folder / "run"), "--quiet", *options]
    return CliRunner().invoke(app, arguments)


def test_the_command_prints_boxes_or_json(folder: Path) -> None:
    result = msr(folder, "--preview", "1", "--only", "items")
    assert result.exit_code == 0
    assert "item i" in result.stdout
    assert "text tokens" in result.stdout
    assert "user u" not in result.stdout
    told = json.loads(msr(folder, "--preview", "1", "--run", "--json").stdout)
    assert list(told) == ["items", "users"]
    assert told["users"][0]["requests"][0]["answer"]
    assert list(json.loads(msr(folder, "--dry-run", "--json", "--only", "users").stdout)) == ["users"]
    assert "item summaries: " in msr(folder, "--dry-run").stdout


def test_run_alone_says_nothing_of_what_to_ask(folder: Path) -> None:
    result = msr(folder, "--run")
    assert result.exit_code == 2
    assert "--preview" in result.stderr
