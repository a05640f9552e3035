"""Mode `fusion`: the paper's three prompts for an item, and fewer where it lacks a picture or words."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import ItemSummariesConfig, ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import Answer, Failure, Request
from tests.summarize.test_items import run
from tests.support.recording import Recording
from tests.support.summaries import write_shop

TITLES = {letter: f"Title{letter}" for letter in "abcd"}


def config(on_failure: str = "error") -> ItemSummariesConfig:
    return ItemSummariesConfig.model_validate(
        {"model": ModelConfig(path="tiny"), "mode": "fusion", "max_new_tokens": 7, "on_failure": on_failure}
    )


def kind(request: Request) -> str:
    if request.images:
        return "picture"
    return "both" if "Combine both" in request.prompt else "words"


def say(request: Request) -> str:
    """Name what is seen or read; the joining answer repeats both parts."""
    if kind(request) == "picture":
        return f"seen {request.images[0].digest[-1]}"
    lines = request.prompt.splitlines()
    told = [line.split(": ", 1)[1] for line in lines[1:3]] if kind(request) == "both" else ["read", lines[0][-1]]
    return " ".join([*told, "joined"] if kind(request) == "both" else told)


def test_words_and_picture_are_asked_about_and_joined(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, [["a", "b"]])
    backend = Recording(say)
    summaries, counts, _ = run(tmp_path, backend, config())
    assert summaries == {"a": "read a seen a joined", "b": "read b seen b joined", "c": "", "d": ""}
    assert [[kind(request) for request in call] for call in backend.calls] == [
        ["words", "words"], ["picture", "picture"], ["both", "both"],
    ]  # fmt: skip
    assert backend.prompts[2].startswith("<image>\nThis picture belongs to a certain item.")
    assert (counts["mode"], counts["requests"], counts["with_image"]) == ("fusion", 6, 2)
    assert {request.max_new_tokens for call in backend.calls for request in call} == {7}


def test_an_item_with_only_one_of_both_is_asked_about_once(tmp_path: Path) -> None:
    titles = {"a": "Titlea", "b": "", "c": "", "d": ""}
    write_shop(tmp_path, titles, ["abcd"], no_image="acd", texts={"c": "A description"})
    backend = Recording(say)
    summaries, counts, _ = run(tmp_path, backend, config())
    assert summaries == {"a": "read a", "b": "seen b", "c": "read )", "d": ""}
    assert sorted(kind(request) for call in backend.calls for request in call) == ["picture", "words", "words"]
    assert any("Title: (no title)\nDescription: A description\n" in prompt for prompt in backend.prompts)
    assert (counts["nothing_to_describe"], counts["without_summary"]) == (1, 1)


def test_a_part_that_the_model_declines_or_leaves_empty_needs_no_joining(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, ["abcd"])
    answers = {("picture", "a"): "I cannot see the picture.", ("words", "b"): " ", ("both", "d"): ""}
    silent = {("words", "c"): "", ("picture", "c"): ""}

    def rule(request: Request) -> str:
        item = re.findall("[abcd]", request.images[0].digest if request.images else request.prompt.splitlines()[0])[-1]
        return (answers | silent).get((kind(request), item), say(request))

    backend = Recording(rule)
    summaries, counts, _ = run(tmp_path, backend, config())
    assert summaries == {"a": "read a", "b": "seen b", "c": "", "d": "read d seen d"}
    assert sum(kind(request) == "both" for call in backend.calls for request in call) == 1
    assert (counts["refused"], counts["empty_answers"]) == (1, 4)


class Broken(Recording):
    """Fails on the pictures of some items."""

    def __init__(self, items: str) -> None:
        super().__init__(say)
        self.items = items

    def _answer(self, request: Request) -> Answer:  # type: ignore[override]
        if request.images and request.images[0].digest[-1] in self.items:
            return Failure(request.key, "no luck")
        return super()._answer(request)


def test_a_failed_part_is_named_and_asked_again_and_nothing_else_is(tmp_path: Path) -> None:
    write_shop(tmp_path, TITLES, ["abcd"])
    backend = Broken("b")
    with pytest.raises(StageError, match=r"1 of 11 requests failed \(b: no luck\)"):
        run(tmp_path, backend, config())
    again = Recording(say)
    summaries, counts, _ = run(tmp_path, again, config())
    assert [kind(request) for call in again.calls for request in call] == ["picture", "both"]
    assert set(summaries.values()) == {f"read {item} seen {item} joined" for item in "abcd"}
    assert (counts["failed"], counts["computed"], counts["cached"]) == (0, 2, 10)


@pytest.mark.parametrize(("policy", "left"), [("title", "abcd"), ("skip", "acd")])
def test_the_policy_decides_what_becomes_of_an_item_that_failed(tmp_path: Path, policy: str, left: str) -> None:
    write_shop(tmp_path, TITLES, ["abcd"])
    summaries, counts, _ = run(tmp_path, Broken("b"), config(policy))
    assert "".join(summaries) == left
    assert summaries.get("b", "") == ""
    assert counts["failed"] == 1
    assert json.loads((tmp_path / "out" / "failures.json").read_text()) == [{"id": "b", "reason": "no luck"}]


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=6), st.data())
def test_items_together_are_described_as_each_alone(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[tuple[bool, bool, bool]], data: st.DataObject
) -> None:
    items = [chr(ord("a") + place) for place in range(len(kinds))]
    titles = {item: "Title" * title for item, (title, _, _) in zip(items, kinds, strict=True)}
    texts = {item: "Text" * text for item, (_, text, _) in zip(items, kinds, strict=True)}
    blind = "".join(item for item, (_, _, image) in zip(items, kinds, strict=True) if not image)
    silent = data.draw(st.sampled_from(["words", "picture", "both", "none"]))

    def rule(request: Request) -> str:
        return "" if kind(request) == silent else f"{kind(request)} {request.prompt.splitlines()[-1][:30]}"

    folder = tmp_path_factory.mktemp("fusion")
    write_shop(folder, titles, [items], no_image=blind, texts=texts)
    backend = Recording(rule)
    together, counts, _ = run(folder, backend, config())
    alone = {}
    for item in items:
        write_shop(folder / item, {item: titles[item]}, [[item]], no_image=blind, texts=texts)
        alone |= run(folder / item, Recording(rule), config())[0]
    assert together == alone
    most = sum((title or text) + image + ((title or text) and image) for title, text, image in kinds)
    assert counts["requests"] <= most
    assert counts["distinct_requests"] == len({request.key for call in backend.calls for request in call})
