"""flash-attention and Liger: refused where a training would end or do without them, on where they are known."""

import json
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.llamafactory import kernels
from msr_adapter.llamafactory.families import FAMILIES
from msr_adapter.llamafactory.installed import flash_attention_needs_sinks, liger_types
from msr_adapter.llamafactory.kernels import (
    LIGER_SEEN,
    LIGER_TYPES,
    check_kernels,
    liger_arguments,
    liger_note,
)
from msr_adapter.llamafactory.training_yaml import training_config
from msr_adapter.pipeline.checks import check
from tests.support.tiny_models import tiny_model
from tests.support.tiny_run import stages, train_config


def written(folder: Path, model_type: str) -> TrainConfig:
    """Return a training of a model whose files say no more than its type."""
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, "architectures": ["X"]}))
    return TrainConfig.model_validate({"model": {"path": str(folder), "template": "llama3"}})


def versions(monkeypatch: pytest.MonkeyPatch, **found: str) -> None:
    known = {"transformers": "5.6.0", **{name.replace("_", "-"): version for name, version in found.items()}}
    monkeypatch.setattr(kernels, "installed", lambda name: known.get(name, ""))


def test_the_table_is_llamafactorys_own() -> None:
    assert liger_types() == LIGER_TYPES
    assert {family.model_type for family in FAMILIES} & LIGER_TYPES == LIGER_SEEN


def test_flash_attention_ends_as_its_source_says() -> None:
    """The fault is looked for in the source; here the function itself is called, as an attention layer calls it."""
    import torch
    from transformers.integrations.flash_attention import flash_attention_forward

    layer = torch.nn.Linear(4, 4)
    layer.is_causal, layer.config = True, type("Config", (), {"_attn_implementation": "flash_attention_2"})()
    states = torch.zeros(1, 1, 3, 4, dtype=torch.bfloat16)
    with pytest.raises(Exception) as caught:  # noqa: PT011  # without a GPU it ends in any case
        flash_attention_forward(layer, states, states, states, None)
    crashed = "'NoneType' object has no attribute 'to'" in str(caught.value)
    assert crashed == flash_attention_needs_sinks()


def pipeline(folder: Path, *sets: str) -> LoadedPipeline:
    (folder / "p.yaml").write_text(
        "name: p\ndata: {source: {kind: synthetic, users: 20, items: 40}}\n"
        "summarize: {items: {model: {path: no, backend: scripted}}, users: {model: {path: no, backend: scripted}}}\n"
        "train: {model: {path: tiny}}\nevaluate: {protocol: next-item, baselines: [popularity]}\n"
    )
    return load_pipeline(str(folder / "p.yaml"), sets, folder / "run")


@pytest.mark.parametrize(("value", "said"), [("fa2", "attention sinks"), ("fa3", "only for gpt-oss")])
def test_check_refuses_flash_attention_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, said: str
) -> None:
    monkeypatch.setattr(kernels, "flash_attention_needs_sinks", lambda: True)
    [problem] = check(pipeline(tmp_path, f"train.overrides.flash_attn={value}"))
    assert (problem.field, problem.allowed) == ("train.overrides.flash_attn", "auto or sdpa")
    assert value in problem.found
    assert said in problem.found
    assert check(pipeline(tmp_path, "train.overrides.flash_attn=sdpa")) == []
    made = stages()
    with pytest.raises(UserError, match=said):
        training_config(train_config(overrides={"flash_attn": value}), made.data, made.dataset, tmp_path, 0)


def test_a_transformers_without_the_fault_takes_fa2_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = train_config(overrides={"flash_attn": "fa2"})
    monkeypatch.setattr(kernels, "flash_attention_needs_sinks", lambda: False)
    monkeypatch.setattr(kernels, "find_spec", lambda _: None)
    [problem] = check_kernels(asked)
    assert "flash-attn is not installed" in problem.found
    monkeypatch.setattr(kernels, "find_spec", lambda _: object())
    assert check_kernels(asked) == []


