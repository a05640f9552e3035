"""What training taught a served model: its prompts as tokens, and the token with which each answer begins."""

import io
from collections.abc import Sequence
from functools import cached_property

from msr_adapter.backends.wire import as_url, data_url
from msr_adapter.config.models import ModelRef
from msr_adapter.errors import MsrError, StageError
from msr_adapter.generation.request import Image, Request
from msr_adapter.llamafactory.encode import Encoder

_KNOWN_PICTURES = 256


class Taught:
    """Tokenizer and template of the base model, as far as they are at hand; loaded when first asked, no weights."""

    def __init__(self, model: ModelRef) -> None:
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
        if self.encoder.beginning(sides):
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
                self.encoder.picture(image.path).save(buffer, "PNG")
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
