"""What a server must be told, and what must be known of the training, to have it score answers."""

from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from msr_adapter.backends.comparing import compare_prompts
from msr_adapter.backends.odds import Names, overlapping, read_odds
from msr_adapter.backends.taught import Taught
from msr_adapter.backends.wire import chat
from msr_adapter.config.models import ModelRef
from msr_adapter.errors import StageError
from msr_adapter.files import digest
from msr_adapter.generation.request import Completion, Request
from msr_adapter.llamafactory.models import own_adapters, trained_stamp

_TAUGHT = {"path", "revision", "template", "default_system", "image_max_pixels", "image_min_pixels"}
"""Fields of the trained model that decide what is sent and how the answer is read; pictures are shrunk by them."""

Sides = tuple[tuple[str, ...], ...]


class Scoring:
    """Scores through a server that serves what was trained on top of ``taught``."""

    def __init__(self, served: ModelRef, taught: ModelRef, stamps: Sequence[str]) -> None:
        """``stamps`` identify the trained weights, where they are known here. A system text is the trained one."""
        assert served.server is not None
        system = served.default_system if served.default_system is not None else taught.default_system
        self._model, self._server = served.model_copy(update={"default_system": system}), served.server
        self._base, self._stamps, self._taught = taught, list(stamps), Taught(taught)
        self._names: dict[Sides, Names] = {}

    @property
    def identity(self) -> str:
        """Digest of all that decides how an answer is found among the alternatives; loads nothing."""
        base = self._base.model_dump(mode="json", include=_TAUGHT)
        adapters = [trained_stamp(folder) for folder in own_adapters(self._base)]
        return digest(["odds", base, adapters, self._model.default_system, self._stamps, self._server.top_logprobs])

    def resolve(self, requests: Sequence[Request]) -> None:
        """Find the tokens of all answers. Raises `StageError` when two choices cannot be told apart."""
        for request in requests:
            if request.choices and request.sides not in self._names:
                names = self._taught.names(request.sides)
                if twice := overlapping(names):
                    raise StageError(
                        f"Two answers have the same text among a server's alternatives: {', '.join(map(repr, twice))}",
                        "their first tokens differ by what a text does not show, such as a leading blank",
                        "score with the model on this machine: remove evaluate.scorer",
                    )
                self._names[request.sides] = names

    def body(self, request: Request) -> dict[str, Any]:
        """Return the JSON that asks for one greedy token and the alternatives to it.

        Raises `OSError` if an image cannot be read.
        """
        alternatives = {"max_tokens": 1, "logprobs": True, "top_logprobs": self._server.top_logprobs}
        return chat(self._model, request, self._taught.url) | alternatives

    def read(self, request: Request, response: httpx.Response) -> Completion:
        """Return the odds in a response of status 200."""
        return read_odds(request, response, self._names[request.sides])

    def compare(self, requests: Sequence[Request], headers: Mapping[str, str]) -> str:
        """Compare the server's prompts with the trained ones; see `compare_prompts`."""
        if not self._server.compare_prompts:
            return "not verified (server.compare_prompts is false)"
        return compare_prompts(self._model, self._server, self._taught, requests, headers)
