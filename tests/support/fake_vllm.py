"""A module that looks like vLLM and answers through transformers: signatures are vLLM's own, as the slow test checks.

`install` puts it where `import vllm` finds it. `FAULTS` says what goes wrong in engines that are started afterwards.
"""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

VERSION = "0.23.0"
PATCHES_PER_TOKEN = 4


@dataclass
class Faults:
    """What goes wrong, and what was seen."""

    shift: float = 0.0
    """Added to the log-probability of the first label token asked for, and of the last token of a prompt."""
    forgets_prompts: bool = False
    """Log-probabilities of prompts do not come back."""
    other_prompt: bool = False
    """Prompts with an image have one token more than was meant."""
    deaths: int = 0
    """Steps that kill an engine, in all."""
    longest: int = 2_048
    load_error: str = ""
    engines: list[dict[str, Any]] = field(default_factory=list)
    """Arguments of every engine started."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Every prompt, with its parameters and its adapter."""
    together: list[int] = field(default_factory=list)
    """Prompts under way at each step."""


FAULTS = Faults()


class EngineDeadError(Exception):
    """As `vllm.v1.engine.exceptions.EngineDeadError`."""


@dataclass
class SamplingParams:
    """As `vllm.SamplingParams`, as far as it is used."""

    temperature: float = 1.0
    max_tokens: int | None = 16
    logprobs: int | None = None
    logprob_token_ids: list[int] | None = None
    prompt_logprobs: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    detokenize: bool = True


