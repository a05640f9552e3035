"""One `vllm.LLM` in this process: how it is started, asked, and what is raised when it dies."""

import contextlib
import importlib
import os
from dataclasses import dataclass
from typing import Any

from msr_adapter.backends.vllm.adapters import EngineWeights
from msr_adapter.backends.vllm.installed import require_version, sees_gpu
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.generation.request import EngineLostError, Image
from msr_adapter.llamafactory.model_weights import is_small
from msr_adapter.redaction import quoted

_MEMORY = 0.9
"""Part of a GPU's memory that an engine takes; the rest is for what the driver and torch need beside it."""
_LABEL_TOKENS = 256
"""Tokens whose log-probabilities one request may ask for, at most."""
_ENVIRONMENT = {
    # The engine lives in this process, a worker, which is replaced when it dies: one process less to lose.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    # Standard output belongs to results.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
_CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB: a worker of a small model needs no more
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else several workers bind themselves to the same cores
}


@dataclass(frozen=True)
class EngineShare:
    """The part of this machine's GPUs that one engine has."""

    gpus: int = 1
    """Over which its tensors are split."""
    memory: float = 1.0
    """Part of each GPU's memory."""


@dataclass(frozen=True)
class EngineSetup:
    """What an engine is started with, beside its model."""

    weights: EngineWeights
    share: EngineShare
    stop_ids: tuple[int, ...]
    """Tokens that end a text."""
    images: int
    """Images that one prompt may show; 0: the model sees none."""


@dataclass(frozen=True)
class EnginePrompt:
    """A prompt as vLLM takes it: one token for each image, and the images."""

    ids: list[int]
    images: tuple[Image, ...] = ()
    pixels: tuple[Any, ...] = ()
    """The images, shrunk (Pillow)."""
    label_tokens: tuple[int, ...] = ()
    """Tokens whose log-probabilities at the first place are asked for; empty: greedy text, unless tokens are scored."""
    max_new_tokens: int = 1
    scored: tuple[int, ...] = ()
    """The last tokens of ``ids``, an answer whose own log-probabilities are asked for; empty: none is."""


@dataclass(frozen=True)
class EngineAnswer:
    """What came back for one prompt."""

    prompt_ids: list[int]
    """The prompt with all tokens of its images."""
    cached: int
    """Tokens of it that were computed for an earlier prompt."""
    ids: list[int]
    """The text, with the stop token at its end if there was one."""
    logprobs: dict[int, float]
    """Label token -> log-probability over the whole vocabulary."""
    scored: tuple[float, ...] = ()
    """Log-probability of each token of the answer that ended the prompt, after the ones before it."""


class Engine:
    """One engine. Raises `EngineLostError` when it dies; a prompt that it does not take is a `ValueError`."""

    def __init__(self, model: ModelConfig, setup: EngineSetup) -> None:
        """Start it (a minute or so). Raises `StageError` where vLLM cannot load the model, `UserError` without vLLM."""
        require_version()
        prepare_environment(model)
        self._vllm = importlib.import_module("vllm")
        self._dead = importlib.import_module("vllm.v1.engine.exceptions").EngineDeadError
        self._stop_ids = list(setup.stop_ids)
        self._lora, lora = None, setup.weights.lora
        if lora is not None:
            request = importlib.import_module("vllm.lora.request").LoRARequest
            self._lora = request("trained", 1, str(lora.resolve()))
        try:
            self._llm = self._vllm.LLM(**engine_arguments(model, setup))
        except Exception as error:
            raise StageError(
                f"vLLM cannot load {setup.weights.folder}: {type(error).__name__}: {quoted(error)}",
                "this version of vLLM does not know the architecture, or there is too little memory",
                "set backend: huggingface, or look at the log of the worker",
            ) from error
        self._waiting: dict[str, tuple[int, tuple[int, ...]]] = {}
        """Name of a prompt -> its number, and the tokens of it that are scored."""

    def add(self, number: int, prompt: EnginePrompt) -> None:
        """Hand over a prompt, which `step` will answer by its ``number``. Raises `ValueError` if it is not taken."""
        asked, params = self._prompt(prompt), self._params(prompt)
        try:
            [added] = self._llm.enqueue([asked], [params], lora_request=self._lora, use_tqdm=False)
        except self._dead as error:
            raise _lost(error) from error
        except Exception as error:
            # Nothing is computed yet: it is this prompt that vLLM does not take, too long a one or an odd image.
            raise ValueError(f"vLLM does not accept it: {type(error).__name__}: {quoted(error)}") from error
        # A version may add something of its own to the number that its answers bear.
        self._waiting[added.partition("-")[0]] = number, prompt.scored

    def step(self) -> list[tuple[int, EngineAnswer]]:
        """Compute one step; return the prompts that are done with it, and their answers.

        Raises `StageError` where tokens were to be scored, and log-probabilities of others came back.
        """
        try:
            outputs = self._llm.llm_engine.step()
        except Exception as error:
            raise _lost(error) from error
        done = [(self._waiting.pop(str(one.request_id)), one) for one in outputs if one.finished]
        return [(number, _answer(one, scored)) for (number, scored), one in done]

    def abort(self) -> None:
        """Drop all prompts under way."""
        if waiting := self._waiting:
            self._waiting = {}
            with contextlib.suppress(Exception):  # a dead engine has none
                self._llm.llm_engine.abort_request(list(waiting), internal=False)

    def close(self) -> None:
        """End it and let its memory go."""
        with contextlib.suppress(Exception):  # what it is made of differs between versions
            self._llm.llm_engine.engine_core.shutdown()
        del self._llm

    @property
    def busy(self) -> bool:
        """Whether prompts are under way."""
        return bool(self._waiting)

    def _prompt(self, prompt: EnginePrompt) -> dict[str, Any]:
        asked: dict[str, Any] = {"prompt_token_ids": prompt.ids}
        if prompt.images:
            # An image is known by its digest: shown by many prompts, it is processed and encoded once.
            asked["multi_modal_data"] = {"image": list(prompt.pixels)}
            asked["multi_modal_uuids"] = {"image": [image.digest for image in prompt.images]}
        return asked

    def _params(self, prompt: EnginePrompt) -> Any:
        if prompt.label_tokens:
            tokens = list(prompt.label_tokens)
            return self._vllm.SamplingParams(
                temperature=0.0, max_tokens=1, logprobs=len(tokens), logprob_token_ids=tokens, detokenize=False
            )
        if prompt.scored:
            # 0 alternatives beside each token of the prompt. One token has to be written in any case.
            return self._vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        # The template's own stop tokens, and no others: the model's generation config may name some, or sample.
        return self._vllm.SamplingParams(
            temperature=0.0, max_tokens=prompt.max_new_tokens, stop_token_ids=self._stop_ids, ignore_eos=True,
            detokenize=False,
        )  # fmt: skip


