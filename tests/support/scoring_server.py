"""A chat endpoint on loopback that serves a tiny Qwen2-VL with real log-probabilities, by transformers alone.

Not collected by pytest. It writes its prompts itself, so that they agree with the trained ones only if both are right.
"""

import base64
import contextlib
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from PIL import Image

_STARTING_S = 30
_PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"


@dataclass
class Serving:
    """What the server does and what it saw."""

    model: Path
    url: str = ""
    system: str = "You are a helpful assistant."
    """What its chat template says where the messages have no system text."""
    tokenise: int = 200
    """Status of its tokenise endpoint."""
    top: int | None = None
    """Alternatives it gives at most."""
    key: str | None = None
    numbers: bool = False
    """Whether alternatives are called token_id:N."""
    takes_tokens: bool | int = False
    """Whether `logprob_token_ids` is honoured; a status refuses it."""
    scores: bool | int = False
    """Whether there is SGLang's `/v1/score`; a status refuses it."""
    delimiter: int | None = None
    """A token that `/v1/score` puts around the items, as SGLang's multi-item scoring does."""
    echoes: bool | int = True
    """Whether `/v1/completions` tells a prompt back; False: it tells what it writes alone; a status refuses it."""
    names: bool = True
    """Whether `/v1/completions` knows `return_tokens_as_token_ids`."""
    spoil: Callable[[dict[str, Any]], object] = lambda logprobs: None
    """What becomes of the logprobs in an answer of `/v1/completions`."""
    reads: int = 0
    """Tokens that `/v1/completions` says it read beside those of the prompt."""
    text_requests: list[dict[str, Any]] = field(default_factory=list)
    """What came to `/v1/completions`."""
    drops: int | None = None
    """A token that is left out of what is asked for, but for the first request."""
    scored: int = 0
    """Chat requests that were answered, but for those that try a field which is ignored."""
    tokenised: int = 0
    token_requests: list[dict[str, Any]] = field(default_factory=list)
    """What came with `logprob_token_ids`, whatever became of it."""
    score_requests: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    orders: list[list[int]] = field(default_factory=list)
    """Of every answer: the whole vocabulary, likeliest first."""


