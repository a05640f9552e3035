"""What the items of the synthetic dataset are made of: the words for what an image shows and what a title says."""

from dataclasses import dataclass

import numpy as np

from msr_adapter.arrays import Codes

MOTIFS = ("star", "moon", "heart", "tree", "house", "boat", "fish", "flower", "cup", "kite")
COLOURS = ("red", "yellow", "green", "blue", "pink", "brown")
PATTERNS = ("paper", "stripes", "dots", "checks")
"""Backgrounds: in every image, and of no weight in any preference."""
GENRES = ("mystery", "comedy", "drama", "romance", "western", "fantasy", "thriller", "musical")
ADJECTIVES = ("Silent", "Golden", "Broken", "Distant", "Little", "Hidden", "Winter", "Last")
PLACES = ("Harbour", "Garden", "River", "Station", "Island", "Castle", "Valley", "Bridge")
"""With the adjectives, the part of a title that no preference depends on."""


@dataclass(frozen=True)
class ItemFacets:
    """Items by code: three facets are seen in the image alone, one is read in the title alone. Arrays (items,)."""

    motif: Codes
    colour: Codes
    pattern: Codes
    genre: Codes
    titles: tuple[str, ...]

    def describe(self, index: int) -> str:
        """Return what the image of item ``index`` shows, e.g. ``A red boat on dots.``"""
        colour, motif = COLOURS[self.colour[index]], MOTIFS[self.motif[index]]
        return f"A {colour} {motif} on {PATTERNS[self.pattern[index]]}."


def sample_item_facets(count: int, rng: np.random.Generator) -> ItemFacets:
    """Draw ``count`` items: facets uniform and independent, titles all different."""
    motif, colour, pattern = (rng.integers(len(words), size=count) for words in (MOTIFS, COLOURS, PATTERNS))
    genre, titles = _sample_titles(count, rng)
    return ItemFacets(motif, colour, pattern, genre, titles)


def _sample_titles(count: int, rng: np.random.Generator) -> tuple[Codes, tuple[str, ...]]:
    """Draw genres and titles without repetition; when words run out, sequels are numbered from 2."""
    shape = (len(ADJECTIVES), len(PLACES), len(GENRES))
    combinations = int(np.prod(shape))
    rounds = -(-count // combinations)
    codes = np.concatenate([rng.permutation(combinations) for _ in range(rounds)])[:count]
    adjective, place, genre = np.unravel_index(codes, shape)
    titles = []
    for index in range(count):
        sequel = index // combinations
        name = f"{ADJECTIVES[adjective[index]]} {PLACES[place[index]]}" + (f" {sequel + 1}" if sequel else "")
        titles.append(f"{name}, a {GENRES[genre[index]]}")
    return genre.astype(np.int64), tuple(titles)