def prepare_environment(model: ModelConfig) -> None:
    """Set what vLLM reads from the environment when it is imported; what is set there already stays."""
    settings = dict(_ENVIRONMENT)
    if not sees_gpu():
        settings |= _CPU_ENVIRONMENT
        if is_small(model):
            settings["OMP_NUM_THREADS"] = "1"
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def engine_arguments(model: ModelConfig, setup: EngineSetup) -> dict[str, Any]:
    """Return the arguments of `vllm.LLM`."""
    weights, share = setup.weights, setup.share
    found: dict[str, Any] = {
        "model": weights.folder, "dtype": model.dtype, "seed": 0, "max_model_len": -1, "max_logprobs": _LABEL_TOKENS,
        "logprobs_mode": "raw_logprobs", "generation_config": "vllm", "enable_prefix_caching": True,
        "disable_log_stats": True, "tensor_parallel_size": share.gpus,
        "gpu_memory_utilization": round(_MEMORY * share.memory, 3),
    }  # fmt: skip
    if model.revision is not None and weights.folder == model.path:
        found |= {"revision": model.revision, "tokenizer_revision": model.revision}
    if setup.images:
        found["limit_mm_per_prompt"] = {"image": setup.images, "video": 0}
    if weights.lora is not None:
        found |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": weights.lora_rank}
    if model.batch_size != "auto":
        found["max_num_seqs"] = model.batch_size
    if not sees_gpu():
        # Compiling and profiling take minutes on a processor, and gain nothing for models that fit one.
        found |= {"enforce_eager": True, "tensor_parallel_size": 1}
        if setup.images:
            found["skip_mm_profiling"] = True
    return found


def _answer(output: Any, scored: tuple[int, ...]) -> EngineAnswer:
    completion = output.outputs[0]
    first = completion.logprobs[0] if completion.logprobs else {}
    return EngineAnswer(
        list(output.prompt_token_ids), output.num_cached_tokens or 0, list(completion.token_ids),
        {int(token): float(found.logprob) for token, found in first.items()}, _scored_logprobs(output, scored),
    )  # fmt: skip


def _scored_logprobs(output: Any, scored: tuple[int, ...]) -> tuple[float, ...]:
    """Return the log-probabilities of the tokens that end a prompt. Raises `StageError` where others end it.

    Counted from the end: before them, one token of an image has become many.
    """
    if not scored:
        return ()
    length, told = len(output.prompt_token_ids), output.prompt_logprobs or ()
    ends = list(output.prompt_token_ids[-len(scored) :]) == list(scored) and len(told) == length
    found = list(told)[-len(scored) :] if ends else []
    if not ends or not all(place and token in place for token, place in zip(scored, found, strict=True)):
        raise StageError(
            f"vLLM tells the log-probabilities of other tokens than those asked for: of {len(told)} in a prompt of "
            f"{length}, which has to end with an answer of {len(scored)}",
            "this version tells log-probabilities of prompts (prompt_logprobs) differently", "set backend: huggingface",
        )  # fmt: skip
    return tuple(float(place[token].logprob) for token, place in zip(scored, found, strict=True))


def _lost(error: Exception) -> EngineLostError:
    return EngineLostError(
        f"the vLLM engine died: {type(error).__name__}: {quoted(error)}",
        "the device failed or ran out of memory",
        "run the same command again: what was answered is kept; or set backend: huggingface",
    )
