"""Requests and answers as the OpenAI-compatible chat endpoint writes them."""

import base64
import io
from collections.abc import Callable

import httpx
from PIL import Image as PillowImage

from msr_adapter.backends.http import (
    BrokenAnswerError,
    GaveUpError,
    read_json,
    reading_answer,
    sent_secrets,
    token_numbers,
)
from msr_adapter.config.schema import ModelConfig
from msr_adapter.generation.request import IMAGE_PLACEHOLDER, Completion, Image, Request
from msr_adapter.redaction import quoted, without

_MIME = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
"""What every server reads; anything else is sent as PNG (LLaMA-Factory's server, for one, takes no WebP)."""
_FINISHED = {"stop": "stop", "length": "length"}


def body(model: ModelConfig, request: Request) -> dict[str, object]:
    """Return the JSON of one request for text."""
    return chat(model, request) | {"max_tokens": request.max_new_tokens}


def chat(model: ModelConfig, request: Request, url: Callable[[Image], str] | None = None) -> dict[str, object]:
    """Return a greedy request without its length: images are data URLs where their placeholders stand.

    ``url`` makes them; the files as they are unless given.
    """
    system = [{"role": "system", "content": model.default_system}] if model.default_system else []
    return {
        "model": model.path,
        "messages": [*system, {"role": "user", "content": _content(request, url or data_url)}],
        "temperature": 0,
        "stream": False,
    }


def read_answer(request: Request, response: httpx.Response) -> Completion:
    """Return the completion in a response of status 200.

    Raises `BrokenAnswerError` if it is none, `GaveUpError` if the server withholds it.
    """
    with reading_answer("an answer to a chat request"):
        answer = read_json(response)
        choice = answer["choices"][0]
        text, finish = choice["message"].get("content"), choice.get("finish_reason")
        tokens = token_numbers(answer)
        if isinstance(text, str):
            text.encode()  # half a surrogate pair fits no table
    if not isinstance(text, str | None):
        raise BrokenAnswerError(f"the content is {type(text).__name__}, not text")
    if not isinstance(finish, str) or finish not in _FINISHED:
        said = quoted(repr(finish), sent_secrets(response))
        raise GaveUpError(f"the server ended the answer with finish_reason {said}")
    text = text or ""
    for secret in sent_secrets(response):  # an answer that repeats the key would carry it into every table
        text = without(text, secret)
    return Completion(request.key, text.strip(), (), _FINISHED[finish], *tokens)


def _content(request: Request, url: Callable[[Image], str]) -> str | list[dict[str, object]]:
    """Return the prompt as text, or as parts with each image in its place."""
    if not request.images:
        return request.prompt
    texts = request.prompt.split(IMAGE_PLACEHOLDER)
    if len(texts) != len(request.images) + 1:
        raise ValueError(f"{len(request.images)} images for {len(texts) - 1} placeholders")
    parts: list[dict[str, object]] = []
    for text, image in zip(texts, (*request.images, None), strict=True):
        parts += [{"type": "text", "text": text}] if text else []
        parts += [{"type": "image_url", "image_url": {"url": url(image)}}] if image else []
    return parts


def data_url(image: Image) -> str:
    """Return an image file as a data URL. Raises `OSError` if it cannot be read."""
    mime, data = _MIME.get(image.path.suffix.lower()), image.path.read_bytes()
    if mime is None:
        with PillowImage.open(io.BytesIO(data)) as opened, io.BytesIO() as buffer:
            opened.convert("RGB").save(buffer, "PNG")
            mime, data = "image/png", buffer.getvalue()
    return as_url(mime, data)


def as_url(mime: str, data: bytes) -> str:
    """Return bytes as a data URL."""
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"
