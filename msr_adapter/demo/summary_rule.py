"""The rule behind the tiny model's user summaries: name what was chosen, and whether twice or often.

    Covers: boat often, fish, kite twice; blue, red often. Genres: drama often, western.

A summary holds all that the next one needs, so that reading a history block by block or at once gives the same text.
"""

import re
from collections import Counter
from collections.abc import Iterable

from msr_adapter.prompts import HistoryItem
from msr_adapter.synthetic import COLOURS, GENRES, MOTIFS, ItemFacets

_LEVELS = {1: "", 2: " twice", 3: " often"}
_OFTEN = max(_LEVELS)
"""From here on nobody counts: a small model need not learn large sums, and preferences show well before."""
_ENTRY = re.compile(r"([a-z]+)( twice| often)?")
_FACET_WORDS = {*MOTIFS, *COLOURS, *GENRES}


def summary_of(previous: str, choices: Iterable[HistoryItem]) -> str:
    """Return the summary that follows ``previous`` (may be empty) after ``choices``: the tiny model's lesson."""
    numbers = {level: number for number, level in _LEVELS.items()}
    counts = Counter({word: numbers[level] for word, level in _ENTRY.findall(previous) if word in _FACET_WORDS})
    for choice in choices:
        counts.update(re.findall(r"[a-z]+", f"{choice.title} {choice.summary}"))
    drawn = "; ".join(listed for words in (MOTIFS, COLOURS) if (listed := _listed(counts, words)))
    genres = _listed(counts, GENRES)
    return " ".join([f"Covers: {drawn}."] * bool(drawn) + [f"Genres: {genres}."] * bool(genres))


def choices_of(facets: ItemFacets) -> list[HistoryItem]:
    """Return the items of ``facets`` as a summariser reads them, truly described."""
    return [HistoryItem(title, facets.describe(index)) for index, title in enumerate(facets.titles)]


def _listed(counts: Counter[str], words: Iterable[str]) -> str:
    return ", ".join(word + _LEVELS[min(counts[word], _OFTEN)] for word in sorted(words) if counts[word])
