"""How a training computes where the pipeline leaves it open: by the machine, the model and the longest row."""

from typing import Any

import pytest

from msr_adapter.config.schema import TrainConfig
from msr_adapter.llamafactory import device_defaults, memory_estimate
from msr_adapter.llamafactory.answer_logits import VARIABLE
from msr_adapter.llamafactory.device_defaults import (
    CHECKPOINTING,
    describe,
    trainer_environment,
    wants_answer_logits,
    with_device_defaults,
)
from msr_adapter.llamafactory.launcher import UNSET
from msr_adapter.llamafactory.memory_estimate import estimate, model_shape
from tests.support.tiny_models import tiny_model


def _train(**settings: Any) -> TrainConfig:
    model = {"path": str(tiny_model("smollm2")), **settings.pop("model", {})}
    return TrainConfig(model=model, **settings)


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take tiny models for large ones."""
    for module in (device_defaults, memory_estimate):
        monkeypatch.setattr(module, "is_small", lambda _: False)


def test_small_models_train_as_they_always_did() -> None:
    train = _train()
    decided = with_device_defaults(train, 200, cuda=False)
    assert decided == train
    assert decided.compute_dtype == "float32"
    assert trainer_environment(decided, cuda=False) == {}


@pytest.mark.usefixtures("large")
def test_a_large_model_on_a_processor() -> None:
    decided = with_device_defaults(_train(), 200, cuda=False)
    assert decided.compute_dtype == "float32"  # what changes the numbers is for the pipeline to say
    assert decided.overrides == {CHECKPOINTING: True}
    assert describe(decided, cuda=False).startswith("float32, gradient checkpointing off, logits at the answers alone")
    assert trainer_environment(decided, cuda=False) == {VARIABLE: "1"}
    assert with_device_defaults(decided, 200, cuda=False) == decided


@pytest.mark.usefixtures("large")
def test_what_the_pipeline_says_stands() -> None:
    asked = _train(precision="bfloat16", overrides={CHECKPOINTING: False})
    assert with_device_defaults(asked, 200, cuda=False) == asked
    assert asked.compute_dtype == "bfloat16"
    halves = _train(model={"dtype": "bfloat16"}, overrides={CHECKPOINTING: True})
    assert with_device_defaults(halves, 200, cuda=False) == halves
    assert halves.compute_dtype == "bfloat16"


@pytest.mark.usefixtures("large")
def test_a_gpu_keeps_checkpointing_and_all_logits() -> None:
    train = _train()
    assert with_device_defaults(train, 200, cuda=True) == train
    assert trainer_environment(train, cuda=True) == {}


@pytest.mark.usefixtures("large")
def test_checkpointing_stays_on_where_activations_would_take_more_than_half_of_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = _train()
    shape = model_shape(train.model)
    assert shape is not None
    off = train.model_copy(update={"overrides": {CHECKPOINTING: True}})
    needed = estimate(off, shape, 4000, 0).memory
    for memory, expected in ((2 * needed, {CHECKPOINTING: True}), (2 * needed - 2, {})):
        # Free memory, the second number, decides nothing: a training that goes on goes on alike.
        monkeypatch.setattr(device_defaults, "memory_bytes", lambda memory=memory: (memory, 0))
        assert with_device_defaults(train, 4000, cuda=False).overrides == expected


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    "settings",
    [{"train_on_prompt": True}, {"objective": "dpo"}, {"overrides": {"use_dft_loss": True}},
     {"overrides": {"enable_liger_kernel": True}}],
)  # fmt: skip
def test_losses_that_read_all_logits_keep_them(settings: dict[str, Any]) -> None:
    assert wants_answer_logits(_train(), cuda=False)
    assert not wants_answer_logits(_train(**settings), cuda=False)


def test_a_variable_of_the_caller_decides_nothing() -> None:
    assert VARIABLE in UNSET