def app(serving: Serving) -> FastAPI:
    """Return the endpoints."""
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    processor = AutoProcessor.from_pretrained(serving.model)
    model = Qwen2VLForConditionalGeneration.from_pretrained(serving.model)
    lock = threading.Lock()
    made = FastAPI()

    def allow(request: Request) -> None:
        given = request.headers.get("Authorization")
        if serving.key and given != f"Bearer {serving.key}":
            raise HTTPException(401, f"Incorrect key: {given}")

    @made.post("/v1/chat/completions")
    def complete(body: dict[str, Any], request: Request) -> dict[str, Any]:
        allow(request)
        if "logprob_token_ids" in body:
            serving.token_requests.append(body)
            if serving.takes_tokens not in (True, False):
                key = request.headers.get("Authorization", "")
                raise HTTPException(serving.takes_tokens, f"Unrecognized argument: logprob_token_ids ({key})")
        tried = "logprob_token_ids" in body and serving.takes_tokens is False
        if not tried:
            serving.bodies.append(body)
        text, pictures = _read(serving, body["messages"])
        inputs = processor(text=[text], **({"images": pictures} if pictures else {}), return_tensors="pt")
        with lock, torch.inference_mode():
            logprobs = model(**inputs).logits[0, -1].log_softmax(-1)
        if not tried:
            serving.scored += 1
            serving.orders.append(logprobs.argsort(descending=True).tolist())
        count = min(body["top_logprobs"], serving.top or body["top_logprobs"], len(logprobs))
        values, ids = logprobs.topk(count)
        numbers = serving.numbers
        if serving.takes_tokens is True and "logprob_token_ids" in body:
            assert body["logprobs"] is True
            asked = [int(ids[0]), *(i for i in body["logprob_token_ids"] if i != int(ids[0]))]
            if len(serving.token_requests) > 1 and serving.drops in asked:
                asked.remove(serving.drops)
            ids, numbers = torch.tensor(asked), body["return_tokens_as_token_ids"]
            values = logprobs[ids]
        alternatives = [
            {"token": f"token_id:{i}" if numbers else processor.tokenizer.decode([i]), "logprob": v}
            for v, i in zip(values.tolist(), ids.tolist(), strict=True)
        ]
        first = {**alternatives[0], "top_logprobs": alternatives}
        choice = {"index": 0, "message": {"role": "assistant", "content": alternatives[0]["token"]},
                  "logprobs": {"content": [first]}, "finish_reason": "length"}  # fmt: skip
        usage = {"prompt_tokens": int(inputs["input_ids"].shape[1]), "completion_tokens": 1}
        return {"choices": [choice], "usage": usage}

    @made.post("/v1/completions")
    def echo(body: dict[str, Any], request: Request) -> Response:
        allow(request)
        serving.text_requests.append(body)
        if serving.echoes not in (True, False):
            raise HTTPException(serving.echoes, "echo is not supported with logprobs")
        assert (body["max_tokens"], body["temperature"], body["logprobs"]) == (1, 0, 1)
        prompt = body["prompt"]
        with lock, torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([prompt])).logits[0].log_softmax(-1)
        tokens = [*prompt, int(logprobs[-1].argmax())]
        values: list[float | None] = [
            None,
            *(float(row[token]) for row, token in zip(logprobs, tokens[1:], strict=True)),
        ]
        if not (body["echo"] and serving.echoes):
            tokens, values = tokens[-1:], values[-1:]
        numbered = body["return_tokens_as_token_ids"] and serving.names
        names = [f"token_id:{token}" if numbered else processor.tokenizer.decode([token]) for token in tokens]
        told = {"tokens": names, "token_logprobs": values, "text_offset": [0] * len(names)}
        serving.spoil(told)
        answer = {"choices": [{"index": 0, "text": "", "logprobs": told, "finish_reason": "length"}],
                  "usage": {"prompt_tokens": len(prompt) + serving.reads, "completion_tokens": 1}}  # fmt: skip
        return Response(json.dumps(answer), media_type="application/json")  # which may hold NaN, as vLLM's does

    @made.post("/v1/score")
    def score(body: dict[str, Any], request: Request) -> dict[str, Any]:
        allow(request)
        serving.score_requests.append(body)
        if serving.scores is not True:
            raise HTTPException(serving.scores or 404, "no scores here")
        assert body["apply_softmax"] is body["item_first"] is False
        around = [] if serving.delimiter is None else [serving.delimiter]
        rows = [[*body["query"], *around, *item, *around] for item in body["items"]]
        with lock, torch.inference_mode():
            found = [model(input_ids=torch.tensor([row])).logits[0, -1].softmax(-1) for row in rows]
        scores = [row[torch.tensor(body["label_token_ids"])].tolist() for row in found]
        return {"scores": scores, "model": body["model"], "usage": None, "object": "scoring"}

    @made.post("/tokenize")
    def tokenise(body: dict[str, Any], request: Request) -> dict[str, Any]:
        allow(request)
        if serving.tokenise != 200:
            raise HTTPException(serving.tokenise, "prompt: field required")
        serving.tokenised += 1
        assert body["add_generation_prompt"] is True
        ids = processor.tokenizer.encode(_read(serving, body["messages"])[0], add_special_tokens=False)
        return {"count": len(ids), "max_model_len": 2048, "tokens": ids}

    return made


def _read(serving: Serving, messages: list[dict[str, Any]]) -> tuple[str, list[Image.Image]]:
    """Return the prompt as the chat template of Qwen2-VL writes it, one token a picture, and the pictures."""
    pictures, parts = [], []
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": serving.system}, *messages]
    for message in messages:
        content = message["content"]
        said = ""
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            if part["type"] == "text":
                said += part["text"]
                continue
            said += _PICTURE
            data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
            pictures.append(Image.open(io.BytesIO(data)).convert("RGB"))
        parts.append(f"<|im_start|>{message['role']}\n{said}<|im_end|>\n")
    return "".join(parts) + "<|im_start|>assistant\n", pictures


@contextlib.contextmanager
def serving(model: Path, **behaviour: Any) -> Iterator[Serving]:
    """Serve on a free loopback port until the block ends."""
    served = Serving(model, **behaviour)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app(served), host="127.0.0.1", port=port, log_level="critical"))
    served.url = f"http://127.0.0.1:{port}/v1"
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    ends = time.monotonic() + _STARTING_S
    while not server.started:
        assert time.monotonic() < ends, "the server did not start"
        time.sleep(0.01)
    try:
        yield served
    finally:
        server.should_exit = True
        thread.join(timeout=10)
