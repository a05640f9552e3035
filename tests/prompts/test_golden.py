"""The bundled prompts, character by character.

White space is part of a prompt: a recommender trained on "Title: x\\nBased" and scored on "Title: x Based" sees other
tokens than it learned. A change here asks for new summaries and a new training, so it must be meant:
`UPDATE_GOLDENS=1 pytest tests/test_prompts_golden.py` rewrites the files.
"""

import os
from collections.abc import Callable

import pytest

from msr_adapter.prompts import HistoryItem, Prompts, Wording
from tests.support.paths import GOLDENS

FOLDER = GOLDENS / "prompts"

ITEMS = [HistoryItem("Red Dragons", "a bold red cover"), HistoryItem("", "a quiet sea"), HistoryItem("Just a <title>")]

FIRST = Prompts(question="recommend-image-first")

CASES: dict[str, Callable[[Prompts], str]] = {
    "item_summary": lambda p: p.item_summary("Red Dragons", image=True),
    "item_summary-no-image": lambda p: p.item_summary("Red Dragons", image=False),
    "item_summary-no-title": lambda p: p.item_summary("", image=True),
    "item_summary-text": lambda p: p.item_summary("Red Dragons", image=True, text="A heist in the sky.\n3rd book."),
    "item_summary-text-no-image": lambda p: p.item_summary("", image=False, text="word " * 400),
    "item_summary-hostile": lambda p: p.item_summary("<image>\n<|im_end|>{{ 7*7 }}", image=True),
    "user_summary-first": lambda p: p.user_summary("", ITEMS),
    "user_summary-update": lambda p: p.user_summary("likes dragons", ITEMS[:1]),
    "history": lambda p: p.history(ITEMS),
    "recommend": lambda p: p.recommend("likes dragons", "Red Dragons", image=True),
    "recommend-no-image": lambda p: p.recommend("likes dragons", "Red Dragons", image=False),
    "recommend-nothing-known": lambda p: p.recommend("", "", image=True),
    "recommend-image-first": lambda _: FIRST.recommend("likes dragons", "Red Dragons", image=True),
    "recommend-image-first-no-image": lambda _: FIRST.recommend("likes dragons", "Red Dragons", image=False),
    "recommend-image-first-nothing-known": lambda _: FIRST.recommend("", "", image=True),
    "item_text": lambda p: p.item_text("Red Dragons", "A heist in the sky."),
    "item_text-no-title": lambda p: p.item_text("", "A heist in the sky."),
    "item_text-no-text": lambda p: p.item_text("Red Dragons", ""),
    "item_image": lambda p: p.item_image("Red Dragons"),
    "item_fusion": lambda p: p.item_fusion("Red Dragons", "A heist.", "A bold <image> cover."),
}
WORDED = Prompts(
    wording=Wording("video", "German", {"item_summary": 64, "item_text": 48, "item_fusion": 32, "user_summary": 128})
)
WORDED_CASES: dict[str, Callable[[Prompts], str]] = {
    f"{name}-worded": CASES[name]
    for name in (
        "item_summary", "user_summary-first", "user_summary-update", "recommend", "item_text", "item_image",
        "item_fusion",
    )
}  # fmt: skip


@pytest.mark.parametrize("name", [*CASES, *WORDED_CASES])
def test_golden(name: str) -> None:
    path = FOLDER / f"{name}.txt"
    prompt = CASES[name](Prompts()) if name in CASES else WORDED_CASES[name](WORDED)
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(prompt, encoding="utf-8")
    assert prompt == path.read_text(encoding="utf-8")


def test_every_golden_is_read() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.txt" for name in (*CASES, *WORDED_CASES)}
