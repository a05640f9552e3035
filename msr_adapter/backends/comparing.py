"""Is the prompt that a server makes of our messages, token for token, the prompt that training taught?

Asked of the server's tokenise endpoint (vLLM's `/tokenize`); where there is none, nobody knows.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import httpx

from msr_adapter.backends.bodies import post_now, read_json
from msr_adapter.backends.retrying import BrokenAnswerError, GaveUpError, RefusedError
from msr_adapter.backends.taught import Taught
from msr_adapter.backends.wire import chat
from msr_adapter.config.models import ModelRef, Server
from msr_adapter.errors import StageError
from msr_adapter.generation.request import Request
from msr_adapter.redaction import quoted, redact

_SHOWN = 4
_REFUSED = (401, 403)


class NoComparisonError(Exception):
    """The server does not say what it makes of messages."""


def compare_prompts(
    model: ModelRef, server: Server, taught: Taught, requests: Sequence[Request], headers: Mapping[str, str]
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


def _their_tokens(client: httpx.Client, model: ModelRef, server: Server, taught: Taught, request: Request) -> list[int]:
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


def _require_same(taught: Taught, request: Request, theirs: Sequence[int]) -> None:
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


def _around(taught: Taught, ids: Sequence[int], place: int) -> str:
    before = "".join(taught.pieces(ids[max(0, place - _SHOWN) : place]))
    after = taught.pieces(ids[place : place + 1 + _SHOWN])
    at = f"[{after[0]}]" if after else "[end]"
    return f"...{before}{at}{''.join(after[1:])}...".replace("\n", "\\n")
