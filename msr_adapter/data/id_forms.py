"""Ids that people would take for one another: written as number and as text, with other accents, case or zeros.

Nothing here merges ids. They are compared so that a reader can be told of them; which of two is meant, the user knows.
"""

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

Difference = Literal["number", "accents", "unseen", "zeros", "case"]

NULL_WORDS = (
    "nan", "-nan", "null", "none", "na", "n/a", "#n/a", "#na", "<na>", "nat", "nil", "\\n", "undefined", "(null)",
    "<null>", "[null]", "<none>", "#null!", "#value!", "#ref!", "#name?", "1.#qnan", "1.#ind", "-1.#ind",
)  # fmt: skip
"""What programs write where a value is missing, in lower case."""

SAID: dict[Difference, str] = {
    "number": "one is written as a fraction or a power of ten",
    "accents": "they have other code points for the same letters",
    "unseen": "one has blanks, quotation marks or characters that cannot be seen",
    "zeros": "one lacks its leading zeros",
    "case": "they differ in case",
}
"""How two ids differ, as it is told."""

MEND: dict[Difference, str] = {
    "number": "write whole numbers or text (in pandas, dtype str or Int64: a column with gaps becomes fractions)",
    "accents": "write all files in one normal form (unicodedata.normalize('NFC', id))",
    "unseen": "strip the ids where they are made",
    "zeros": "keep the column as text (in pandas, dtype=str)",
    "case": "write the ids alike, if they are one",
}
"""What to do about it."""

# One look tells nearly all ids of nearly all logs apart from those that could be written otherwise.
_ODD = r"""[^\x21-\x7e]|^[+-]?0[0-9]|^[+'"=]|['"]$|^[0-9]+\.0*$|^[+-]?[0-9.]+[eE][+-]?[0-9]+$"""
_UNSEEN = r"[\p{Cf}\x{FE00}-\x{FE0F}]"
_EXPONENT = r"^(?:[0-9]\.[0-9]+[eE][+-]?|[0-9]+(?:\.[0-9]*)?[eE]\+)[0-9]+$"
"""A power of ten as programs write it; `12e4` may as well be a digest."""
_DOUBLES = 2**53
"""From here on, not every whole number is a 64-bit float."""
_DIGITS = 15
"""That spreadsheets keep of a number; the others become zeros."""
_ZEROS_BY_CHANCE = 6
"""Zeros that no ids have at their ends by chance, all together."""


@dataclass(frozen=True)
class NearIds:
    """Pairs of ids that differ in their form alone."""

    pairs: pl.DataFrame
    """id, near: the first of each that is like it; in the order of the ids."""

    def __len__(self) -> int:
        return self.pairs.height

    def of(self, *kinds: Difference) -> "NearIds":
        """Return the pairs that differ in one of these ways."""
        wanted = [difference(one, other) in kinds for one, other in self.pairs.iter_rows()]
        return NearIds(self.pairs.filter(pl.Series(wanted, dtype=pl.Boolean)))

    def examples(self, number: int = 3) -> str:
        """Return the first pairs as text."""
        return ", ".join(f"{shown(one)} and {shown(other)}" for one, other in self.pairs.head(number).iter_rows())

    def advice(self, number: int = 3) -> str:
        """Return how the first pairs differ and what to do about it."""
        kinds = dict.fromkeys(difference(one, other) for one, other in self.pairs.head(number).iter_rows())
        return "; ".join(f"{SAID[kind]}, so {MEND[kind]}" for kind in kinds)


def near_duplicates(ids: pl.Series) -> NearIds:
    """Return those of distinct ``ids`` that are like one before them, each with that one. O(ids)."""
    # Seldom more than a look or two: of ids in one case and without an odd one, no two can be alike.
    if not all(ids.str.contains(f"{letters}|{_ODD}").any() for letters in ("[a-z]", "[A-Z]")):
        return _NONE
    frame = _keyed(ids)
    if frame["key"].hash().n_unique() == frame.height:  # as many hashes as keys: each key is there once
        return _NONE
    several = frame.filter(frame["key"].is_duplicated())
    pairs = several.with_columns(near=pl.col("id").first().over("key")).filter(pl.col("id") != pl.col("near"))
    return NearIds(pairs.select("id", "near"))


