"""A reward model: what its value head gives each answer to a prompt, read where training read it."""

import os
from collections.abc import Iterator, Mapping, Sequence

from msr_adapter.backends.huggingface import encode, fit_device, identity_of, never_fits, rows_at_once
from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Follow, Request, ends_there
from msr_adapter.llamafactory.model_weights import Weights, is_small
from msr_adapter.llamafactory.prompt_encoder import Encoder, collate

Answered = tuple[int, list[int]]
"""Number of a request, and the tokens of its prompt with one of its answers."""


class RewardBackend(Backend):
    """Log-probabilities of fixed answers from their rewards: p(a) = exp(r(a)) / sum of exp(r) over the choices.

    Training teaches differences of rewards under one prompt, and nothing else: r(Yes) - r(No) is the log-odds that it
    fits (Bradley and Terry), while r(Yes) alone may be shifted by any amount from prompt to prompt.
    """

    def __init__(self, model: ModelConfig, weights: Weights) -> None:
        self.model = model
        self._weights = weights
        self._identity = ""
        self._loaded: _Loaded | None = None

    @property
    def label(self) -> str:
        """The model as configured."""
        return f"{self.model.path} ({self.model.template}, {self.model.dtype}), reward model"

    @property
    def identity(self) -> str:
        """Digest of all weights with the value head, template, system text, pixel limits, dtype and versions."""
        self._identity = self._identity or identity_of(self.model, self._weights)
        return self._identity

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        """Answer all requests, and those that ``follow`` adds, in the order asked; each must have choices."""
        asked, answers = list(requests), dict[int, Answer]()
        while len(answers) < len(asked):
            left = {number: request for number, request in enumerate(asked) if number not in answers}
            for number, answer in self._answer(left):
                answers[number] = answer
                asked += follow(answer)
        return [answers[number] for number in range(len(asked))]

    def _answer(self, requests: Mapping[int, Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the answer to each of ``requests`` as it is there; a `Failure` for an image that cannot be read."""
        import torch

        if any(not request.choices for request in requests.values()):
            raise StageError("A reward model was asked for a text", "it only compares answers", "use another model")
        self._loaded = self._loaded or _Loaded(self.model, self._weights)
        prompts: dict[int, list[int]] = {}
        for number, request in requests.items():
            # Without the label words: each answer is appended whole.
            encoded = encode(self._loaded.encoder, request)
            if isinstance(encoded, Failure):
                yield number, encoded
            else:
                prompts[number] = encoded
        for number, rewards in self._loaded.rewards(requests, prompts):
            logprobs = tuple(torch.tensor(rewards, dtype=torch.float64).log_softmax(0).tolist())
            yield number, Completion(requests[number].key, "", logprobs, "choice", len(prompts[number]), 0)


class _Loaded:
    """A model and its value head in memory."""

    def __init__(self, model: ModelConfig, weights: Weights) -> None:
        import torch

        self.encoder = Encoder(model, weights)
        if is_small(model) and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(1)
        whole = self.encoder.load_model()
        self._network, self._head = whole.pretrained_model, whole.v_head.float()
        self._collator = self.encoder.collator(self._network)
        self._batch_sizer = BatchSizer(rows_at_once(model))
        fit_device(self._batch_sizer, self._network)

    def rewards(
        self, requests: Mapping[int, Request], prompts: Mapping[int, list[int]]
    ) -> Iterator[tuple[int, list[float]]]:
        """Yield the rewards of every choice of the requests that have a prompt; longest first, in batches that fit."""
        import torch

        answered = [(number, ids + self.encoder.answer_ids(choice))
                    for number, ids in prompts.items() for choice in requests[number].choices]  # fmt: skip
        places: dict[int, list[int]] = {}
        for place, (number, _) in enumerate(answered):
            places.setdefault(number, []).append(place)
        order = sorted(range(len(answered)), key=lambda place: -len(answered[place][1]))
        found: dict[int, float] = {}
        try:
            passes = self._batch_sizer.each(
                order, lambda place: len(answered[place][1]),
                lambda part: self._pass([answered[place] for place in part], requests),
            )  # fmt: skip
            for part, values in passes:
                found |= zip(part, values, strict=True)
                for number in dict.fromkeys(answered[place][0] for place in part):
                    if all(place in found for place in places[number]):
                        yield number, [found[place] for place in places[number]]
        except torch.OutOfMemoryError as error:
            never_fits(max(len(ids) for place, (_, ids) in enumerate(answered) if place not in found), error)

    def _pass(self, answered: Sequence[Answered], requests: Mapping[int, Request]) -> list[float]:
        """Return the reward of each prompt with its answer, in one forward pass."""
        import torch

        images = [[image.path for image in requests[number].images] for number, _ in answered]
        batch = collate(self._collator, [ids for _, ids in answered], images)
        inputs = {name: value.to(self._network.device) for name, value in batch.items()}
        with torch.inference_mode():
            states = self._network(**inputs, output_hidden_states=True, use_cache=False).hidden_states[-1]
            # Rows end together: the last column is the last token of each answer, where training reads the reward.
            values = self._head(states[:, -1].float().to(self._head.summary.weight.device))
        return [float(value) for value in values.squeeze(-1)]
