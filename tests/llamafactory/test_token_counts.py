"""Answers are cut after whole words, within a number of tokens, always alike."""

from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import ModelConfig
from msr_adapter.llamafactory.token_counts import AnswerCutter, token_counter

TINY = ModelConfig(path="tiny", template="qwen2_vl")
COUNT = token_counter(TINY)[0]
WORDS = st.sampled_from(("The", "Blue", "Harbour", "🎬🧑‍🚀", "مرحبا", "日本の電車", "é" * 9, "#tag", "a" * 40))


@settings(deadline=None, max_examples=200)
@given(words=st.lists(WORDS, min_size=1, max_size=12), most=st.integers(1, 60))
def test_a_cut_is_the_longest_beginning_that_fits(words: list[str], most: int) -> None:
    text = " ".join(words)
    cut = AnswerCutter(TINY, most)(text)
    assert text.startswith(cut)
    assert cut == AnswerCutter(TINY, most)(text)
    if COUNT(text) <= most:
        assert cut == text
        return
    assert COUNT(cut) <= most or len(cut) == 1
    kept = len(cut.split(" "))
    if COUNT(words[0]) <= most:
        assert cut == " ".join(words[:kept])
        assert COUNT(" ".join(words[: kept + 1])) > most
    else:
        assert kept == 1  # a single word is cut between its letters


def test_a_letter_keeps_its_accent_and_a_family_its_members() -> None:
    accents = "e\u0301" * 20
    for most in range(2, 30):
        assert AnswerCutter(TINY, most)(accents).count("e") == AnswerCutter(TINY, most)(accents).count("\u0301")
    assert not AnswerCutter(TINY, 11)("🧑\u200d🚀🧑\u200d🚀🧑\u200d🚀").endswith("\u200d")


def test_without_a_tokenizer_the_cut_is_an_estimate() -> None:
    absent = ModelConfig(path="nobody/nothing", template="qwen2_vl")
    assert AnswerCutter(absent, 4)("one two three four five") == "one two"
