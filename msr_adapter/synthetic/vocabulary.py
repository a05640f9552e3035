"""What the items of the synthetic dataset are made of: the words for what an image shows and what a title says."""

from dataclasses import dataclass, replace

import numpy as np

from msr_adapter.arrays import Codes, Floats

MOTIFS = ("star", "moon", "heart", "tree", "house", "boat", "fish", "flower", "cup", "kite")
COLOURS = ("red", "yellow", "green", "blue", "pink", "brown")
PATTERNS = ("paper", "stripes", "dots", "checks")
"""Backgrounds: in every image, and of no weight in any preference."""
GENRES = ("mystery", "comedy", "drama", "romance", "western", "fantasy", "thriller", "musical")
ADJECTIVES = ("Silent", "Golden", "Broken", "Distant", "Little", "Hidden", "Winter", "Last")
PLACES = ("Harbour", "Garden", "River", "Station", "Island", "Castle", "Valley", "Bridge")
"""With the adjectives, the part of a title that no preference depends on."""
BRANDS = ("Star", "Moon", "Heart", "Tree", "House", "Boat", "Fish", "Flower", "Cup", "Kite")
"""Not told by title or image, but by a column of the table of items. Called by the motifs' words, because the bundled
model knows these and no others; what an item's image shows has nothing to do with its brand."""
PRICE_BANDS = ((3.0, 10.0), (10.0, 20.0), (20.0, 60.0))
"""From (included) and to (excluded) which price: users care for the band, the table has the price."""


@dataclass(frozen=True)
class ItemFacets:
    """Items by code: three facets are seen in the image alone, one is read in the title alone. Arrays (items,).

    The last ones are None where items have no attributes, or no second image.
    """

    motif: Codes
    colour: Codes
    pattern: Codes
    genre: Codes
    titles: tuple[str, ...]
    brand: Codes | None = None
    price_band: Codes | None = None
    price: Floats | None = None
    """Within its band, in cents that are whole."""
    second_motif: Codes | None = None
    """In the second image alone, as the next one."""
    second_colour: Codes | None = None

    def describe(self, index: int) -> str:
        """Return what the image of item ``index`` shows, e.g. ``A red boat on dots.``"""
        colour, motif = COLOURS[self.colour[index]], MOTIFS[self.motif[index]]
        return f"A {colour} {motif} on {PATTERNS[self.pattern[index]]}."


def sample_item_facets(count: int, rng: np.random.Generator) -> ItemFacets:
    """Draw ``count`` items: facets uniform and independent, titles all different."""
    motif, colour, pattern = (rng.integers(len(words), size=count) for words in (MOTIFS, COLOURS, PATTERNS))
    genre, titles = _sample_titles(count, rng)
    return ItemFacets(motif, colour, pattern, genre, titles)


def with_attributes(facets: ItemFacets, rng: np.random.Generator) -> ItemFacets:
    """Give each item a brand and a price, independent of all else."""
    count = len(facets.titles)
    band = rng.integers(len(PRICE_BANDS), size=count)
    low, high = np.array(PRICE_BANDS)[band].T
    price = np.floor(100 * rng.uniform(low, high)) / 100
    return replace(facets, brand=rng.integers(len(BRANDS), size=count), price_band=band, price=price)


def with_second_image(facets: ItemFacets, rng: np.random.Generator) -> ItemFacets:
    """Give each item a second image of another motif and colour, independent of the first one's."""
    motif, colour = (rng.integers(len(words), size=len(facets.titles)) for words in (MOTIFS, COLOURS))
    return replace(facets, second_motif=motif, second_colour=colour)


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
