"""A sentence-transformers model as a back end whose answers are vectors."""

from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from msr_adapter.arrays import Vectors
from msr_adapter.config.schema import EmbeddingConfig
from msr_adapter.embedding.embedder import split_prompt
from msr_adapter.embedding.vector_text import to_text, unit
from msr_adapter.errors import StageError
from msr_adapter.files import digest, path_stamp
from msr_adapter.filesystem import home
from msr_adapter.generation import Answer, Backend, Completion, Failure, Follow, Request, ends_there

_LIBRARIES = ("sentence-transformers", "transformers", "torch")


class SentenceBackend(Backend):
    """Vectors of texts and, where the model reads images, of images; of both, the mean of the two."""

    def __init__(self, config: EmbeddingConfig) -> None:
        self._config = config
        self._folder = home(config.model)

    @property
    def label(self) -> str:
        """The model as configured."""
        return f"{self._config.model} (embeddings)"

    @cached_property
    def identity(self) -> str:
        """Digest of the model's files, or of its name on the hub, and of the versions; loads nothing."""
        there = self._folder.is_dir()
        model = path_stamp(self._folder) if there else [self._config.model, self._config.revision]
        return digest(["sentence-transformers", model, [metadata.version(name) for name in _LIBRARIES]])

    @property
    def reads_images(self) -> bool:
        """Whether the model takes images; loads it."""
        return bool(self._network.supports("image"))

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        """Answer with vectors, in the order asked: of a text's vector and the mean of its images', the sum, scaled.

        An image that cannot be read fails.
        """
        parts = [split_prompt(request) for request in requests]
        opened: list[tuple[int, Any]] = []
        failed: dict[int, Failure] = {}
        for place, (_, images) in enumerate(parts):
            for image in images:
                try:
                    with PillowImage.open(image.path) as file:
                        opened.append((place, file.convert("RGB")))
                except OSError as error:
                    why = f"image {image.path.name} cannot be read ({type(error).__name__})"
                    failed[place] = Failure(requests[place].key, why)
        told = [place for place, (text, _) in enumerate(parts) if text and place not in failed]
        sums: dict[int, Vectors] = {}
        seen = [place for place, _ in opened]
        for places, inputs in ((told, [parts[place][0] for place in told]), (seen, [image for _, image in opened])):
            for place, vector in zip(places, self._encode(inputs), strict=True):
                share = vector if places is told or len(parts[place][1]) == 1 else vector / len(parts[place][1])
                sums[place] = sums[place] + share if place in sums else share
        sizes = {place: self._tokens(parts[place][0]) for place in told}
        answers: list[Answer] = []
        for place, request in enumerate(requests):
            size, cut = sizes.get(place, (0, False))
            vector = sums.get(place)
            answers.append(
                failed[place] if place in failed or vector is None
                else Completion(request.key, to_text(unit(vector[None])[0]), (), "length" if cut else "stop", size, 0)
            )  # fmt: skip
        return answers

    def _encode(self, inputs: list[Any]) -> Vectors:
        if not inputs:
            return np.empty((0, 0), np.float32)
        found = self._network.encode(
            inputs, batch_size=self._config.batch_size, normalize_embeddings=True, show_progress_bar=False, prompt=""
        )
        return np.asarray(found, dtype=np.float32)

    def _tokens(self, text: str) -> tuple[int, bool]:
        """Return how many tokens of a text are read, and whether it has more; (0, False) where the model cannot say."""
        most, tokenizer = self._network.max_seq_length, self._network.tokenizer
        if not callable(tokenizer):
            return 0, False
        size = len(tokenizer(text, truncation=False, verbose=False)["input_ids"])
        return (min(size, most), size > most) if most else (size, False)

    @cached_property
    def _network(self) -> Any:
        """The model in memory."""
        from sentence_transformers import SentenceTransformer

        model = str(self._folder) if self._folder.is_dir() else self._config.model
        try:
            network = SentenceTransformer(model, revision=self._config.revision, trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            said = str(error).strip().splitlines()
            raise StageError(
                f"{self._config.model} cannot be loaded by sentence-transformers "
                f"({said[0] if said else type(error).__name__})",
                "it is no model of that library, its files are damaged, or the hub cannot be reached",
                "name another in embedding.model, or save it with sentence-transformers",
            ) from error
        _bound(network)
        return network


def _bound(network: Any) -> None:
    """Have longer texts cut where the tokenizer does not say how much the network reads: else one ends the command."""
    config = getattr(network.transformers_model, "config", None)
    text = config.get_text_config() if config is not None else None
    positions = getattr(text, "max_position_embeddings", None)
    if positions and (network.max_seq_length is None or network.max_seq_length > positions):
        network.max_seq_length = positions
