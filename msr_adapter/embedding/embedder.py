"""Texts and images to vectors of length 1, each computed once: what is embedded already comes from the cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from msr_adapter.arrays import Vectors
from msr_adapter.embedding.vector_text import to_vector, unit
from msr_adapter.errors import plural
from msr_adapter.generation import Backend, CompletionCache, Image, Request
from msr_adapter.generation.request import IMAGE_PLACEHOLDER
from msr_adapter.progress import Reporter

_BATCH = 4_096
"""Texts that are asked for together: so many vectors are held as texts at a time."""


@dataclass
class EmbeddedCounts:
    """What was asked for since it was last said."""

    asked: int = 0
    empty: int = 0
    """Without anything to embed."""
    computed: int = 0
    """Not in the cache."""
    cut: int = 0
    """Texts that are longer than the model reads."""


@dataclass
class Embedder:
    """Embeds through a cache, whose key is the model, the text and the image's bytes: what is new is computed alone."""

    backend: Backend
    """`sentence_model` or `hidden_states`: answers are vectors (`vector_text`)."""
    cache: CompletionCache
    reporter: Reporter
    label: str
    """The model's name."""
    reads_images: Callable[[], bool]
    """Tells whether the model takes images; asked where there are any, as it may have to be loaded for that."""
    counts: EmbeddedCounts = field(default_factory=EmbeddedCounts)

    @property
    def digest(self) -> str:
        """Identifies the model and how it embeds."""
        return self.backend.identity

    def embed(self, what: str, texts: Sequence[str], images: Sequence[Sequence[Image]] | None = None) -> Vectors:
        """Return a vector of length 1 for each text with its images (n, dimension); zeros where there is neither.

        ``what`` they are is said with the progress. A killed command loses a few hundred vectors at most. Memory: the
        vectors, 4 bytes x n x dimension. Raises `StageError` if an image cannot be read.
        """
        shown = images or [()] * len(texts)
        there = [place for place, text in enumerate(texts) if text or shown[place]]
        found: list[Vectors] = []
        before = self.cache.stats.computed
        with self.reporter.track(f"embedding {what}", len(there)) as advance:
            batches = (there[first : first + _BATCH] for first in range(0, len(there), _BATCH))
            asked = ([self._request(texts[place], shown[place]) for place in batch] for batch in batches)
            for answers in self.cache.stream(self.backend, asked, advance=advance):
                found.append(np.stack([to_vector(answer.text) for answer in answers]))
                self.counts.cut += sum(answer.finish_reason == "length" for answer in answers)
        self.counts.asked += len(texts)
        self.counts.empty += len(texts) - len(there)
        self.counts.computed += self.cache.stats.computed - before
        vectors = np.zeros((len(texts), found[0].shape[1] if found else 0), np.float32)
        if found:
            vectors[there] = unit(np.concatenate(found))
        return vectors

    def say(self, what: str) -> EmbeddedCounts:
        """Say what was embedded since this was last said, and return it."""
        told = replace(self.counts)
        nothing = f"; {told.empty:,} have nothing to embed" if told.empty else ""
        cut = f"; {plural(told.cut, 'text is', 'texts are')} longer than the model reads, and cut" if told.cut else ""
        self.reporter.note(f"  {told.asked - told.empty:,} {what} embedded by {self.label}, {told.computed:,} of them "
                           f"now{nothing}{cut}")  # fmt: skip
        self.counts.asked = self.counts.empty = self.counts.computed = self.counts.cut = 0
        return told

    def _request(self, text: str, images: Sequence[Image]) -> Request:
        parts = [IMAGE_PLACEHOLDER * len(images)] * bool(images) + [text] * bool(text)
        return Request(self.digest, "\n".join(parts), tuple(images))


def split_prompt(request: Request) -> tuple[str, tuple[Image, ...]]:
    """Return the text and the images of a request that an `Embedder` made."""
    images = request.images
    text = request.prompt.removeprefix(IMAGE_PLACEHOLDER * len(images)).removeprefix("\n") if images else request.prompt
    return text, images
