"""What models say around a summary: labels, pleasantries, the question once more, refusals, half a last sentence."""

import re
from typing import NamedTuple

_LABEL = re.compile(r"(?:assistant|answer|summary|updated summary|description|output)\s*:\s*", re.I)
_PLEASANTRY = re.compile(
    r"(?:(?:sure|certainly|of course|absolutely)\s*[,!.:]\s*)?"
    r"(?:here(?:'s| is| are)|below is|this is) (?:an? |the |your )?[^:.!?]{0,80}?"
    r"(?:summary|description|preferences?|profile)[^:.!?]{0,60}:\s*",
    re.I,
)
_REFUSAL = re.compile(
    r"(?:i(?:'m| am) (?:very |really )?sorry\b|sorry, (?:but )?i\b|i apologi[sz]e\b|as an ai\b|"
    r"i(?:'m| am) (?:unable|not able)\b|"
    r"i (?:cannot|can't|can not) (?:help|assist|provide|describe|see|view|summari[sz]e)\b)",
    re.I,
)
_LEAST_ECHO = 24
"""Characters of the prompt's last line that an answer must repeat to count as an echo."""
_SENTENCE_END = re.compile(
    r"(?:[.!?…]+|[।؟۔])[\"'”’)\]»]*(?=\s|$)"
    r"|[。！？｡]+[」』”’）]*"
)
_NO_END = re.compile(
    r"(?:^|[\s(])(?:[A-Z]|\d{1,2}|[A-Za-z](?:\.[A-Za-z])+|mr|mrs|ms|dr|st|vs|etc|no|vol|ca|bzw|ggf|nr|inkl)$", re.I
)
"""What a full stop follows without ending a sentence: initials, the numbers of a list, abbreviations."""
_LEAST_KEPT = 0.25
"""Share of a cut answer that its whole sentences must hold, or the cut answer is worth more than they are."""
_HALF_A_CHARACTER = "\ufffd"
_QUOTES = {'"': '"', "“": "”", "'": "'", "`": "`"}


class Cleaned(NamedTuple):
    """A summary without what surrounded it, and what that was."""

    text: str
    echoed: bool
    """The answer began with the question; that part is gone."""
    wrapped: bool
    """A label, a pleasantry or quotes are gone."""
    refused: bool
    """The model declined; the text is empty."""
    trimmed: bool = False
    """What the budget left of the last sentence is gone."""


def clean(text: str, prompt: str, *, cut: bool = False) -> Cleaned:
    """Return the summary in a model's answer (one line) to ``prompt``. O(length); idempotent on clean text.

    An answer that was ``cut`` at its budget ends with its last whole sentence, if there is one that is worth it, and
    never inside a character.
    """
    rest, echoed = _without_echo(text.strip(), prompt)
    bare = _unwrapped(rest)
    if _REFUSAL.match(bare):
        return Cleaned("", echoed, bare != rest, True)
    if not cut:
        return Cleaned(bare, echoed, bare != rest, False)
    whole = bare.rstrip(_HALF_A_CHARACTER + " ")  # what a tokenizer writes for bytes that are no character yet
    kept = whole_sentences(whole)
    return Cleaned(kept, echoed, bare != rest, False, kept != whole)


def whole_sentences(text: str) -> str:
    """Return ``text`` up to the end of its last whole sentence; all of it where that would leave next to nothing."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if not _NO_END.search(text[: match.start()])]
    return text[: ends[-1]] if ends and ends[-1] >= _LEAST_KEPT * len(text) else text


def _without_echo(text: str, prompt: str) -> tuple[str, bool]:
    """Cut the question off, if the answer begins with all of the prompt or with its last line."""
    for question in (" ".join(prompt.split()), " ".join(prompt.strip().rpartition("\n")[2].split())):
        if len(question) >= _LEAST_ECHO and text.startswith(question):
            return text[len(question) :].strip(), True
    return text, False


def _unwrapped(text: str) -> str:
    """Return ``text`` without pleasantries, labels, quotes and bold marks around it."""
    before = None  # again until nothing changes: what is inside quotes may have a label of its own
    while text != before:
        before = text
        for pattern in (_PLEASANTRY, _LABEL):
            text = text[match.end() :] if (match := pattern.match(text)) else text
        text = text.strip()
        if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
            text = text[1:-1].strip()
        if text.startswith("**") and text.endswith("**") and text.count("**") == 2:
            text = text[2:-2].strip()
    return text
