"""A request that fails for good: counted, named, treated by policy, asked again by the next run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.config.schema import ItemSummariesConfig, ModelConfig, UserSummariesConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import Answer, CompletionCache, Failure, Request
from msr_adapter.prompts import Prompts
from msr_adapter.schema import ITEM_SUMMARIES, USER_SUMMARIES, read_table
from msr_adapter.stage_arguments import Client, Job
from msr_adapter.summarize import summarize_items, summarize_users
from tests.support.recording import Recording
from tests.support.summaries import Lines, write_shop, write_summaries
from tests.support.tiny_run import flat_stages

MODEL = ModelConfig(path="tiny")
TITLES = {letter: f"Title{letter}" for letter in "abcdefgh"}


class Refusing(Recording):
    """Fails on prompts that hold a word."""

    def __init__(self, word: str) -> None:
        super().__init__(lambda request: f"sum of {len(re.findall('Title[a-h]', request.prompt))}")
        self.word = word

    def _answer(self, request: Request) -> Answer:  # type: ignore[override]
        return (
            Failure(request.key, "no luck") if self.word and self.word in request.prompt else super()._answer(request)
        )


def items(folder: Path, backend: Recording, policy: str) -> tuple[dict[str, str], dict[str, Any], str]:
    reporter = Lines()
    config = ItemSummariesConfig(model=MODEL, on_failure=policy)  # type: ignore[arg-type]
    with CompletionCache(folder / "c.sqlite") as cache:
        counts = summarize_items(
            config, flat_stages(folder), Client(Prompts(), backend, cache), Job(folder / "items", reporter)
        )
    rows = read_table(folder / "items" / "items.parquet", ITEM_SUMMARIES).to_pylist()
    return {row["item_id"]: row["summary"] for row in rows}, counts, reporter.text


def users(folder: Path, backend: Recording, policy: str) -> tuple[list[str], dict[str, Any], str]:
    reporter = Lines()
    config = UserSummariesConfig(model=MODEL, block=2, on_failure=policy)  # type: ignore[arg-type]
    with CompletionCache(folder / "c.sqlite") as cache:
        client, job = Client(Prompts(), backend, cache), Job(folder / "users", reporter)
        counts = summarize_users(config, flat_stages(folder), client, job)
    rows = read_table(folder / "users" / "users.parquet", USER_SUMMARIES).to_pylist()
    return [row["summary"] for row in rows], counts, reporter.text


def test_an_item_that_fails_stops_the_stage_when_all_others_are_done(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, ["abcdefgh"])
    backend = Refusing("Titlec")
    with pytest.raises(StageError, match=r"1 of 8 requests failed \(c: no luck\)(.|\n)*asks only for these again"):
        items(tmp_path, backend, "error")
    assert not (tmp_path / "items" / "items.parquet").exists()
    again = Refusing("")
    summaries, counts, _ = items(tmp_path, again, "error")
    assert len(again.prompts) == 1
    assert summaries["c"] == "sum of 1"
    assert (counts["failed"], counts["computed"], counts["cached"]) == (0, 1, 7)


def test_title_leaves_the_item_with_its_title(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, ["abc"])
    summaries, counts, notes = items(tmp_path, Refusing("Titlec"), "title")
    assert summaries == {letter: "sum of 1" if letter in "ab" else "" for letter in TITLES}
    assert counts["failed"] == 1
    assert json.loads((tmp_path / "items" / "failures.json").read_text()) == [{"id": "c", "reason": "no luck"}]
    assert "1 of 3 requests failed (c: no luck); titles stand in for them" in notes


def test_skip_leaves_the_item_out_of_the_histories(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, ["abc"])
    summaries, _, notes = items(tmp_path, Refusing("Titlec"), "skip")
    assert "c" not in summaries
    assert "they are skipped" in notes
    backend = Refusing("")
    texts, _, _ = users(tmp_path, backend, "error")
    assert texts == ["sum of 2"]
    assert not any("Titlec" in prompt for prompt in backend.prompts)


def test_a_step_that_fails_stops_the_stage_and_asks_nothing_that_builds_on_it(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, ["abcdef", "gh"])
    write_summaries(tmp_path / "items", dict.fromkeys(TITLES, ""))
    backend = Refusing("Titlec")
    with pytest.raises(StageError, match=r"user summaries: 1 of 3 requests failed \(example 0: no luck\)"):
        users(tmp_path, backend, "error")
    assert len(backend.prompts) == 3
    texts, _, _ = users(tmp_path, again := Refusing(""), "error")
    assert ["".join(re.findall("Title([a-h])", prompt)) for prompt in again.prompts] == ["cd", "ef"]
    assert texts == ["sum of 2", "sum of 2"]


def test_skip_carries_the_summary_past_the_failed_step(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, ["abcdef", "gh"])
    write_summaries(tmp_path / "items", dict.fromkeys(TITLES, ""))
    backend = Refusing("Titlec")
    texts, counts, _ = users(tmp_path, backend, "skip")
    assert len(backend.prompts) == 4
    assert "sum of 2" in backend.prompts[-1]
    assert all(texts)
    assert (counts["requests"], counts["failed"]) == (4, 1)


def test_title_lists_the_history_of_a_failed_example(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, ["abcdef", "gh"])
    write_summaries(tmp_path / "items", dict.fromkeys(TITLES, ""))
    texts, counts, _ = users(tmp_path, Refusing("Titlec"), "title")
    assert all(TITLES[letter] in texts[0] for letter in "abcdef")
    assert texts[1] == "sum of 2"
    assert counts["failed"] == 1
