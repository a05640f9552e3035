"""The prompts and answer tokens of the training, which a server has to reproduce to score for the trained model.

A server makes its own prompt of our messages. Whether it is, token for token, the prompt of the training, is asked of
its tokenise endpoint (vLLM's `/tokenize`); where there is none, nobody knows.
"""

import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any

import httpx

from msr_adapter.backends.http import BrokenAnswerError, GaveUpError, RefusedError, post_now, read_json, reading_answer
from msr_adapter.backends.openai_messages import as_url, chat, data_url
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.errors import MsrError, StageError, plural
from msr_adapter.generation.request import Image, Request
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.redaction import quoted, redact

LabelNames = Sequence[Sequence[frozenset[str]]]
"""Per choice, per label word of it: the texts by which a server may call its first token."""

_KNOWN_IMAGES = 256
_SHOWN = 4
_REFUSED = (401, 403)


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

    def names(self, label_words: Sequence[Sequence[str]]) -> list[list[frozenset[str]]]:
        """Return what a server may call the first token of each label word: its text, its piece, its number.

        Without a tokenizer they are the words themselves, and these after a blank. Raises `StageError` when two
        choices begin with the same token, also where a later one tells them apart: a server is asked for the first.
        """
        if self.encoder is None:
            return [[frozenset({word, f" {word}"}) for word in words] for words in label_words]
        if self.encoder.common_prefix(label_words):
            raise StageError(
                "Both answers begin with the same token, and a server tells only one token",
                "this tokenizer writes the blank before an answer as a token of its own",
                "score with the model on this machine: remove evaluate.scorer",
            )
        tokens = self.encoder.side_tokens(label_words)
        return [[self._names(token) for token in words] for words in tokens]

    def tokens(self, label_words: Sequence[Sequence[str]]) -> tuple[tuple[int, ...], ...]:
        """Return the number of the first token of each label word; nothing without a tokenizer. Raises as `names`."""
        return () if self.encoder is None else self.encoder.side_tokens(label_words)

    def encode(self, request: Request) -> list[int]:
        """Return the tokens of a prompt as training has them."""
        if self.encoder is None:
            raise MsrError("no tokenizer")
        return self.encoder.encode(request.prompt, [image.path for image in request.images])

    def url(self, image: Image) -> str:
        """Return an image as a data URL, shrunk as training shrinks it, without loss. `OSError` if it is unreadable.

        A server would shrink a large one in its own way, and other pixels make other scores.
        """
        if self.encoder is None:
            return data_url(image)
        if image.digest not in self._urls:
            if len(self._urls) >= _KNOWN_IMAGES:
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
        """The token that stands for an image, over and over; None where the template has none."""
        name = self.encoder.template.mm_plugin.image_token if self.encoder else None
        return None if self.encoder is None or name is None else self.encoder.tokenizer.convert_tokens_to_ids(name)

    def _names(self, token: int) -> frozenset[str]:
        assert self.encoder is not None
        tokenizer = self.encoder.tokenizer
        piece = str(tokenizer.convert_ids_to_tokens(token))
        spoken = piece.replace("▁", " ").replace("Ġ", " ")
        return frozenset({tokenizer.decode([token]), piece, spoken, f"token_id:{token}"})


class NoComparisonError(Exception):
    """The server does not say what it makes of messages."""


def compare_prompts(
    model: ModelConfig,
    server: ServerConfig,
    reference: ReferencePrompts,
    requests: Sequence[Request],
    headers: Mapping[str, str],
) -> str:
    """Compare the prompts of ``requests`` and return one line: how many are the same, or why that is not known.

    The tokens of an image count as one, since servers put them in later. Raises `StageError` with the first token that
    differs, and for a server that refuses the key.
    """
    if reference.encoder is None:
        return f"not verified ({reference.absent})"
    with httpx.Client(headers=dict(headers), timeout=server.timeout, follow_redirects=False) as client:
        try:
            for request in requests:
                theirs = _their_tokens(client, model, server, reference, request)
                _require_same(reference, request, theirs)
        except NoComparisonError as error:
            return f"not verified ({error})"
    with_images = sum(bool(request.images) for request in requests)
    around = f", {with_images} of them apart from their images" if with_images else ""
    return f"verified: {plural(len(requests), 'prompt')} with the same tokens as in training{around}"


def _their_tokens(
    client: httpx.Client, model: ModelConfig, server: ServerConfig, reference: ReferencePrompts, request: Request
) -> list[int]:
    """Return the tokens that the server makes of a request. Raises `NoComparisonError` where it does not say,
    `StageError` where it refuses the key."""
    url = server.url.rstrip("/")
    said = chat(model, request, reference.url)
    body = {"model": said["model"], "messages": said["messages"], "add_generation_prompt": True}
    refusal = "no tokenise endpoint"
    for address in dict.fromkeys((f"{url.removesuffix('/v1')}/tokenize", f"{url}/tokenize")):
        try:
            with reading_answer("an HTTP response"):
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
            refusal = f"/tokenize does not take messages: {RefusedError.from_response(response)}"
    raise NoComparisonError(refusal)


def _tokens(response: httpx.Response) -> list[int]:
    try:
        with reading_answer("a list of tokens"):
            found: Any = read_json(response)["tokens"]
            if not isinstance(found, list) or not all(type(one) is int and 0 <= one < 2**31 for one in found):
                raise ValueError("no numbers of tokens")
    except BrokenAnswerError as error:
        raise NoComparisonError(f"/tokenize did not give a list of tokens: {error}") from None
    return list(found)


def _require_same(reference: ReferencePrompts, request: Request, theirs: Sequence[int]) -> None:
    """Raise `StageError` with the first difference between the server's tokens of a prompt and the trained ones."""
    ours = _collapsed(reference.encode(request), reference.image_token)
    theirs = _collapsed(theirs, reference.image_token)
    if ours == theirs:
        return
    short = min(len(ours), len(theirs))
    place = next((at for at in range(short) if ours[at] != theirs[at]), short)
    shown = [_around(reference, ids, place) for ids in (ours, theirs)]
    raise StageError(
        f"The server's prompt is not the trained one: token {place + 1} differs ({len(ours)} tokens trained, "
        f"{len(theirs)} on the server)\n  trained: {shown[0]}\n  server:  {shown[1]}",
        f"the server does not use LLaMA-Factory's template `{reference.model.template}`, or has another system text",
        "give the server a chat template that writes the trained prompt, or set default_system as in training; "
        "server.compare_prompts: false scores all the same",
    )


def _collapsed(ids: Sequence[int], image: int | None) -> list[int]:
    """Return ``ids`` with each run of image tokens as one."""
    return [token for one, run in groupby(ids) for token in ([one] if one == image else run)]


def _around(reference: ReferencePrompts, ids: Sequence[int], place: int) -> str:
    before = "".join(reference.pieces(ids[max(0, place - _SHOWN) : place]))
    after = reference.pieces(ids[place : place + 1 + _SHOWN])
    at = f"[{after[0]}]" if after else "[end]"
    return f"...{before}{at}{''.join(after[1:])}...".replace("\n", "\\n")
