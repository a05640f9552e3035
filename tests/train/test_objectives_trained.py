"""Real trainings by every objective and method: what they change, what they are compared with, what is then scored."""

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from msr_adapter.backends import make_backend
from msr_adapter.candidate_rows import CandidateRows
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import Request
from msr_adapter.llamafactory.model_weights import Weights, trained_weights
from msr_adapter.llamafactory.prompt_encoder import Encoder, collate
from msr_adapter.prompts import Prompts
from tests.support.objectives import data_for, logits, signs, train_here, train_many
from tests.support.tiny_run import model_ref, train_config, trained


# PEFT warns of a second adapter, although the first is merged and gone.
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_dpo_after_sft_learns_from_the_sft_model_and_all_of_it_is_scored() -> None:
    sft = trained("lora").out
    config = train_config(objective="dpo", start=sft.parent, max_steps=8, batch_size=8)
    done = train_here(config)
    log = [json.loads(line) for line in (done.out / "model" / "trainer_log.jsonl").read_text().splitlines()]
    # Before the first step the model is its own reference: the loss of a model on top of the base's would not be ln 2.
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert done.summary["last_loss"] < math.log(2)
    chain = trained_weights(done.out)
    assert chain == Weights(adapters=(sft / "model", done.out / "model"))
    before, after = (logits(config.model, weights) for weights in (trained_weights(sft), chain))
    assert (signs() * (after - before)).mean() > 0.5  # the right answers' odds rose
    alone = logits(config.model, Weights(adapters=(done.out / "model",)))
    assert np.abs(alone - after).max() > 0.1  # on the base, the same adapter is another model
    np.testing.assert_allclose(_merged_by_peft(chain), after, atol=2e-3)


def _merged_by_peft(weights: Weights) -> list[float]:
    """Return the same odds from transformers and PEFT alone, one prompt at a time."""
    import torch
    from peft import PeftModel
    from transformers import Qwen2VLForConditionalGeneration

    model, encoder = model_ref(), Encoder(model_ref())
    network = Qwen2VLForConditionalGeneration.from_pretrained(model.path)
    for folder in weights.adapters:
        network = PeftModel.from_pretrained(network, folder).merge_and_unload()
    collator, tokens = encoder.collator(network), list(encoder.answer_tokens(("Yes", "No")))
    made, found = data_for("sft"), []
    for row in CandidateRows(made.data, made.users, Prompts(), "train", images=True):
        images = [row.image.path] if row.image else []
        with torch.inference_mode():
            batch = collate(collator, [encoder.encode(row.prompt, images)], [images])
            yes, no = network.eval()(**batch).logits[0, -1, tokens].tolist()
        found.append(yes - no)
    return found


def test_kto_on_llava_moves_the_right_answers_up() -> None:
    config = train_config("llava", objective="kto", max_steps=8, batch_size=16)
    done = train_here(config)
    assert (done.out / "model" / "adapter_model.safetensors").stat().st_size > 0
    assert done.summary["rows"] == 88  # two of each candidate
    before, after = logits(config.model), logits(config.model, trained_weights(done.out))
    assert (signs() * (after - before)).mean() > 0.1


def weights_of(folder: Path) -> dict[str, "np.ndarray"]:
    from safetensors.numpy import load_file

    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def variants() -> dict[str, TrainConfig]:
    """Every method, every part, and a reward model, on tiny models."""
    vision = {"vision": False, "projector": False}
    return {
        "lora": train_config(), "dora": train_config(method="dora"), "rslora": train_config(method="rslora"),
        "qlora": train_config(method="qlora"),
        "lora-projector": train_config(freeze={"projector": False}),
        "lora-projector-llava": train_config("llava", freeze={"projector": False}),
        "lora-vision": train_config(freeze=vision),
        "lora-vision-qwen3": train_config("qwen3_vl_nothink", freeze=vision),
        "lora-vision-alone": train_config(freeze={"vision": False, "language": True}),
        "full": train_config(method="full"), "full-all": train_config(method="full", freeze=vision),
        "full-projector": train_config(method="full", freeze={"projector": False, "language": True}),
        "reward": train_config(objective="reward", max_steps=8, batch_size=8),
        "reward-full": train_config(objective="reward", method="full"),
        "orpo": train_config(objective="dpo", preference={"loss": "orpo"}),
        "prompt": train_config(train_on_prompt=True),
    }  # fmt: skip


@functools.cache
def models() -> dict[str, Path]:
    """Train all variants, once per process."""
    return train_many(variants())


