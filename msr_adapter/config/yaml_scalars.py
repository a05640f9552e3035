"""YAML's scalars as values, by YAML 1.2's core schema: nothing that JSON, 64 bits or a file's text cannot hold."""

import math
import re

TAG = "tag:yaml.org,2002:"
"""What the names of YAML's own tags begin with."""
NUMBERS_AND_CONSTANTS = (
    ("bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")),
    ("int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")),
    (
        "float",
        re.compile(r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?$"),
        list("-+.0123456789"),
    ),
    ("null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
)
"""Tag, how its scalars are written, and the characters that they begin with; everything else is text."""
_CONSTANTS = {"true": True, "false": False, "": None, "~": None, "null": None}
_BITS = 63
"""Of a whole number beside its sign."""


class ScalarError(Exception):
    """A scalar that stands for no value: what was found, and what to write instead."""

    def __init__(self, found: str, next_step: str = "Write the plain value") -> None:
        super().__init__(found)
        self.found, self.next_step = found, next_step


def read_scalar(tag: str, text: str) -> str | int | float | bool | None:
    """Return the value of a scalar. Raises `ScalarError` if there is none."""
    if tag == f"{TAG}str":
        return whole_text(text)
    pattern = {TAG + name: pattern for name, pattern, _ in NUMBERS_AND_CONSTANTS}.get(tag)
    if pattern is None:
        raise ScalarError(f"the tag {shown(tag)}")
    if not pattern.match(text):
        raise ScalarError(f"the text {shown(text)!r} under the tag {tag}")
    if tag not in (f"{TAG}int", f"{TAG}float"):
        return _CONSTANTS[text.lower()]
    digits = text.replace("_", "")
    if tag == f"{TAG}int":
        count = len(digits.lstrip("+-"))
        if count > 19 or not -(2**_BITS) <= int(digits) < 2**_BITS:
            raise ScalarError(f"a whole number of {count:,} digits; expected 64 bits at most", "Write a smaller one")
        return int(digits)
    if not math.isfinite(number := float(digits)):
        raise ScalarError(f"the number {shown(text)}; expected one below 1.8e308", "Write a smaller one")
    return number


def whole_text(text: str) -> str:
    """Return ``text``. Raises `ScalarError` for half a surrogate pair, which no file and no model takes."""
    for one in text:
        if "\ud800" <= one <= "\udfff":
            raise ScalarError(f"the lone surrogate U+{ord(one):04X}", "Write the character itself")
    return text


def shown(text: str, limit: int = 60) -> str:
    """Return a text as messages can print it: short, without what is no character."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    return whole if len(whole) <= limit else f"{whole[:limit]}..."
