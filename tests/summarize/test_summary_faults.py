"""What small models do in place of summarising is counted: each fault by an answer that has it and one that has not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.summarize.summary_faults import LastAnswer, fault_shares, sampled

SHOWN = "A user chose, in this order: 1. A day in the harbour of Hamburg 2. How to bake bread at home. Summarise."
KNOWN = "Likes tractors, ploughs and harvests."
GOOD = LastAnswer("Tractors and harvests, now baking and ships too.", SHOWN, KNOWN, cut=False)


def test_a_good_summary_has_no_fault() -> None:
    assert fault_shares([GOOD]) == {"repeats": 0.0, "cut": 0.0, "forgets": 0.0}
    assert fault_shares([]) == {}


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("A user chose, in this order: 1. A day in the harbour of Hamburg", True),
        ("a day in the HARBOUR of Hamburg, how to bake bread at home", True),  # case and punctuation are no difference
        ("Ships, and how to bake bread at home for people who have never done anything of the kind", False),
        ("bread at home", False),  # too short to be anything but a topic
        ("", False),
    ],
)
def test_an_answer_that_is_mostly_its_prompt_repeats_it(text: str, repeats: bool) -> None:
    assert fault_shares([replace(GOOD, text=text)])["repeats"] == repeats


def test_the_summary_so_far_may_be_repeated() -> None:
    assert fault_shares([replace(GOOD, text=KNOWN)])["repeats"] == 0


def test_scripts_without_blanks_are_read_by_characters() -> None:
    shown = "用户选择了：汉堡港的一天"
    assert fault_shares([LastAnswer("汉堡港的一天", shown, "", cut=False)])["repeats"] == 1
    assert fault_shares([LastAnswer("喜欢船和港口", shown, "", cut=False)])["repeats"] == 0
    assert fault_shares([LastAnswer("喜欢船", shown, "拖拉机", cut=False)])["forgets"] == 1


def test_an_answer_without_a_word_of_what_was_known_forgets_it() -> None:
    forgetful = replace(GOOD, text="Ships and baking at home in the evening.")
    first = replace(GOOD, known="")
    assert fault_shares([forgetful])["forgets"] == 1
    assert fault_shares([GOOD, forgetful, first])["forgets"] == 0.5
    assert fault_shares([first])["forgets"] is None
    # What the prompt says again is no memory.
    assert fault_shares([LastAnswer("Hamburg.", SHOWN, "Likes Hamburg and tractors.", cut=False)])["forgets"] == 1


def test_words_of_all_summaries_are_nobodys_own() -> None:
    topics = [f"topic{number}" for number in range(40)]
    ends = [
        LastAnswer(f"This person enjoys {topic}.", SHOWN, f"This person enjoys other{topic}.", cut=number < 10)
        for number, topic in enumerate(topics)
    ]
    assert fault_shares(ends) == {"repeats": 0.0, "cut": 0.25, "forgets": 1.0}


@given(st.lists(st.builds(LastAnswer, st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.booleans())))
def test_shares_are_shares_and_equal_answers_count_once(ends: list[LastAnswer]) -> None:
    shares = fault_shares(ends)
    assert all(share is None or 0 <= share <= 1 for share in shares.values())
    assert fault_shares(ends * 2) == shares


@given(st.integers(0, 5_000))
def test_at_most_a_thousand_are_looked_at(number: int) -> None:
    places = sampled(number)
    assert len(places) == min(number, 1_000)
    assert all(0 <= place < number for place in places)
