"""The tiny model's lessons, made afresh for every batch: describe an image, update a user summary."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from msr_adapter.arrays import Codes
from msr_adapter.demo.summary_rule import choices_of, summary_of
from msr_adapter.generation.request import IMAGE_PLACEHOLDER
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.synthetic import COLOURS, GENRES, MOTIFS, ItemFacets, draw_image, sample_item_facets

NO_IMAGE = "No cover."
_BARE_SHARE = 0.05
"""Share of lessons in which items have no image or no description."""
_LONGEST_HISTORY = 10
_EARLIER_BLOCKS = (0.4, 0.3, 0.2, 0.1)
"""Shares of updates after 0, 1, 2, 3 earlier blocks: copying is learned from the short ones, counting from the long."""
_EARLIER_SEEN = (0.4, 0.3, 0.3)
"""Shares of `see` lessons after 0, 1, 2 earlier blocks."""
_HERE = "COVER"
"""Stands for an image while the prompt is rendered."""
_FULL_BLOCKS = 0.8
"""Share of updates whose earlier blocks all have three items."""


@dataclass(frozen=True)
class Lesson:
    """One user turn, its images, and the answer to learn."""

    prompt: str
    images: tuple[Image.Image, ...]
    answer: str


def describe(prompts: Prompts, rng: np.random.Generator) -> Lesson:
    """Return a lesson of one image and its description; now and then there is no image."""
    facets = sample_item_facets(1, rng)
    if rng.random() < _BARE_SHARE:
        return Lesson(prompts.item_summary(title=facets.titles[0], image=False), (), NO_IMAGE)
    prompt = prompts.item_summary(title=facets.titles[0], image=True)
    return Lesson(prompt, (item_image(facets, 0, rng),), facets.describe(0))


def update(prompts: Prompts, rng: np.random.Generator) -> Lesson:
    """Return a recurrent step: zero to three earlier blocks are in the previous summary, one to three items are new."""
    earlier = int(rng.choice(4, p=_EARLIER_BLOCKS))
    full = rng.random() < _FULL_BLOCKS
    blocks = [3 if full else int(size) for size in rng.integers(1, 4, size=earlier)]
    new = int(rng.integers(1, 4))
    choices = _history(sum(blocks) + new, rng)
    previous, done = "", 0
    for size in blocks:
        previous, done = summary_of(previous, choices[done : done + size]), done + size
    return _update_lesson(prompts, previous, choices[done:])


def whole(prompts: Prompts, rng: np.random.Generator) -> Lesson:
    """Return a lesson of the direct mode: a whole history in one prompt."""
    return _update_lesson(prompts, "", _history(int(rng.integers(1, _LONGEST_HISTORY + 1)), rng))


def see(prompts: Prompts, rng: np.random.Generator) -> Lesson:
    """Return an update whose new items show images instead of descriptions: an image comes to mean its words."""
    earlier, new = int(rng.choice(3, p=_EARLIER_SEEN)) * 3, int(rng.integers(1, 4))
    facets = _liked(earlier + new, rng)
    choices = choices_of(facets)
    previous, items = summary_of("", choices[:earlier]), choices[earlier:]
    # A placeholder of an image would be neutralised as any other text of an item.
    words = prompts.user_summary(previous=previous, items=[replace(item, summary=_HERE) for item in items])
    images = tuple(item_image(facets, index, rng) for index in range(earlier, earlier + new))
    return Lesson(words.replace(_HERE, IMAGE_PLACEHOLDER), images, summary_of(previous, items))


def toss(prompts: Prompts, rng: np.random.Generator) -> Lesson:
    """Return the recommender's question, answered by a coin: it teaches the form of an answer, not which to give."""
    summary = summary_of("", _history(int(rng.integers(1, _LONGEST_HISTORY)), rng))
    facets = sample_item_facets(1, rng)
    prompt = prompts.recommend(user_summary=summary, title=facets.titles[0], image=True)
    return Lesson(prompt, (item_image(facets, 0, rng),), ("Yes", "No")[int(rng.integers(2))])


Maker = Callable[[Prompts, np.random.Generator], Lesson]


class TrainingPhase(NamedTuple):
    """Kinds of lessons in turn, one batch each."""

    kinds: tuple[Maker, ...]
    steps: int
    peak_rate: float


PHASES = (
    TrainingPhase((describe, update, update, describe, update, whole), 2000, 2e-3),
    # Without it, fine-tuning matches titles to user summaries at once and images hardly at all.
    TrainingPhase((see, describe, see, update, toss), 400, 1e-3),
)


def item_image(facets: ItemFacets, index: int, rng: np.random.Generator) -> Image.Image:
    """Draw the image of item ``index``."""
    return draw_image(int(facets.motif[index]), int(facets.colour[index]), int(facets.pattern[index]), rng)


def _update_lesson(prompts: Prompts, previous: str, choices: Sequence[HistoryItem]) -> Lesson:
    return Lesson(prompts.user_summary(previous=previous, items=choices), (), summary_of(previous, choices))


def _history(count: int, rng: np.random.Generator) -> list[HistoryItem]:
    """Draw items as a user with favourites would choose them, sometimes without images or descriptions."""
    choices = choices_of(_liked(count, rng))
    draw = rng.random()
    if draw < _BARE_SHARE:
        return [replace(choice, summary="") for choice in choices]
    if draw < 2 * _BARE_SHARE:
        return [replace(c, summary=NO_IMAGE) if rng.random() < 0.5 else c for c in choices]
    return choices


def _liked(count: int, rng: np.random.Generator) -> ItemFacets:
    facets = sample_item_facets(count, rng)
    eager = rng.uniform(0.3, 1.0)
    motif = _leaning(facets.motif, len(MOTIFS), eager, rng)
    colour = _leaning(facets.colour, len(COLOURS), eager * 0.7, rng)
    genre = _leaning(facets.genre, len(GENRES), eager, rng)
    titles = [title.rpartition(" ")[0] + f" {GENRES[code]}" for title, code in zip(facets.titles, genre, strict=True)]
    return replace(facets, motif=motif, colour=colour, genre=genre, titles=tuple(titles))


def _leaning(codes: Codes, words: int, eager: float, rng: np.random.Generator) -> Codes:
    """Replace each code by one of two favourite words with probability ``eager``."""
    favourites = rng.permutation(words)[:2]
    picked = favourites[(rng.random(len(codes)) < 0.4).astype(np.int64)]
    return np.where(rng.random(len(codes)) < eager, picked, codes)
