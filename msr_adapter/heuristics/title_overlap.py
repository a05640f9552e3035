"""The heuristic that reads: how much a candidate's title repeats the titles of the history, by TF-IDF."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from msr_adapter.arrays import Codes, Floats, Rows, ranges

_CHUNK_WORDS = 2**17

# Scripts that do not put blanks between words are taken sign by sign.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_UNSPACED}]|[[\p{{L}}\p{{M}}\p{{N}}]--[{_UNSPACED}]]+"


@dataclass(frozen=True)
class TitleVectors:
    """Sparse rows of length one (or zero, without words): item ``i`` has the slice ``offsets[i]:offsets[i + 1]``."""

    offsets: Rows
    """(items + 1,)"""
    words: Rows
    """Code of each word, ascending within an item."""
    weights: Floats
    vocabulary: int
    """Number of distinct words."""


def title_vectors(titles: Iterable[str]) -> TitleVectors:
    """Return the vectors of ``titles`` (one per item code): count x smoothed idf, normalised.

    Salton and Buckley (1988), with idf = ln((1 + items) / (1 + items with the word)) + 1. Words are runs of letters
    and digits, in lower case. O(characters) time; about 60 bytes per word.
    """
    column = pl.Series("title", titles, dtype=pl.String)
    words = split_words(column).to_frame("word").with_row_index("item").explode("word").drop_nulls()
    counted = words.group_by("item", "word", maintain_order=True).len("count")
    vocabulary = counted.group_by("word", maintain_order=True).agg(pl.len().alias("spread")).with_row_index("code")
    counted = counted.join(vocabulary, on="word", maintain_order="left").sort("item", "code")
    item, code = counted["item"].to_numpy(), counted["code"].to_numpy().astype(np.int64)
    idf = np.log((1 + len(column)) / (1 + counted["spread"].to_numpy())) + 1
    weights = counted["count"].to_numpy() * idf
    norm = np.sqrt(np.bincount(item, weights**2, minlength=len(column)))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(item, minlength=len(column)))]).astype(np.int64)
    return TitleVectors(offsets, code, weights / norm[item], vocabulary.height)


def split_words(titles: pl.Series) -> pl.Series:
    """Return the words of each title, in order, as a list."""
    return titles.str.to_lowercase().str.extract_all(_WORD)


def title_overlap(
    titles: TitleVectors, items: Codes, offsets: Rows, history: Codes, history_offsets: Rows,
    chunk_words: int = _CHUNK_WORDS,
) -> Floats:  # fmt: skip
    """Score candidates (n,) by the cosine of the title with the sum of the titles in the example's history, in [0, 1].

    ``items`` (n,) are grouped by ``offsets`` (examples + 1,), ``history`` by ``history_offsets`` (examples + 1,). No
    words, no overlap: 0. O(words of all pairs and histories x log) time; memory is about 50 bytes for each of the
    ``chunk_words`` words of the examples that are scored together, which never change the scores.
    """
    scores = np.zeros(len(items))
    lengths = np.diff(titles.offsets)
    before = _words_upto(lengths, history, history_offsets) + _words_upto(lengths, items, offsets)
    for first, last in _chunks(before, chunk_words):
        rows = slice(offsets[first], offsets[last])
        owner = np.repeat(np.arange(last - first), np.diff(offsets[first : last + 1]))
        past = slice(history_offsets[first], history_offsets[last])
        past_owner = np.repeat(np.arange(last - first), np.diff(history_offsets[first : last + 1]))
        scores[rows] = _score(titles, items[rows], owner, history[past], past_owner, last - first)
    return scores


@dataclass(frozen=True)
class TitleIndex:
    """Which titles have a word: word ``w`` has the slice ``offsets[w]:offsets[w + 1]``."""

    offsets: Rows
    """(vocabulary + 1,)"""
    items: Rows
    """Items, ascending within a word."""
    weights: Floats
    """Of the word in the title of each."""


def title_index(titles: TitleVectors) -> TitleIndex:
    """Return the index of ``titles``. O(words log words) time."""
    order = np.argsort(titles.words, kind="stable")
    items = np.repeat(np.arange(len(titles.offsets) - 1), np.diff(titles.offsets))
    offsets = np.searchsorted(titles.words[order], np.arange(titles.vocabulary + 1))
    return TitleIndex(offsets, items[order], titles.weights[order])


def title_overlap_with_all(
    titles: TitleVectors, index: TitleIndex, history: Codes, history_offsets: Rows, chunk_words: int = _CHUNK_WORDS
) -> Floats:
    """Return what `title_overlap` gives every item of the catalogue, (examples, items), to the last bit.

    O(titles that have a word of the history, word by word) time; memory beside the result is about 50 bytes for each of
    ``chunk_words`` of them, or those of one history.
    """
    examples, items = len(history_offsets) - 1, len(titles.offsets) - 1
    scores = np.zeros((examples, items))
    profile, sums, norm = _profiles(titles, history, np.repeat(np.arange(examples), np.diff(history_offsets)), examples)
    owner, words = profile // titles.vocabulary, profile % titles.vocabulary
    lengths = index.offsets[words + 1] - index.offsets[words]
    bounds = np.searchsorted(owner, np.arange(examples + 1))
    for first, last in _chunks(np.concatenate([[0], np.cumsum(lengths)])[bounds], chunk_words):
        part = slice(bounds[first], bounds[last])
        found = ranges(index.offsets[words[part]], lengths[part])
        pair = np.repeat(owner[part] - first, lengths[part]) * items + index.items[found]
        dots = np.bincount(pair, index.weights[found] * np.repeat(sums[part], lengths[part]), (last - first) * items)
        scores[first:last] = dots.reshape(last - first, items)
    return np.divide(scores, norm[:, None], out=scores, where=norm[:, None] > 0)


def _profiles(titles: TitleVectors, history: Codes, owner: Rows, examples: int) -> tuple[Rows, Floats, Floats]:
    """Return the words of the histories, as ascending keys of example and word, their weights, and each one's norm."""
    pair, words, weights = _expand(titles, history)
    profile, place = np.unique(owner[pair] * titles.vocabulary + words, return_inverse=True)
    sums = np.bincount(place, weights, len(profile)).astype(np.float64)
    norm = np.sqrt(np.bincount(profile // max(titles.vocabulary, 1), sums**2, minlength=examples))
    return profile.astype(np.int64), sums, norm


def _score(titles: TitleVectors, items: Codes, owner: Rows, history: Codes, past_owner: Rows, examples: int) -> Floats:
    """Return the cosines of one chunk; ``owner`` and ``past_owner`` say which example a candidate or old item is of."""
    profile, sums, norm = _profiles(titles, history, past_owner, examples)
    if not len(profile):
        return np.zeros(len(items))
    pair, words, weights = _expand(titles, items)
    wanted = owner[pair] * titles.vocabulary + words
    place = np.minimum(np.searchsorted(profile, wanted), len(profile) - 1)
    products = np.where(profile[place] == wanted, weights * sums[place], 0.0)
    dots = np.bincount(pair, products, minlength=len(items))
    return np.divide(dots, norm[owner], out=np.zeros(len(items)), where=norm[owner] > 0)


def _expand(titles: TitleVectors, items: Codes) -> tuple[Rows, Rows, Floats]:
    """Return, for every word of every one of ``items``: which of them it is of, its code, its weight."""
    starts = titles.offsets[items]
    lengths = titles.offsets[items + 1] - starts
    pair = np.repeat(np.arange(len(items)), lengths)
    rows = np.arange(len(pair)) + np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return pair, titles.words[rows], titles.weights[rows]


def _words_upto(lengths: Rows, items: Codes, offsets: Rows) -> Rows:
    """Return the number of words before each example, and in all (examples + 1,)."""
    return np.concatenate([[0], np.cumsum(lengths[items])])[offsets]


def _chunks(upto: Rows, words: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) examples with about ``words`` words each; ``upto`` counts the words before each."""
    first, examples = 0, len(upto) - 1
    while first < examples:
        last = int(np.searchsorted(upto, upto[first] + words, side="right")) - 1
        last = min(max(last, first + 1), examples)
        yield first, last
        first = last
