import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.summarize.cleaning import Cleaned, clean, whole_sentences

PROMPT = "A user chose, in this order:\n1. A red car\nSummarise the user's preferences: topics, style and mood."


@pytest.mark.parametrize("text", [
    "Likes red cars and quiet landscapes.",
    "Here be dragons: the user likes fantasy.",
    "Sorry-looking dogs, sad films.",
    "Summaries of news and sport.",
    "The user is sorry for nothing: bold action.",
    "I, Robot and other science fiction",
    'Books such as "Dune" and "Emma"',
    "",
])  # fmt: skip
def test_a_plain_summary_stays_as_it_is(text: str) -> None:
    assert clean(text, PROMPT) == Cleaned(text, False, False, False)


@pytest.mark.parametrize("text", [
    "Answer: Likes red cars.",
    "ASSISTANT: Summary: Likes red cars.",
    "Here is the updated summary of the user's preferences: Likes red cars.",
    "Sure! Here's a brief summary: Likes red cars.",
    "Certainly, here is your description of the cover: Likes red cars.",
    '"Likes red cars."',
    "“Likes red cars.”",
    "**Likes red cars.**",
    'Summary: "Likes red cars."',
])  # fmt: skip
def test_what_surrounds_a_summary_goes(text: str) -> None:
    assert clean(text, PROMPT) == Cleaned("Likes red cars.", False, True, False)


def test_a_repeated_question_goes() -> None:
    line = "Summarise the user's preferences: topics, style and mood."
    assert clean(f"{line} Likes red cars.", PROMPT) == Cleaned("Likes red cars.", True, False, False)
    whole = " ".join(PROMPT.split())
    assert clean(f"{whole} Answer: Likes red cars.", PROMPT) == Cleaned("Likes red cars.", True, True, False)
    assert clean(line, PROMPT) == Cleaned("", True, False, False)


@pytest.mark.parametrize("text", [
    "I'm sorry, but I can't describe this image.",
    "I am very sorry, I do not know.",
    "Sorry, I cannot help with that.",
    "As an AI language model I have no access to images.",
    "I cannot see the picture.",
    "Answer: I apologize, but no.",
    "I'm unable to view images.",
])  # fmt: skip
def test_a_refusal_is_no_summary(text: str) -> None:
    cleaned = clean(text, PROMPT)
    assert cleaned.refused
    assert cleaned.text == ""


@given(st.text(max_size=80), st.text(max_size=120))
def test_cleaning_twice_changes_nothing_and_invents_nothing(text: str, prompt: str) -> None:
    once = clean(text, prompt)
    assert once.text in text
    assert clean(once.text, "").text == once.text


@pytest.mark.parametrize(("text", "kept"), [
    ("Likes dragons. Also the sea and", "Likes dragons."),
    ("Likes dragons! Or not? Perhaps the", "Likes dragons! Or not?"),
    ('She said "yes." Then the', 'She said "yes."'),
    ("Likes dragons.", "Likes dragons."),
    ("Likes dragons and the sea", "Likes dragons and the sea"),
    ("Likes Mr. Bean and films of the", "Likes Mr. Bean and films of the"),
    ("Likes games, e.g. chess, and vol. 2 of", "Likes games, e.g. chess, and vol. 2 of"),
    ("Reads J. R. R. Tolkien and", "Reads J. R. R. Tolkien and"),
    ("1. Dragons 2. Seas 3. The", "1. Dragons 2. Seas 3. The"),
    ("Films made in 1999. And the", "Films made in 1999."),
    ("Version 2.5 of the game and", "Version 2.5 of the game and"),
    ("喜欢龙。也喜欢大", "喜欢龙。"),
    ("ड्रैगन पसंद हैं। और समु", "ड्रैगन पसंद हैं।"),
    ("Yes! The user likes dragons and the sea", "Yes! The user likes dragons and the sea"),
])  # fmt: skip
def test_whole_sentences(text: str, kept: str) -> None:
    assert whole_sentences(text) == kept
    assert whole_sentences(kept) == kept


def test_only_a_cut_answer_is_trimmed_and_never_inside_a_character() -> None:
    text = "Likes dragons. Also the 🐉"
    assert clean(text, PROMPT) == Cleaned(text, False, False, False)
    assert clean(text, PROMPT, cut=True) == Cleaned("Likes dragons.", False, False, False, trimmed=True)
    half = "Likes dragons, seas and 🐉".encode()[:-2].decode(errors="replace")
    assert half.endswith("\ufffd")
    assert clean(half, PROMPT, cut=True) == Cleaned("Likes dragons, seas and", False, False, False)


@given(st.text("aB. !?。…\"'1\ufffd", max_size=40))
def test_a_trimmed_answer_is_a_beginning_of_it(text: str) -> None:
    whole = clean(text, PROMPT).text
    kept = clean(text, PROMPT, cut=True).text
    assert whole.startswith(kept)
    assert not kept.endswith("\ufffd")