def trained_tensors(name: str) -> set[str]:
    """Return the names of the tensors that a training changed or added, as the base model's are called."""
    folder = models()[name]
    error = folder.with_suffix(".error")
    assert not error.exists(), error.read_text()
    config = variants()[name]
    saved = weights_of(folder / "model")
    if config.method != "full":
        return set(saved)
    base = weights_of(Path(config.model.path))
    return {key for key, tensor in saved.items() if key not in base or not np.array_equal(tensor, base[key])}


def parts(names: set[str]) -> set[str]:
    """Return the parts of a model with images that tensors belong to."""
    projector = ("merger", "multi_modal_projector")
    return {
        "projector" if any(word in name for word in projector) else
        "vision" if "visual" in name or "vision" in name else
        "value head" if name.startswith("v_head") else "language"
        for name in names
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lora", {"language"}), ("dora", {"language"}), ("rslora", {"language"}), ("qlora", {"language"}),
        ("lora-projector", {"language", "projector"}), ("lora-projector-llava", {"language", "projector"}),
        ("lora-vision", {"language", "vision", "projector"}), ("lora-vision-alone", {"vision"}),
        ("lora-vision-qwen3", {"language", "vision", "projector"}),
        ("full", {"language"}), ("full-all", {"language", "vision", "projector"}), ("full-projector", {"projector"}),
        ("reward", {"language", "value head"}), ("reward-full", {"language", "value head"}), ("orpo", {"language"}),
    ],
)  # fmt: skip
def test_each_method_trains_what_it_says(name: str, expected: set[str]) -> None:
    assert parts(trained_tensors(name)) == expected


def test_adapters_are_of_the_kind_asked_for() -> None:
    config = {name: json.loads((models()[name] / "model" / "adapter_config.json").read_text())
              for name in ("lora", "dora", "rslora")}  # fmt: skip
    kinds = [(config[name]["use_dora"], config[name]["use_rslora"]) for name in config]
    assert kinds == [(False, False), (True, False), (False, True)]
    assert any("magnitude" in name for name in trained_tensors("dora"))


@pytest.mark.parametrize("name", ["dora", "rslora", "qlora", "lora-projector", "lora-vision-qwen3", "full-all"])
def test_each_method_is_scored_as_it_was_trained(name: str) -> None:
    config = variants()[name]
    before, after = logits(config.model, split="test"), logits(config.model, trained_weights(models()[name]), "test")
    assert np.abs(after - before).max() > 1e-3


def test_a_quantised_model_repacks_no_weights_on_any_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    network = Encoder(variants()["qlora"].model).load_model()
    repacking = [part.support_avx512bf16_for_cpu for part in network.modules()
                 if hasattr(part, "support_avx512bf16_for_cpu")]  # fmt: skip
    assert repacking
    assert not any(repacking)


def test_the_prompt_is_learned_too_when_asked() -> None:
    assert not np.array_equal(*(weights_of(models()[name] / "model")[sorted(trained_tensors("lora"))[1]]
                                for name in ("lora", "prompt")))  # fmt: skip


def test_a_reward_model_scores_by_the_difference_of_its_rewards() -> None:
    config, weights = variants()["reward"], trained_weights(models()["reward"])
    assert weights.reward
    found = logits(config.model, weights)
    np.testing.assert_allclose(found, _rewards_as_trained(weights), atol=1e-4)
    assert (signs() * found).mean() > 0
    backend = make_backend(config.model, weights)
    with pytest.raises(StageError, match="asked for a text"):
        backend.complete([Request(backend.identity, "Describe.", max_new_tokens=3)])


def _rewards_as_trained(weights: Weights) -> list[float]:
    """Return r(Yes) - r(No) of the training candidates by trl's own model on right-padded rows, as training has it."""
    import torch

    encoder = Encoder(model_ref(), weights)
    network = encoder.load_model()
    collator = encoder.collator(network)
    collator.tokenizer.padding_side = "right"
    found = []
    for row in CandidateRows(data_for("sft").data, data_for("sft").users, Prompts(), "train", images=True):
        images = [row.image.path] if row.image else []
        ids = encoder.encode(row.prompt, images)
        pair = [ids + encoder.answer_ids(answer) for answer in ("Yes", "No")]
        ends = [len(each) - 1 for each in pair]
        features = [{"input_ids": each, "attention_mask": [1] * len(each), "labels": each,
                     "images": [str(path) for path in images]} for each in pair]  # fmt: skip
        batch = dict(collator(features))
        batch.pop("labels")
        with torch.inference_mode():
            _, _, values = network(**batch, output_hidden_states=True, return_dict=True, use_cache=False)
        found.append(float(values[0, ends[0]] - values[1, ends[1]]))
    return found
