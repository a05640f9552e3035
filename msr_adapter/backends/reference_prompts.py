"""What training taught a served model: its prompts as tokens, and the token with which each answer begins."""

import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import httpx

from msr_adapter.backends.bodies import post_now, read_json
from msr_adapter.backends.logprobs import Names, overlapping, read_odds
from msr_adapter.backends.openai_messages import as_url, chat, data_url
from msr_adapter.backends.retry import BrokenAnswerError, GaveUpError, RefusedError
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.errors import MsrError, StageError
from msr_adapter.files import digest
from msr_adapter.generation.request import Completion, Image, Request
from msr_adapter.llamafactory.encoder import Encoder
from msr_adapter.llamafactory.weights import own_adapters, trained_stamp
from msr_adapter.redaction import quoted, redact

_KNOWN_PICTURES = 256


class ReferencePrompts:
    """Tokenizer and template of the base model, as far as they are at hand; loaded when first asked, no weights."""

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        self._urls: dict[str, str] = {}
        self.absent = ""
        """Why the tokenizer is not at hand; empty while it is, or was not asked for."""

    @cached_property
    def encoder(self) -> Encoder | None:
        """LLaMA-Factory's encoding; None where the base model's tokenizer cannot be loaded."""
        try:
            return Encoder(self.model)
        except StageError as error:
            self.absent = error.what
            return None

    def names(self, sides: Sequence[Sequence[str]]) -> list[list[frozenset[str]]]:
        """Return what a server may call the first token of each spelling: its text, its piece, its number.

        Without a tokenizer they are the spellings themselves, and these behind a blank. Raises `StageError` when two
        choices begin with the same token, also where a later one tells them apart: a server is asked for the first.
        """
        if self.encoder is None:
            return [[frozenset({word, f" {word}"}) for word in side] for side in sides]
        if self.encoder.common_prefix(sides):
            raise StageError(
                "Both answers begin with the same token, and a server tells one token alone",
                "this tokenizer writes the blank before an answer as a token of its own",
                "score with the model on this machine: remove evaluate.scorer",
            )
        tokens = self.encoder.side_tokens(sides)
        return [[self._names(token) for token in side] for side in tokens]

    def encode(self, request: Request) -> list[int]:
        """Return the tokens of a prompt as training has them."""
        if self.encoder is None:
            raise MsrError("no tokenizer")
        return self.encoder.encode(request.prompt, [image.path for image in request.images])

    def url(self, image: Image) -> str:
        """Return a picture as a data URL, shrunk as training shrinks it, without loss. `OSError` if it is unreadable.

        A server would shrink a large one in its own way, and other pixels make other scores.
        """
        if self.encoder is None:
            return data_url(image)
        if image.digest not in self._urls:
            if len(self._urls) >= _KNOWN_PICTURES:
                self._urls.clear()
            with io.BytesIO() as buffer:
                self.encoder.resized_image(image.path).save(buffer, "PNG")
                self._urls[image.digest] = as_url("image/png", buffer.getvalue())
        return self._urls[image.digest]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the names of tokens."""
        return [] if self.encoder is None else [str(one) for one in self.encoder.tokenizer.convert_ids_to_tokens(ids)]

    @property
    def image_token(self) -> int | None:
        """The token that stands for a picture, over and over; None where the template has none."""
        name = self.encoder.template.mm_plugin.image_token if self.encoder else None
        return None if self.encoder is None or name is None else self.encoder.tokenizer.convert_tokens_to_ids(name)

    def _names(self, token: int) -> frozenset[str]:
        assert self.encoder is not None
        tokenizer = self.encoder.tokenizer
        piece = str(tokenizer.convert_ids_to_tokens(token))
        spoken = piece.replace("▁", " ").replace("Ġ", " ")
        return frozenset({tokenizer.decode([token]), piece, spoken, f"token_id:{token}"})


# What a server must be told, and what must be known of the training, to have it score answers.

_TAUGHT = {"path", "revision", "template", "default_system", "image_max_pixels", "image_min_pixels"}
"""Fields of the trained model that decide what is sent and how the answer is read; pictures are shrunk by them."""

Sides = tuple[tuple[str, ...], ...]


class ServerScoring:
    """Scores through a server that serves what was trained on top of ``taught``."""

    def __init__(self, served: ModelConfig, taught: ModelConfig, stamps: Sequence[str]) -> None:
        """``stamps`` identify the trained weights, where they are known here. A system text is the trained one."""
        assert served.server is not None
        system = served.default_system if served.default_system is not None else taught.default_system
        self._model, self._server = served.model_copy(update={"default_system": system}), served.server
        self._base, self._stamps, self._taught = taught, list(stamps), ReferencePrompts(taught)
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
            if request.choices and request.label_words not in self._names:
                names = self._taught.names(request.label_words)
                if twice := overlapping(names):
                    raise StageError(
                        f"Two answers have the same text among a server's alternatives: {', '.join(map(repr, twice))}",
                        "their first tokens differ by what a text does not show, such as a leading blank",
                        "score with the model on this machine: remove evaluate.scorer",
                    )
                self._names[request.label_words] = names

    def body(self, request: Request) -> dict[str, Any]:
        """Return the JSON that asks for one greedy token and the alternatives to it.

        Raises `OSError` if an image cannot be read.
        """
        alternatives = {"max_tokens": 1, "logprobs": True, "top_logprobs": self._server.top_logprobs}
        return chat(self._model, request, self._taught.url) | alternatives

    def read(self, request: Request, response: httpx.Response) -> Completion:
        """Return the odds in a response of status 200."""
        return read_odds(request, response, self._names[request.label_words])

    def compare(self, requests: Sequence[Request], headers: Mapping[str, str]) -> str:
        """Compare the server's prompts with the trained ones; see `compare_prompts`."""
        if not self._server.compare_prompts:
            return "not verified (server.compare_prompts is false)"
        return compare_prompts(self._model, self._server, self._taught, requests, headers)


