"""An adapter, and a model's weights, are loaded whole or not at all."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import UserError
from msr_adapter.files import bundled_model
from msr_adapter.llamafactory.family_recognition import resolve_template
from msr_adapter.llamafactory.fitting_weights import require_fitting_adapters
from msr_adapter.llamafactory.model_weights import Weights
from msr_adapter.llamafactory.prompt_encoder import Encoder

Tensors = dict[str, Any]


def tiny(**settings: object) -> ModelConfig:
    return resolve_template(ModelConfig.model_validate({"path": "tiny", "dtype": "float32", **settings}))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    folder = tmp_path_factory.mktemp("adapter")
    network = AutoModelForImageTextToText.from_pretrained(bundled_model("tiny"))
    get_peft_model(network, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])).save_pretrained(folder)
    return folder


def rename(tensors: Tensors) -> Tensors:
    return {name.replace("self_attn", "attention"): tensor for name, tensor in tensors.items()}


def half(tensors: Tensors) -> Tensors:
    return dict(list(tensors.items())[::2])


def spoiled(folder: Path, out: Path, file: str, change: Callable[[Tensors], Tensors]) -> Path:
    shutil.copytree(folder, out)
    save_file(change(load_file(folder / file)), out / file, {"format": "pt"})
    return out


def test_what_fits_is_loaded(adapter: Path) -> None:
    require_fitting_adapters(tiny(), None, (adapter, adapter))
    Encoder(tiny(adapter=adapter), Weights()).load_model()


@pytest.mark.parametrize(("change", "said"), [
    (rename, r"\d+ tensors missing \(.*lora_A.* and \d+ tensors matching nothing in the model \(.*attention"),
    (half, r"\d+ tensors missing"),
])  # fmt: skip
def test_an_adapter_that_does_not_fit_is_refused_by_backends_and_before_a_training(
    change: Callable[[Tensors], Tensors], said: str, adapter: Path, tmp_path: Path
) -> None:
    bad = spoiled(adapter, tmp_path / "bad", "adapter_model.safetensors", change)
    with pytest.raises(UserError, match=said):
        require_fitting_adapters(tiny(), None, (bad,))
    with pytest.raises(UserError, match=said):
        Encoder(tiny(), Weights(adapters=(bad,))).load_model()


def test_an_adapter_for_other_layers_is_refused(adapter: Path, tmp_path: Path) -> None:
    bad = spoiled(adapter, tmp_path / "bad", "adapter_model.safetensors", rename)
    config = json.loads((bad / "adapter_config.json").read_text())
    (bad / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["attention_of_others"]}))
    with pytest.raises(UserError, match=r"do not fit the model: .*attention_of_others"):
        require_fitting_adapters(tiny(), None, (bad,))


def test_a_full_model_with_missing_or_other_tensors_is_refused(tmp_path: Path) -> None:
    whole = bundled_model("tiny")
    assert whole is not None
    Encoder(tiny(), Weights(full=whole)).load_model()
    short = spoiled(whole, tmp_path / "short", "model.safetensors", half)
    with pytest.raises(UserError, match="tensors missing"):
        Encoder(tiny(path=str(short)), Weights()).load_model()
    more = spoiled(whole, tmp_path / "more", "model.safetensors",
                   lambda tensors: {**tensors, "model.extra.weight": next(iter(tensors.values())).clone()})  # fmt: skip
    with pytest.raises(UserError, match=r"1 tensor matching nothing in the model \(.*extra.weight\)"):
        Encoder(tiny(), Weights(full=more)).load_model()
