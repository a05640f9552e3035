"""What small models do in place of summarising: repeat the prompt, run out of tokens, forget what was known.

Shares over the last answer of each chain. A fourth one, how many say the same, is `near_identical`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from msr_adapter.heuristics.near_duplicates import words_of

_RUN = 4
"""Words in a row that count as copied; a shorter answer is none of the prompt's sentences."""
_COPIED = 0.5
"""Share of an answer's runs of words that its prompt has, from which it repeats the prompt."""
_KEPT = 0.1
"""Share of what only the earlier summary said, below which an answer has forgotten it."""
_SHORT = 3
"""Characters of words that say little: articles, pronouns, conjunctions."""
_COMMON, _ENOUGH = 0.2, 20
"""Share of the summaries, of this number and more, that have a word which is no user's own."""
_SAMPLE = 1_000


@dataclass(frozen=True)
class LastAnswer:
    """The answer that a chain ends with, and what it was given."""

    text: str
    """Cleaned."""
    shown: str
    """The prompt, without the summary so far."""
    known: str
    """The summary so far; empty where there was none."""
    cut: bool
    """It ended at its budget."""


def sampled(number: int) -> frozenset[int]:
    """Return the places of at most `_SAMPLE` chains of ``number``, evenly spaced: those that are looked at."""
    least = min(number, _SAMPLE)
    return frozenset(place * number // least for place in range(least))


def fault_shares(answers: Sequence[LastAnswer]) -> dict[str, float | None]:
    """Return the shares {repeats, cut, forgets} of ``answers``, each of which counts once; {} without any.

    `forgets` is of those that had something to forget, None where none had. O(words).
    """
    answers = list(dict.fromkeys(answers))
    if not answers:
        return {}
    texts = [set(words_of(answer.text)) for answer in answers]
    common = _common_words(texts) if len(texts) >= _ENOUGH else set()
    kept = [share for answer in answers if (share := _kept_share(answer, common)) is not None]
    return {
        "repeats": _mean(_copied_share(answer) >= _COPIED for answer in answers),
        "cut": _mean(answer.cut for answer in answers),
        "forgets": _mean(share < _KEPT for share in kept) if kept else None,
    }


def _copied_share(answer: LastAnswer) -> float:
    written = _runs(words_of(answer.text))
    return len(written & _runs(words_of(answer.shown))) / len(written) if written else 0.0


def _kept_share(answer: LastAnswer, common: set[str]) -> float | None:
    """Return how much of what only the summary so far said is in the answer; None where it said nothing of its own."""
    own = {word for word in words_of(answer.known) if len(word) > _SHORT or not word.isascii()}
    own -= common | set(words_of(answer.shown))
    return len(own & set(words_of(answer.text))) / len(own) if own else None


def _common_words(texts: Sequence[set[str]]) -> set[str]:
    number = Counter(word for words in texts for word in words)
    return {word for word, count in number.items() if count > _COMMON * len(texts)}


def _runs(words: Sequence[str]) -> set[tuple[str, ...]]:
    return set(zip(*(islice(words, start, None) for start in range(_RUN)), strict=False))


def _mean(values: Iterable[bool]) -> float:
    each = list(values)
    return sum(each) / len(each)
