"""Trust by trial: some prompts of the run, answered by transformers, then by the engine, which has to answer alike."""

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from msr_adapter.backends.huggingface import encode, rows_at_once
from msr_adapter.backends.loaded_model import LoadedModel
from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.backends.vllm.engine import EngineAnswer
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.generation.request import Failure, Request
from msr_adapter.generation.scoring_stats import Trial
from msr_adapter.llamafactory.model_weights import Weights
from msr_adapter.redaction import quoted

PROMPTS = 4
"""Prompts with an image, and as many without one."""
TOLERANCE = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.5}
"""Largest difference by precision: of log-odds, or of the log-probability of one token of a text that is scored whole.
docs/engines.md has what was measured."""
_ALTERNATIVES = 5
"""Likeliest first tokens of a text whose log-odds are compared."""
_STEP = "set backend: huggingface, which is exact but slower, or use another version of vLLM"


@dataclass(frozen=True)
class ReferenceAnswer:
    """What transformers says of one prompt."""

    request: Request
    ids: list[int]
    """The prompt as training has it, images expanded; with a text that is scored whole at its end."""
    tokens: tuple[int, ...]
    """Label tokens, or the likeliest first ones of a text; or all of a text that is scored whole."""
    logprobs: tuple[float, ...]


def references(model: ModelConfig, weights: Weights, requests: Sequence[Request]) -> list[ReferenceAnswer]:
    """Return what transformers says of a few of ``requests``, spread over all; the model is gone again afterwards.

    On the GPU where it fits beside what is there, else on the CPU. Empty where no prompt can be encoded.
    """
    import torch

    try:
        return _references(model, weights, requests, "auto")
    except torch.OutOfMemoryError:
        pass
    finally:
        _release()
    return _references(model, weights, requests, "cpu")


def _references(
    model: ModelConfig, weights: Weights, requests: Sequence[Request], device: str
) -> list[ReferenceAnswer]:
    loaded = LoadedModel(model, weights, BatchSizer(rows_at_once(model)), device=device)
    found = []
    for shown in (True, False):
        some = _spread([request for request in requests if bool(request.images) is shown])
        answered = (_reference(loaded, request) for request in some)
        found += [one for one, _ in zip((each for each in answered if each), range(PROMPTS), strict=False)]
    return found


def _reference(loaded: LoadedModel, request: Request) -> ReferenceAnswer | None:
    ids = encode(loaded.encoder, request, request.label_words)
    if isinstance(ids, Failure):
        return None
    if request.whole:
        answer = loaded.encoder.scored_ids(request.choices[0], end=request.whole == "turn")
        told = loaded.answer_tokens(request, ids, answer)
        return ReferenceAnswer(request, [*ids, *answer], tuple(answer), tuple(told))
    logprobs = loaded.first_token(request, ids)
    if request.choices:
        tokens = [token for side in loaded.encoder.side_tokens(request.label_words) for token in side]
    else:
        tokens = logprobs.topk(min(_ALTERNATIVES, len(logprobs))).indices.tolist()
    return ReferenceAnswer(request, ids, tuple(tokens), tuple(logprobs[tokens].tolist()))


def _spread(requests: Sequence[Request]) -> Iterator[Request]:
    """Yield all requests, each of the first few far from those before it."""
    first = np.unique(np.linspace(0, len(requests) - 1, min(PROMPTS, len(requests))).astype(int)).tolist()
    yield from (requests[place] for place in first)
    yield from (request for place, request in enumerate(requests) if place not in set(first))


def compare(
    known: Sequence[ReferenceAnswer], answers: Sequence[EngineAnswer], model: ModelConfig, piece: Callable[[int], str]
) -> Trial:
    """Return how far the engine's log-odds, or log-probabilities of a text's tokens, are from those of transformers.

    ``piece`` names a token. Raises `StageError` for another prompt than the trained one, and for a difference that
    the precision does not explain, with the prompt.
    """
    allowed, worst, at = TOLERANCE[model.dtype], 0.0, 0
    for place, (one, answer) in enumerate(zip(known, answers, strict=True)):
        require_same_prompt(one.ids, answer.prompt_ids, piece)
        difference = _difference(one, answer)
        if not difference <= worst:
            worst, at = difference, place
    if not worst <= allowed:
        one = known[at]
        what = "log-probabilities of single tokens of the answers to" if one.request.whole else "log-odds of"
        raise StageError(
            f"vLLM answers differently from transformers: {what} {len(known)} prompts differ by up to {worst:.3g} "
            f"({allowed:g} is allowed in {model.dtype}), the most for: {quoted(one.request.prompt)}",
            "this version computes the model differently, or not with these weights", _STEP,
        )  # fmt: skip
    return Trial(len(known), worst, allowed)


def require_same_prompt(trained: Sequence[int], asked: Sequence[int], piece: Callable[[int], str]) -> None:
    """Raise `StageError` with the first difference where the engine made another prompt of the tokens it was given."""
    if list(trained) == list(asked):
        return
    pairs = enumerate(zip(trained, asked, strict=False))
    place = next((at for at, (one, other) in pairs if one != other), min(len(trained), len(asked)))
    one, other = (repr(piece(ids[place])) if place < len(ids) else "the end" for ids in (trained, asked))
    raise StageError(
        f"vLLM reads a different prompt from training: {len(asked)} tokens, not {len(trained)}, token {place + 1} is "
        f"{other}, not {one}",
        "this version shrinks images, or writes them into the prompt, differently", _STEP,
    )  # fmt: skip


def _difference(one: ReferenceAnswer, answer: EngineAnswer) -> float:
    """Return the largest difference between the log-odds of two tokens, or between the log-probabilities of one of a
    text's; NaN where a number is none, infinity where one is missing.

    Of a text, the log-probabilities themselves count: their sum is its likelihood, and nothing cancels in it.
    """
    if one.request.whole:
        return float(np.abs(np.array(answer.scored) - np.array(one.logprobs)).max())
    if any(token not in answer.logprobs for token in one.tokens):
        return np.inf
    apart = np.array([answer.logprobs[token] for token in one.tokens]) - np.array(one.logprobs)
    return float(apart.max() - apart.min())


def _release() -> None:
    """Give back the memory of a model that nothing refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
