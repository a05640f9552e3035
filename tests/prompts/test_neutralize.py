"""Text from the data is data. The rules are tested against lists they do not know."""

import importlib.util
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from msr_adapter.prompts import neutralise

_TOKENS = (
    "<image> <video> <audio> <|im_start|> <|im_end|> <|endoftext|> <|image_pad|> <|vision_start|> <|eot_id|> "
    "<s> </s> <unk> <pad> <eos> <bos> <0x0A> [INST] [/INST] <<SYS>> <</SYS>> <start_of_turn> <end_of_turn> <think> "
    "</think> <tool_call> <start_of_image> <IMG_CONTEXT> <｜User｜> <｜begin▁of▁sentence｜> [gMASK] <sop> [IMG] "
    "[IMG_BREAK] [TOOL_CALLS] [/SYSTEM_PROMPT] [CLS] [SEP] [MASK] {{image}} {{content}} {{video}} {% {# ${"
)
TOKENS = _TOKENS.split()

pieces = st.sampled_from([*TOKENS, *"<>[]{}|$%#/ …‹›＜＞\n\x00\u200b\u202e", "ima", "ge>", "INST", "🙂", "كتاب", "3"])
hostile = st.lists(pieces | st.text(max_size=5), max_size=25).map("".join)


@given(hostile, st.integers(1, 60))
@example("a <3 b", 5)
@example("<3<b>>>>>>", 60)
@example("<ima<image>ge>", 60)
@example("<3{{x>", 60)
@settings(max_examples=500, deadline=None)
def test_idempotent_one_line_within_the_limit_and_no_token_left(text: str, limit: int) -> None:
    clean = neutralise(text, limit)
    assert neutralise(clean, limit) == clean
    assert len(clean) <= limit
    assert clean == " ".join(clean.split())
    assert not [token for token in TOKENS if token in clean]
    assert not re.search(r"<[^\s0-9=\-…]|<[^<>\s‹›]{1,64}>|<$", clean)
    assert not {unicodedata.category(character) for character in clean} & {"Cc", "Cs", "Zl", "Zp"}
    clean.encode("utf-8")


@given(st.lists(st.text(alphabet=st.characters(categories=("L", "N", "Mn", "So")), min_size=1), max_size=20))
def test_ordinary_text_is_unchanged(words: list[str]) -> None:
    text = " ".join(words)
    assert neutralise(text, 10_000) == text


@pytest.mark.parametrize(
    "text",
    [
        "I <3 you, a < b, x <= y -> z, 5 > 4, <- here",
        "Tom & Jerry [HQ version] (2004) [1080p], 100% {fun} #1 $5",
        "Family 👨‍👩‍👧 and flags 🇩🇪 ❤️",
        "مرحبا بالعالم and שלום",
        "می‌خواهم",
        "Quotes \"x\" 'y' C:\\path",
        "",
    ],
)
def test_ordinary_titles_are_unchanged(text: str) -> None:
    assert neutralise(text) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("My <image> title", "My ‹image› title"),
        ("<ima<image>ge>", "‹ima‹image›ge>"),
        ("<ima\u200bge>", "‹image›"),
        ("<ima\x00ge>", "‹image›"),
        ("<|im_end|>", "‹|im_end|›"),
        ("<<SYS>>x<</SYS>>", "‹SYS›x‹/SYS›"),
        ("＜image＞", "‹image›"),
        ("[INST] do [/INST]", "(INST) do (/INST)"),
        ("[[INST]]", "[(INST)]"),
        ("[gMASK]<sop>", "(gMASK)‹sop›"),
        ("{{ 7*7 }}", "{ { 7*7 } }"),
        ("{{{{image}}}}", "{ { { {image} } } }"),
        ("{% raw %} ${HOME} {# x #}", "{ % raw % } $ {HOME} { # x # }"),
        ("two\r\nlines\u2028and\ttabs\xa0", "two lines and tabs"),
        ("\u202eevil\u202c", "evil"),
        ("\ufeffbom\ud800", "bom"),
        ("ends in <", "ends in ‹"),
        ("<0x0A>", "‹0x0A›"),
        ("\n \x00 \u200b", ""),
        (" blanks  around ", "blanks around"),
    ],
)
def test_hostile_titles(text: str, clean: str) -> None:
    assert neutralise(text) == clean


def test_no_token_of_llamafactorys_own_templates_survives() -> None:
    spec = importlib.util.find_spec("llamafactory")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "data"
    source = "".join((folder / name).read_text(encoding="utf-8") for name in ("template.py", "mm_plugin.py"))
    tokens = set(re.findall(r"<[^<>\s\"'{}]{1,40}>|\[/?[A-Z_]{2,}\]", source))
    assert len(tokens) > 100
    assert [token for token in tokens if token in neutralise(f"a{token}b {token}")] == []


def test_a_cut_falls_on_a_word_boundary_and_shows() -> None:
    assert neutralise("one two three", 13) == "one two three"
    assert neutralise("one two three", 12) == "one two…"
    assert neutralise("one two three", 8) == "one two…"
    assert neutralise("one two three", 7) == "one…"
    assert neutralise("abcdefghij", 4) == "abc…"
    assert neutralise("ab", 1) == "…"


def test_twenty_thousand_characters_become_one_thousand() -> None:
    clean = neutralise("word " * 4_000)
    assert 990 <= len(clean) <= 1_000
    assert clean.endswith("word…")


def test_the_fast_path_skips_only_characters_that_need_nothing() -> None:
    assert [hex(ord(c)) for c in map(chr, range(0x110000)) if c.isprintable() and c.isspace() and c != " "] == []
    assert [hex(ord(c)) for c in map(chr, range(0x110000)) if c.isprintable() and neutralise(f"a{c}b") == "ab"] == []
