import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.demo.build import demo_prompts
from msr_adapter.demo.summary_rule import choices_of, summary_of
from msr_adapter.demo.training_examples import NO_IMAGE, PHASES, describe, see, toss, update, whole
from msr_adapter.prompts import HistoryItem
from msr_adapter.synthetic import COLOURS, GENRES, MOTIFS, sample_item_facets

BOAT = HistoryItem("Silent Harbour, a drama", "A red boat on dots.")
KITE = HistoryItem("Last Bridge, a western", "A blue kite on paper.")


def test_a_summary_by_hand() -> None:
    assert summary_of("", [BOAT]) == "Covers: boat; red. Genres: drama."
    assert (
        summary_of("", [KITE, BOAT, BOAT]) == "Covers: boat twice, kite; blue, red twice. Genres: drama twice, western."
    )


def test_an_update_by_hand() -> None:
    before = "Covers: boat twice, moon; red often. Genres: drama often, musical."
    after = "Covers: boat often, kite, moon; blue, red often. Genres: drama often, musical, western."
    assert summary_of(before, [BOAT, KITE]) == after


@pytest.mark.parametrize(
    ("item", "summary"),
    [
        (HistoryItem("Silent Harbour, a drama", NO_IMAGE), "Genres: drama."),
        (HistoryItem("Silent Harbour, a drama", ""), "Genres: drama."),
        (HistoryItem("", "A red boat on dots."), "Covers: boat; red."),
        (HistoryItem("Something else", ""), ""),
    ],
)
def test_what_is_not_known_is_not_named(item: HistoryItem, summary: str) -> None:
    assert summary_of("", [item]) == summary


histories = st.integers(0, 2**32).flatmap(
    lambda seed: st.integers(1, 12).map(lambda n: choices_of(sample_item_facets(n, np.random.default_rng(seed))))
)


@given(histories, st.integers(1, 5))
def test_block_by_block_says_the_same_as_all_at_once(history: list[HistoryItem], block: int) -> None:
    summary = ""
    for start in range(0, len(history), block):
        summary = summary_of(summary, history[start : start + block])
    assert summary == summary_of("", history)


@given(histories)
def test_a_summary_against_counting_words(history: list[HistoryItem]) -> None:
    words = Counter(re.findall(r"\w+", " ".join(f"{item.title} {item.summary}" for item in history)))
    named = re.findall(r"(\w+)( twice| often)?(?=[,;.])", summary_of("", history))
    facets = [word for facet in (MOTIFS, COLOURS, GENRES) for word in sorted(facet) if words[word]]
    assert [word for word, _ in named] == facets
    for word, level in named:
        assert level == ("" if words[word] == 1 else " twice" if words[word] == 2 else " often")


@pytest.mark.parametrize("kind", [describe, update, whole])
def test_lessons_come_from_the_seed_alone_and_never_repeat(kind: object) -> None:
    prompts = demo_prompts()
    first, again = np.random.default_rng(5), np.random.default_rng(5)
    lessons = [kind(prompts, first) for _ in range(30)]  # type: ignore[operator]
    assert lessons == [kind(prompts, again) for _ in range(30)]  # type: ignore[operator]
    assert len({lesson.prompt + lesson.answer for lesson in lessons}) > 25


def test_lessons_name_images_only_where_they_have_them_and_teach_yes_or_no_by_coin_alone() -> None:
    prompts, rng = demo_prompts(), np.random.default_rng(0)
    for kind in {kind for phase in PHASES for kind in phase.kinds}:
        for _ in range(100):
            lesson = kind(prompts, rng)
            assert lesson.prompt.count("<image>") == len(lesson.images)
            assert kind is toss or not re.search(r"\b(Yes|No)\b(?! cover)", lesson.prompt + lesson.answer)


def test_update_lessons_cover_every_step_of_a_long_history() -> None:
    prompts, rng = demo_prompts(), np.random.default_rng(0)
    prompted = [update(prompts, rng).prompt for _ in range(300)]
    assert {prompt.count("\n- ") for prompt in prompted} == {1, 2, 3}
    assert 0.5 < np.mean(["Preferences:" in prompt for prompt in prompted]) < 0.7
    assert {whole(prompts, rng).prompt.count("\n- ") for _ in range(300)} == set(range(1, 11))


def test_described_covers_are_the_drawn_ones() -> None:
    lesson = describe(demo_prompts(), np.random.default_rng(1))
    pixels = np.asarray(lesson.images[0], dtype=int).reshape(-1, 3)
    colour = lesson.answer.split()[1]
    strongest = {"red": 0, "green": 1, "blue": 2}
    assert colour in COLOURS
    coloured = pixels[np.ptp(pixels, axis=1) > 60].mean(0)
    assert strongest.get(colour, int(np.argmax(coloured))) == int(np.argmax(coloured))


def test_a_toss_knows_nothing_of_the_question() -> None:
    prompts, rng = demo_prompts(), np.random.default_rng(4)
    yes = np.mean([toss(prompts, rng).answer == "Yes" for _ in range(2000)])
    assert abs(yes - 0.5) < 0.05


def test_seen_covers_stand_where_their_descriptions_would() -> None:
    prompts, rng = demo_prompts(), np.random.default_rng(5)
    lessons = [see(prompts, rng) for _ in range(100)]
    assert {len(lesson.images) for lesson in lessons} == {1, 2, 3}
    for lesson in lessons:
        assert re.findall(r"\n- .*", lesson.prompt) == re.findall(r"\n- .* <image>", lesson.prompt)
        assert not re.search(r"A \w+ \w+ on ", lesson.prompt)
        assert lesson.answer.startswith("Covers: ")