def near_matches(lacking: pl.Series, known: pl.Series) -> NearIds:
    """Return those of ``lacking``, none of them known, that are like a known id, each with the first such. O(ids)."""
    if lacking.is_empty() or known.is_empty():
        return _NONE
    wanted, there = _keyed(lacking), _keyed(known)
    there = there.filter(pl.col("key").is_in(wanted["key"].implode())).unique("key", keep="first", maintain_order=True)
    pairs = wanted.join(there.rename({"id": "near"}), on="key", how="inner", maintain_order="left")
    return NearIds(pairs.select("id", "near"))


_NONE = NearIds(pl.DataFrame(schema={"id": pl.String, "near": pl.String}))


def is_null_word(text: pl.Expr) -> pl.Expr:
    """Return whether an id is what programs write for nothing; false for null."""
    return text.str.to_lowercase().is_in(list(NULL_WORDS)).fill_null(False)


def lossy(ids: pl.Series) -> pl.Series:
    """Return those that some program has rounded: powers of ten, fractions above 2**53, a spreadsheet's last zeros."""
    numeric = ids.filter(ids.str.contains(r"^[+-]?[0-9]"))
    large = numeric.filter(numeric.str.contains(r"^[+-]?[0-9]{16,}"))
    fractions = large.filter(large.str.contains(r"^[+-]?[0-9]+\.0*$"))
    fractions = fractions.filter(fractions.cast(pl.Float64, strict=False).abs() >= _DOUBLES)
    powers = numeric.filter(numeric.str.contains(_EXPONENT))
    whole = large.filter(large.str.contains(r"^[0-9]+$"))
    ends = whole.str.slice(_DIGITS)
    by_spreadsheet = len(whole) > 0 and bool((ends.str.strip_chars("0") == "").all())
    if not by_spreadsheet or int(ends.str.len_chars().sum()) < _ZEROS_BY_CHANCE:
        whole = whole.clear()
    return pl.concat([powers, fractions, whole])


def difference(one: str, other: str) -> Difference:
    """Return in which way two ids that are alike differ; of several, the gravest."""
    steps: tuple[tuple[Difference, Callable[[str], str]], ...] = (
        ("accents", lambda text: unicodedata.normalize("NFC", text)), ("case", str.lower), ("zeros", _without_zeros),
        ("unseen", _seen),
    )  # fmt: skip
    found: Difference = "number"
    for kind, form in steps:
        if form(one) == form(other):
            return kind
    forms = [_without_zeros(_seen(text).lower()) for text in (one, other)]
    return "unseen" if forms[0] == forms[1] else found


def shown(text: str) -> str:
    """Return an id so that two that look alike are told apart: what is not ASCII is written as its code points too."""
    quoted = repr(text)
    return quoted if quoted.isascii() else f"{quoted} ({ascii(text)[1:-1]})"


def key_of(text: str) -> str:
    """Return what the ids that are like this one have in common."""
    return str(pl.select(_key(pl.lit(text))).item())


def _keyed(ids: pl.Series) -> pl.DataFrame:
    """Return ids with their keys."""
    keys = ids.str.to_lowercase()
    odd = ids.str.contains(_ODD).arg_true()
    if len(odd):  # apart from the others, because normal forms and patterns cost microseconds an id
        keys = keys.scatter(odd, pl.select(_key(pl.lit(ids.gather(odd)))).to_series())
    return pl.DataFrame({"id": ids, "key": keys})


def _key(ids: pl.Expr) -> pl.Expr:
    text = ids.str.normalize("NFKC").str.replace_all(_UNSEEN, "").str.replace_all(r"\s+", " ")
    text = text.str.strip_chars(" \"'=").str.to_lowercase()
    text = text.str.replace(r"^\+?([0-9]+)\.0*$", "${1}").str.replace(r"^\+([0-9])", "${1}")
    power = pl.when(text.str.contains(r"^[0-9.]+e[+-]?[0-9]+$")).then(text.cast(pl.Float64, strict=False))
    whole = pl.when((power == power.floor()) & (power < 2.0**63)).then(power).cast(pl.Int64, strict=False)
    text = pl.coalesce(whole.cast(pl.String), text)
    return text.str.replace(r"^0+([0-9]+)$", "${1}")


def _without_zeros(text: str) -> str:
    return text.lstrip("0") or "0" if text.isdecimal() else text


def _seen(text: str) -> str:
    kept = "".join(one for one in unicodedata.normalize("NFKC", text) if unicodedata.category(one) != "Cf")
    return " ".join(kept.strip(" \"'=").split())