@dataclass(frozen=True)
class LoRARequest:
    """As `vllm.lora.request.LoRARequest`."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""


@dataclass
class _Row:
    name: str
    prompt: list[int]
    image: dict[str, Any]
    params: SamplingParams
    answer: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Any]] | None = None
    prompt_logprobs: list[dict[int, Any] | None] | None = None


class LLM:
    """As `vllm.LLM`: it is its own `llm_engine` too."""

    def __init__(self, model: str, **arguments: Any) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        if FAULTS.load_error:
            raise RuntimeError(FAULTS.load_error)
        FAULTS.engines.append({"model": model, **arguments})
        self.llm_engine = self
        self._network = AutoModelForImageTextToText.from_pretrained(model, dtype=arguments["dtype"]).eval()
        self._processor = AutoProcessor.from_pretrained(model)
        self._rows: list[_Row] = []
        self._count = 0

    def enqueue(
        self,
        prompts: Sequence[dict[str, Any]],
        sampling_params: Sequence[SamplingParams] | None = None,
        lora_request: Any = None,
        priority: list[int] | None = None,
        use_tqdm: bool = True,
        tokenization_kwargs: dict[str, Any] | None = None,
        mm_processor_kwargs: dict[str, Any] | None = None,
    ) -> list[str]:
        assert sampling_params is not None
        [prompt], [params] = prompts, sampling_params
        FAULTS.asked.append({**prompt, "params": params, "lora": lora_request})
        ids, image = list(prompt["prompt_token_ids"]), {}
        shown = len(prompt.get("multi_modal_data", {}).get("image", ()))
        if shown > (most := FAULTS.engines[-1]["limit_mm_per_prompt"]["image"]):
            raise ValueError(f"At most {most} image(s) may be provided in one prompt.")
        if "multi_modal_data" in prompt:
            ids, image = self._expanded(ids, prompt["multi_modal_data"]["image"])
        if len(ids) > FAULTS.longest:
            raise ValueError(f"the prompt has {len(ids)} tokens, at most {FAULTS.longest} are allowed")
        name = str(self._count)
        self._count += 1
        self._rows.append(_Row(name, ids, image, params))
        return [f"{name}-1a2b3c4d"]

    def step(self) -> list[Any]:
        if FAULTS.deaths:
            FAULTS.deaths -= 1
            raise EngineDeadError("EngineCore encountered an issue")
        FAULTS.together.append(len(self._rows))
        done = [row for row in self._rows if self._advance(row)]
        self._rows = [row for row in self._rows if row not in done]
        return [_output(row) for row in done]

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        self._rows = [row for row in self._rows if row.name not in request_ids]

    def _expanded(self, ids: list[int], images: Sequence[Any]) -> tuple[list[int], dict[str, Any]]:
        made = self._processor.image_processor(images=list(images), return_tensors="pt")
        token, found, grids = self._network.config.image_token_id, list[int](), made["image_grid_thw"].tolist()
        for one in ids:
            tokens = 1
            if one == token:
                depth, height, width = grids.pop(0)
                tokens = depth * height * width // PATCHES_PER_TOKEN
            found += [one] * tokens
        return found, dict(made)

    def _advance(self, row: _Row) -> bool:
        import torch

        ids = torch.tensor([row.prompt + row.answer])
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if row.image:
            given |= row.image | {"mm_token_type_ids": (ids == self._network.config.image_token_id).int()}
        with torch.inference_mode():
            everywhere = self._network(**given).logits[0].float().log_softmax(-1)
        if row.params.prompt_logprobs is not None and row.prompt_logprobs is None and not FAULTS.forgets_prompts:
            row.prompt_logprobs = _told_of_prompt(row.prompt, everywhere, row.params.prompt_logprobs)
        logprobs = everywhere[-1]
        row.answer.append(int(logprobs.argmax()))
        if row.params.logprob_token_ids:
            values = {token: float(logprobs[token]) for token in row.params.logprob_token_ids}
            values[row.params.logprob_token_ids[0]] += FAULTS.shift
            values.setdefault(row.answer[-1], float(logprobs.max()))
            row.logprobs = [{token: SimpleNamespace(logprob=value) for token, value in values.items()}]
        return row.answer[-1] in (row.params.stop_token_ids or ()) or len(row.answer) == row.params.max_tokens


def _output(row: _Row) -> Any:
    prompt = row.prompt + row.prompt[-1:] * bool(row.image and FAULTS.other_prompt)
    completion = SimpleNamespace(token_ids=row.answer, logprobs=row.logprobs)
    return SimpleNamespace(
        request_id=row.name, finished=True, prompt_token_ids=prompt, outputs=[completion], num_cached_tokens=0,
        prompt_logprobs=row.prompt_logprobs,
    )  # fmt: skip


def _told_of_prompt(prompt: Sequence[int], logprobs: Any, alternatives: int) -> list[dict[int, Any] | None]:
    """Return what vLLM tells of a prompt: nothing of its first token, then each with its likeliest alternatives."""
    told: list[dict[int, Any] | None] = [None]
    for place, token in enumerate(prompt[1:]):
        known = [token, *logprobs[place].topk(alternatives).indices.tolist()]
        told.append({one: SimpleNamespace(logprob=float(logprobs[place, one])) for one in known})
    told[-1][prompt[-1]].logprob += FAULTS.shift  # type: ignore[index]
    return told


def install(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Have `import vllm` find this module, and everything take it for installed; return fresh faults."""
    # Libraries of the trainer look for vLLM when they are imported, and are to find none.
    importlib.import_module("llamafactory.model")
    fresh = Faults()
    for name, value in vars(fresh).items():
        setattr(FAULTS, name, value)
    modules = {name: ModuleType(name) for name in ("vllm", "vllm.lora.request", "vllm.v1.engine.exceptions")}
    modules["vllm"].__dict__.update(LLM=LLM, SamplingParams=SamplingParams)
    modules["vllm.lora.request"].__dict__["LoRARequest"] = LoRARequest
    modules["vllm.v1.engine.exceptions"].__dict__["EngineDeadError"] = EngineDeadError
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("msr_adapter.backends.vllm.installed.installed_version", lambda: VERSION)
    # What an engine sets in the environment ends with the test.
    for name in ("VLLM_ENABLE_V1_MULTIPROCESSING", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    return FAULTS