# Is the prompt that a server makes of our messages, token for token, the prompt that training taught?
#
# Asked of the server's tokenise endpoint (vLLM's `/tokenize`); where there is none, nobody knows.

_SHOWN = 4
_REFUSED = (401, 403)


class NoComparisonError(Exception):
    """The server does not say what it makes of messages."""


def compare_prompts(
    model: ModelConfig,
    server: ServerConfig,
    taught: ReferencePrompts,
    requests: Sequence[Request],
    headers: Mapping[str, str],
) -> str:
    """Compare the prompts of ``requests`` and return one line: how many are the same, or why that is not known.

    The tokens of a picture count as one, since servers put them in later. Raises `StageError` with the first token that
    differs, and for a server that refuses the key.
    """
    if taught.encoder is None:
        return f"not verified ({taught.absent})"
    with httpx.Client(headers=dict(headers), timeout=server.timeout, follow_redirects=False) as client:
        try:
            for request in requests:
                theirs = _their_tokens(client, model, server, taught, request)
                _require_same(taught, request, theirs)
        except NoComparisonError as error:
            return f"not verified ({error})"
    pictures = sum(bool(request.images) for request in requests)
    around = f", {pictures} of them around their pictures" if pictures else ""
    return f"verified: {len(requests)} prompts have the tokens that training taught{around}"


def _their_tokens(
    client: httpx.Client, model: ModelConfig, server: ServerConfig, taught: ReferencePrompts, request: Request
) -> list[int]:
    url = server.url.rstrip("/")
    said = chat(model, request, taught.url)
    body = {"model": said["model"], "messages": said["messages"], "add_generation_prompt": True}
    refusal = "no tokenise endpoint"
    for address in dict.fromkeys((f"{url.removesuffix('/v1')}/tokenize", f"{url}/tokenize")):
        try:
            response = post_now(client, address, body, server.timeout)
        except httpx.TransportError as error:
            raise NoComparisonError(f"/tokenize cannot be reached: {type(error).__name__}") from None
        except (BrokenAnswerError, GaveUpError) as error:
            raise NoComparisonError(f"/tokenize cannot be read: {quoted(error)}") from None
        if response.status_code == httpx.codes.OK:
            return _tokens(response)
        if response.status_code in _REFUSED:
            cause, step = "the key is missing or wrong", "set the environment variable that key_variable names"
            raise StageError(
                f"{model.path} at {redact(server.url)}: status {response.status_code} of /tokenize", cause, step
            )
        if response.status_code not in (404, 405):
            refusal = f"/tokenize takes no messages: {RefusedError.from_response(response)}"
    raise NoComparisonError(refusal)


def _tokens(response: httpx.Response) -> list[int]:
    try:
        found: Any = read_json(response)["tokens"]
        return [int(token) for token in found]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise NoComparisonError(f"/tokenize gave no list of tokens ({type(error).__name__})") from None


def _require_same(taught: ReferencePrompts, request: Request, theirs: Sequence[int]) -> None:
    ours = _collapsed(taught.encode(request), taught.image_token)
    theirs = _collapsed(theirs, taught.image_token)
    if ours == theirs:
        return
    short = min(len(ours), len(theirs))
    place = next((at for at in range(short) if ours[at] != theirs[at]), short)
    shown = [_around(taught, ids, place) for ids in (ours, theirs)]
    raise StageError(
        f"The server's prompt is not the trained one: token {place + 1} differs ({len(ours)} trained, {len(theirs)} of "
        f"the server)\n  trained: {shown[0]}\n  server:  {shown[1]}",
        f"the server's chat template is not LLaMA-Factory's `{taught.model.template}`, or another system text is set",
        "give the server a chat template that writes the trained prompt, or set default_system as in training; "
        "server.compare_prompts: false scores in spite of it",
    )


def _collapsed(ids: Sequence[int], image: int | None) -> list[int]:
    """Return ``ids`` with each run of image tokens as one."""
    return [token for one, run in groupby(ids) for token in ([one] if one == image else run)]


def _around(taught: ReferencePrompts, ids: Sequence[int], place: int) -> str:
    before = "".join(taught.pieces(ids[max(0, place - _SHOWN) : place]))
    after = taught.pieces(ids[place : place + 1 + _SHOWN])
    at = f"[{after[0]}]" if after else "[end]"
    return f"...{before}{at}{''.join(after[1:])}...".replace("\n", "\\n")
