"""Data is data: text from logs and from models is made unable to act as a placeholder or a control token.

LLaMA-Factory counts and replaces `<image>` and `{{image}}` anywhere in a message, and tokenizers read `<|im_end|>` or
`[INST]` as control tokens wherever they stand. The rules look at single openers rather than at a list of tokens: every
model family has its own list, and overlapping constructions (`<ima<image>ge>`) survive a list.
"""

import re

TITLE_LIMIT = 1_000
"""Characters kept of a title."""
DESCRIPTION_LIMIT = 1_000
"""Characters of an item's description that a prompt shows: about 250 tokens, as many as a small image."""
TEXT_LIMIT = 20_000
"""Characters kept of a model's own text; too long a prompt is reported by the stage that encodes it."""
_READ_PER_KEPT = 100
"""Characters that are looked at for each one that may be kept: a field of megabytes costs no more than a page."""
RULES_VERSION = 1
"""Part of every template digest: raise it when the rules below change, so that stages run again."""

# Dropped: controls that are no white space, lone surrogates, soft hyphen, zero-width space and joiner signs, bidi
# embeddings, overrides and isolates, annotation and tag characters. Kept: ZWJ and ZWNJ (emoji, Persian), the plain
# direction marks, variation selectors.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u180e\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)
_SUSPECTS = "<＜﹤[{}$"
_BRACES = re.compile(r"[{](?=[{%#])|[}%#](?=[}])|[$](?=[{])")
_BRACKETED = re.compile(r"\[(/?g?[A-Z][A-Z0-9_]{1,30})\]")
_ANGLED = re.compile(r"[<＜﹤]{1,4}([^\s<＜﹤>＞﹥‹›]{1,64})[>＞﹥]{1,4}")
# What may follow a plain "<" without making it an opener: "a < b", "I <3 you", "<=", "<-", and our own ellipsis.
_OPENER = re.compile(r"[<＜﹤](?![\s0-9=\-…])")


def neutralise(text: str, limit: int = TITLE_LIMIT) -> str:
    """Return ``text`` as one line of at most ``limit`` characters that no template or tokenizer takes for a command.

    Idempotent; ordinary text is unchanged but for its white space; `<image>` becomes `‹image›`. O(limit).
    """
    text = text[: limit * _READ_PER_KEPT]  # before the rules, which would else read a field of megabytes
    # Nothing that is dropped is printable, nor is any white space but the blank. Most text skips this line.
    if not text.isprintable() or "  " in text or text.strip() != text:
        text = " ".join(_INVISIBLE.sub("", text).split())
    if any(suspect in text for suspect in _SUSPECTS):
        text = _BRACES.sub(r"\g<0> ", text)
        text = _BRACKETED.sub(r"(\1)", text)
        text = _ANGLED.sub(r"‹\1›", text)
        text = _OPENER.sub("‹", text)
    return text if len(text) <= limit else _cut(text, limit)


def _cut(text: str, limit: int) -> str:
    """Cut at the last word boundary of the second half, or anywhere in text without blanks, and mark it with `…`."""
    kept = text[: limit - 1]
    if text[limit - 1] != " " and (blank := kept.rfind(" ", limit // 2)) > 0:
        kept = kept[:blank]
    return kept.rstrip() + "…"