def test_gemma_2_takes_it_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "flash_attention_needs_sinks", lambda: True)
    monkeypatch.setattr(kernels, "find_spec", lambda _: object())
    gemma = written(tmp_path, "gemma2")
    [problem] = check_kernels(gemma)
    assert "Gemma 2" in problem.found
    assert check_kernels(gemma.model_copy(update={"overrides": {"flash_attn": "disabled"}})) == []
    assert check_kernels(train_config()) == []


@pytest.mark.parametrize("family", [family for family in FAMILIES if family.model_type in LIGER_SEEN], ids=str)
def test_liger_is_on_for_the_families_that_it_was_tried_with(family: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, liger_kernel="0.8.5")
    asked = TrainConfig.model_validate({"model": {"path": str(tiny_model(family.name))}})
    assert liger_arguments(asked, cuda=True) == {"enable_liger_kernel": True}
    assert liger_note(asked, cuda=True).startswith("Liger kernels: on (liger-kernel 0.8.5")
    assert liger_arguments(asked, cuda=False) == {}


@pytest.mark.parametrize(("settings", "found", "why"), [
    ({}, "", "liger-kernel is not installed; pip install"), ({}, "0.7.0", "0.7.0 is older than 0.8.0"),
    ({"objective": "dpo"}, "0.8.5", "the objective is dpo"),
    ({"launch": {"strategy": "zero-3"}}, "0.8.5", "zero-3 splits between processes"),
    ({"launch": {"strategy": "fsdp"}}, "0.8.5", "fsdp splits between processes"),
])  # fmt: skip
def test_why_liger_is_off(settings: dict[str, Any], found: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, **({"liger_kernel": found} if found else {}))
    asked = TrainConfig.model_validate({"model": {"path": str(tiny_model("qwen2_vl"))}, **settings})
    assert liger_arguments(asked, cuda=True) == {}
    assert why in liger_note(asked, cuda=True)
    assert liger_note(asked, cuda=False) == "Liger kernels: off (there is no GPU here)"


def test_a_model_that_liger_was_not_tried_with_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, liger_kernel="0.8.5")
    for name in ("qwen3_vl", "llava_next", "internvl", "mixtral"):
        assert f"{name} is not among" in liger_note(written(tmp_path, name), cuda=True)
    absent = TrainConfig.model_validate({"model": {"path": "no/such", "template": "llama3"}})
    assert "not on this machine" in liger_note(absent, cuda=True)


def asked_for(train: TrainConfig) -> list[Problem]:
    return check_kernels(train.model_copy(update={"overrides": {"enable_liger_kernel": True}}))


def test_liger_is_refused_where_llamafactory_would_go_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions(monkeypatch, liger_kernel="0.8.5")
    for name in ("qwen3_vl", "llava_next", "internvl"):
        [problem] = asked_for(written(tmp_path, name))
        assert f"no Liger kernels for {name}" in problem.found
    assert asked_for(written(tmp_path, "mixtral")) == []  # at the user's own risk
    versions(monkeypatch)
    [problem] = asked_for(written(tmp_path, "qwen2"))
    assert "not installed" in problem.found
    assert "liger-kernel>=0.8.0" in problem.next_step


def test_the_overrides_have_the_last_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from msr_adapter.llamafactory.nodes import ONE_PROCESS

    versions(monkeypatch, liger_kernel="0.8.5")
    made, gpu = stages(), ONE_PROCESS.__class__(gpus=1)

    def arguments(**overrides: bool) -> dict[str, object]:
        return training_config(train_config(overrides=overrides), made.data, made.dataset, tmp_path, 0, gpu)

    assert arguments()["enable_liger_kernel"] is True
    assert arguments(enable_liger_kernel=False)["enable_liger_kernel"] is False
    assert "(train.overrides" in liger_note(train_config(overrides={"enable_liger_kernel": False}), cuda=True)
    on_a_processor = training_config(train_config(), made.data, made.dataset, tmp_path, 0)
    assert "enable_liger_kernel" not in on_a_processor
