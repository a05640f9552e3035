"""Ids that people would take for one another are paired, and no others; nothing is changed."""

import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter.data.id_forms import difference, is_null_word, key_of, lossy, near_duplicates, near_matches, shown

E_ACUTE, E_AND_ACCENT = "caf\u00e9", "cafe\u0301"
ALIKE = [
    ("1", "1.0", "number"), ("1", "1.", "number"), ("1000", "1e3", "number"), ("1000", "1E+03", "number"),
    ("1000", "1.0e3", "number"), ("12", "+12", "number"), ("0", "0.00", "number"), ("120", "1.2e2", "number"),
    (E_ACUTE, E_AND_ACCENT, "accents"), ("A\u030angstrom", "\u00c5ngstrom", "accents"),
    ("\u1100\u1161", "\uac00", "accents"),
    ("\u212b", "\u00c5", "accents"),
    ("u 1", "u  1", "unseen"), ("u 1", "u\u00a01", "unseen"), ("u1", "u\u200b1", "unseen"),
    ("u1", "\ufeffu1", "unseen"),
    ("u1", "u1\u00ad", "unseen"), ("007", "'007", "unseen"), ("7", '"7"', "unseen"), ("7", '="7"', "unseen"),
    ("12", "\uff11\uff12", "unseen"), ("fi", "\ufb01", "unseen"), ("u1", "u1\u2060", "unseen"),
    ("u 1", "u\t1", "unseen"),
    ("7", "007", "zeros"), ("0", "00", "zeros"), ("0123456789", "123456789", "zeros"),
    ("Abc", "aBC", "case"), ("B0001", "b0001", "case"), ("\u00c9t\u00e9", "\u00e9t\u00e9", "case"),
]  # fmt: skip
UNLIKE = [
    ("1", "10"), ("1.0", "10"), ("1.5", "15"), ("1.5", "1.50"), ("a1", "a01"), ("12e4", "120001"), ("-1", "1"),
    ("1,0", "1.0"), ("1-2", "12"), ("x", "xx"), ("7a", "07a"), ("e", "\u00e9"), ("1.0.0", "1"), ("1/2", "12"),
    ("abc", "ab c"), ("0x10", "16"), ("u1", "u2"), ("n/a1", "na1"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other", "kind"), ALIKE)
def test_ids_that_are_alike_are_paired_and_the_difference_is_named(one: str, other: str, kind: str) -> None:
    for ids in ([one, other], [other, one]):
        near = near_duplicates(pl.Series([*ids, "another"]))
        assert near.pairs.rows() == [(ids[1], ids[0])]
        assert difference(*ids) == kind
        assert near_matches(pl.Series(["x", ids[0]]), pl.Series(["y", ids[1]])).pairs.rows() == [tuple(ids)]


@pytest.mark.parametrize(("one", "other"), UNLIKE)
def test_ids_that_differ_are_not_paired(one: str, other: str) -> None:
    assert near_duplicates(pl.Series([one, other])).pairs.is_empty()
    assert near_matches(pl.Series([one]), pl.Series([other])).pairs.is_empty()


def test_each_id_is_paired_with_the_first_that_is_like_it() -> None:
    near = near_duplicates(pl.Series(["1", "2", "1.0", "01", "2.0", "3"]))
    assert near.pairs.rows() == [("1.0", "1"), ("01", "1"), ("2.0", "2")]
    assert near.of("zeros").pairs.rows() == [("01", "1")]
    assert near.examples(2) == "'1.0' and '1', '01' and '1'"
    assert near.advice(1) == (
        "one is written as a fraction or a power of ten, so write whole numbers or text (in pandas, dtype str or "
        "Int64: a column with gaps becomes fractions)"
    )


def test_ids_that_look_alike_are_shown_apart() -> None:
    assert shown("u1") == "'u1'"
    assert (shown(E_ACUTE), shown(E_AND_ACCENT)) == ("'caf\u00e9' (caf\\xe9)", "'cafe\u0301' (cafe\\u0301)")


@given(
    st.lists(st.text(alphabet="aA1.0 e+'\u00e9\u0301\u200b\u00a0", min_size=1, max_size=6), unique=True, max_size=12)
)
def test_pairs_are_those_with_one_key(ids: list[str]) -> None:
    near = near_duplicates(pl.Series(ids, dtype=pl.String))
    keys = [key_of(one) for one in ids]
    first = dict(reversed(list(zip(keys, ids, strict=True))))
    assert near.pairs.rows() == [(one, first[key]) for one, key in zip(ids, keys, strict=True) if first[key] != one]


@given(st.text(max_size=8))
def test_an_id_in_another_normal_form_is_near(text: str) -> None:
    for form in ("NFC", "NFD", "NFKC"):
        assert key_of(unicodedata.normalize(form, text)) == key_of(text)


NULLS = ["nan", "NaN", "None", "NULL", "null", "\\N", "NA", "N/A", "#N/A", "<NA>", "NaT", "nil", "undefined", "-nan"]


@pytest.mark.parametrize("word", NULLS)
def test_words_for_nothing(word: str) -> None:
    assert pl.select(is_null_word(pl.lit(word))).item() is True


@pytest.mark.parametrize(
    "word", ["nana", "Nancy", "0", "-1", "none1", "Null Island", "n", "unknown", "naan", "noneother"]
)
def test_words_that_are_ids(word: str) -> None:
    assert pl.select(is_null_word(pl.lit(word))).item() is False


@pytest.mark.parametrize(
    ("ids", "rounded"),
    [
        (["1.23457E+12", "u1"], ["1.23457E+12"]),
        (["1.2345678901234568e+18"], ["1.2345678901234568e+18"]),
        (["1e+20", "7"], ["1e+20"]),
        (["9007199254740993.0"], ["9007199254740993.0"]),
        (["12345678901234567890.0", "5.0"], ["12345678901234567890.0"]),
        (["1234567890123450000", "1234567890123460000"], ["1234567890123450000", "1234567890123460000"]),
        (["1234567890123450000", "1234567890123456789"], []),
        (["9007199254740993", "18446744073709551615"], []),
        (["5.0", "6.0"], []),
        (["12e4", "1e5"], []),
        (["12345e67", "9f3e21aa"], []),
        (["2024010112000000", "2024010112000001"], []),
        (["4006381333931000"], []),
    ],
)
def test_numbers_that_lost_digits(ids: list[str], rounded: list[str]) -> None:
    assert lossy(pl.Series(ids)).to_list() == rounded
