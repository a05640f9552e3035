"""The run's own model as a back end whose answers are vectors: the mean of its last hidden states."""

from collections.abc import Sequence
from functools import cached_property

from msr_adapter.backends.huggingface import encode, fit_device, identity_of, never_fits, rows_at_once
from msr_adapter.backends.loaded_model import LoadedModel, Work
from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.config.schema import ModelConfig
from msr_adapter.embedding.vector_text import to_text, unit
from msr_adapter.files import digest
from msr_adapter.generation import Answer, Backend, Completion, Failure, Follow, Request, ends_there
from msr_adapter.llamafactory.family_recognition import resolve_template
from msr_adapter.llamafactory.model_weights import BASE, Weights


class HiddenStatesBackend(Backend):
    """Vectors of prompts, encoded as LLaMA-Factory encodes a user turn, images included.

    A vector is the mean of the last layer's states over the tokens of the text and the image; those of the template,
    which every prompt has, are left out.
    """

    def __init__(self, model: ModelConfig, weights: Weights = BASE) -> None:
        self._model, self._weights = resolve_template(model.reference), weights
        self._loaded: LoadedModel | None = None

    @property
    def label(self) -> str:
        """The model as configured."""
        trained = ", fine-tuned" if self._weights.folders else ""
        return f"{self._model.path} ({self._model.template}{trained}, hidden states)"

    @cached_property
    def identity(self) -> str:
        """Digest of all that decides the model's answers; loads nothing."""
        return digest(["mean of the last hidden states of the content", identity_of(self._model, self._weights)])

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        """Answer with vectors, in the order asked; an image that cannot be read fails."""
        import torch

        loaded = self._load()
        answers: dict[int, Answer] = {}
        work: list[tuple[int, Work]] = []
        for place, request in enumerate(requests):
            ids = encode(loaded.encoder, request)
            if isinstance(ids, Failure):
                answers[place] = ids
            else:
                work.append((place, (request, ids)))
        try:
            for at, vector in loaded.mean_states([one for _, one in work]):
                place, (request, ids) = work[at]
                text = to_text(unit(vector.numpy()[None])[0])
                answers[place] = Completion(request.key, text, (), "stop", len(ids), 0)
        except torch.OutOfMemoryError as error:
            never_fits(max(len(ids) for _, (_, ids) in work), error)
        return [answers[place] for place in range(len(requests))]

    def _load(self) -> LoadedModel:
        if self._loaded is None:
            self._loaded = LoadedModel(self._model, self._weights, BatchSizer(rows_at_once(self._model)))
            fit_device(self._loaded.batch_sizer, self._loaded.network)
        return self._loaded
