"""Every tested family: trained by LLaMA-Factory, loaded, scored and asked for texts, token by token as trained."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.backends.reference_prompts import ReferencePrompts
from msr_adapter.backends.reward_model import RewardBackend
from msr_adapter.candidate_rows import ANSWERS
from msr_adapter.config.schema import ModelConfig, TrainConfig
from msr_adapter.errors import StageError
from msr_adapter.generation.request import Completion, Failure, Image, Request
from msr_adapter.llamafactory.dataset import TRAIN
from msr_adapter.llamafactory.families import FAMILIES, Family
from msr_adapter.llamafactory.model_weights import BASE
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.training_yaml import training_config, write_yaml
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import build_dataset
from tests.support.paths import ROOT
from tests.support.tiny_models import MISTRAL_CHAT, build_llava_next, tiny_model
from tests.support.tiny_run import QUIET, scratch, write_upstream
from tests.support.tiny_tokenizers import blanks_apart
from tests.support.training_rows import TrainingRow, training_rows

ROWS = 200
SIDES = [[answer] for answer in ANSWERS]
SHORT = {"qwen2-vl": ("Y", "No")}
"""The answers' first tokens where the tiny vocabulary has no whole words."""
# Two third parties disagree about an array protocol; nobody here can act on it.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def settings(family: Family) -> TrainConfig:
    model = ModelConfig(
        path=str(tiny_model(family.name)), image_max_pixels=112 * 112, image_min_pixels=784, batch_size=8
    )
    return TrainConfig(
        model=model, images=family.sees_images, max_steps=3, batch_size=4, gradient_accumulation=1, learning_rate=1e-2
    )


@functools.cache
def data(images: bool) -> StageDirs:
    """Return a data set of `ROWS` training rows, with hostile titles, with and without images."""
    made = write_upstream(scratch(), counts={"train": ROWS // 4, "test": 2})
    made.dataset.mkdir()
    family = next(family for family in FAMILIES if family.sees_images == images)
    build_dataset(settings(family), made, Prompts(), Job(made.dataset, QUIET))
    return made


@functools.cache
def trained_folder() -> Path:
    """Train every family for three steps, all in one process; return the folder of what came of it."""
    folder = scratch()
    for family in FAMILIES:
        made = data(family.sees_images)
        config = training_config(settings(family), made.data, made.dataset, folder / family.name, 0)
        write_yaml(folder / f"{family.name}.yaml", config, "a tiny model")
    script = ROOT / "tests" / "support" / "train_yamls.py"
    environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder), "--tokens"], env=environment, capture_output=True, timeout=900
    )
    assert done.returncode == 0, done.stderr.decode()[-5000:]
    return folder


def trained(family: Family) -> dict[str, Any]:
    error = trained_folder() / f"{family.name}.error"
    assert not error.exists(), error.read_text(encoding="utf-8")
    return dict(json.loads((trained_folder() / f"{family.name}.json").read_text(encoding="utf-8")))


def rows(family: Family) -> list[TrainingRow]:
    return list(training_rows(data(family.sees_images).dataset / TRAIN))


@functools.cache
def encoder(name: str) -> Encoder:
    return Encoder(settings(next(family for family in FAMILIES if family.name == name)).model)


@each_family
def test_scored_tokens_are_trained_tokens(family: Family) -> None:
    seen, made, coder = trained(family), data(family.sees_images), encoder(family.name)
    written = rows(family)
    assert len(seen["input_ids"]) == len(written) == ROWS
    assert {bool(row.images) for row in written} == ({True, False} if family.sees_images else {False})
    tokens = coder.answer_tokens(ANSWERS)
    assert tuple(coder.tokenizer.convert_ids_to_tokens(list(tokens))) == SHORT.get(family.name, family.answer)
    yes_no = dict(zip(ANSWERS, tokens, strict=True))
    for row, ids, labels in zip(written, seen["input_ids"], seen["labels"], strict=True):
        images = [made.data / image for image in row.images]
        prompt = coder.encode(row.prompt, images)
        assert coder.encode(row.prompt, images, SIDES) == prompt == ids[: len(prompt)]
        assert labels == [-100] * len(prompt) + ids[len(prompt) :]
        assert ids[len(prompt)] == yes_no[row.answer]
        assert len(ids) == coder.row_length(row.prompt, images, row.answer)


@each_family
def test_adapters_are_on_every_layer_of_the_language_model_and_nowhere_else(family: Family) -> None:
    trained(family)
    with safe_open(trained_folder() / family.name / "adapter_model.safetensors", "pt") as file:
        names = list(file.keys())
    layers = AutoConfig.from_pretrained(tiny_model(family.name)).get_text_config().num_hidden_layers
    kinds = {name.split(".lora_")[0].rsplit(".", 1)[-1] for name in names}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(names) == len(kinds) * layers * 2
    assert not [name for name in names if any(part in name for part in ("vision", "visual", "projector", "lm_head"))]


@functools.cache
def plain(name: str) -> Any:
    """Return the trained model as transformers and PEFT alone load it: the reference."""
    seen = AutoConfig.from_pretrained(tiny_model(name))
    kind = AutoModelForCausalLM if "text_config" not in seen.to_dict() else AutoModelForImageTextToText
    network = kind.from_pretrained(tiny_model(name), dtype=torch.float32, attn_implementation="eager")
    return PeftModel.from_pretrained(network, trained_folder() / name).eval()


def plain_inputs(family: Family, request: Request) -> dict[str, torch.Tensor]:
    """Return the inputs of one prompt: ids of our encoder, pixels of the model's own image processor."""
    coder, network = encoder(family.name), plain(family.name)
    paths = [image.path for image in request.images]
    ids = torch.tensor([coder.encode(request.prompt, paths)])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if paths:
        resized = coder.template.mm_plugin._regularize_images(
            [str(path) for path in paths], image_max_pixels=112 * 112, image_min_pixels=784
        )["images"]
        pixels = dict(coder.processor.image_processor(images=resized, return_tensors="pt"))
        inputs |= {name: value for name, value in pixels.items() if name not in ("num_patches", "num_crops")}
    shown = (ids == getattr(network.config, "image_token_id", -1)).int()
    if family.mrope:
        inputs["mm_token_type_ids"] = shown
    if family.name == "gemma3":
        inputs["token_type_ids"] = shown
    return inputs


def requests(family: Family, **settings: Any) -> list[Request]:
    """Prompts of unlike length, with unlike images where the family sees any, and without."""
    folder = data(family.sees_images).data / "images"
    texts = ["A user's preferences: quiet landscapes. No image here.", "Short.", "Again and again " * 12]
    asked = [Request("m", text, **settings) for text in texts]
    if family.sees_images:
        images = [Image(folder / f"{number:03d}.png", f"digest-{number}") for number in (0, 5, 2)]
        prompts = ["<image>\nWill the user choose this?", "First <image> then " + "words " * 20, "<image>"]
        asked += [Request("m", prompt, (shown,), **settings) for prompt, shown in zip(prompts, images, strict=True)]
    return asked


@functools.cache
def backend(name: str) -> HuggingFaceBackend:
    model = settings(next(family for family in FAMILIES if family.name == name)).model
    return HuggingFaceBackend(model, BASE.then(trained_folder() / name))


@each_family
def test_scores_equal_a_plain_forward_pass_and_training_changed_them(family: Family) -> None:
    trained(family)
    network, asked = plain(family.name), requests(family, choices=ANSWERS)
    tokens = list(encoder(family.name).answer_tokens(ANSWERS))
    for request, answer in zip(asked, backend(family.name).complete(asked), strict=True):
        assert isinstance(answer, Completion)
        with torch.inference_mode():
            inputs = plain_inputs(family, request)
            found = network(**inputs).logits[0, -1].log_softmax(-1)[tokens]
            with network.disable_adapter():
                before = network(**inputs).logits[0, -1].log_softmax(-1)[tokens]
        assert torch.isfinite(found).all()
        assert answer.choice_logprobs == pytest.approx(found.tolist(), abs=1e-4)
        assert not torch.allclose(found, before, atol=1e-2)


@pytest.mark.parametrize(
    "family", [family for family in FAMILIES if family.sees_images], ids=lambda family: family.name
)
def test_the_image_matters(family: Family) -> None:
    trained(family)
    folder = data(True).data / "images"
    images = [Image(folder / f"{number:03d}.png", f"digest-{number}") for number in (0, 5)]
    asked = [Request("m", "<image>\nWill the user choose this?", (shown,), choices=ANSWERS) for shown in images]
    one, other = (
        answer.choice_logprobs for answer in backend(family.name).complete(asked) if not isinstance(answer, Failure)
    )
    assert one != pytest.approx(other, abs=1e-4)


@each_family
def test_texts_equal_plain_greedy_decoding(family: Family) -> None:
    trained(family)
    network, asked = plain(family.name), requests(family, max_new_tokens=6)
    coder, answers = encoder(family.name), backend(family.name).complete(asked)
    assert sum(isinstance(answer, Completion) and answer.tokens_out > 1 for answer in answers) > 1
    for request, answer in zip(asked, answers, strict=True):
        inputs = plain_inputs(family, request)
        with torch.inference_mode():
            output = network.generate(
                **inputs, do_sample=False, max_new_tokens=6, eos_token_id=coder.stop_ids,
                pad_token_id=coder.tokenizer.pad_token_id,
            )  # fmt: skip
        made = output[0, inputs["input_ids"].shape[1] :].tolist()
        kept = [token for token in made if token not in coder.stop_ids]
        assert isinstance(answer, Completion)
        assert answer.text == coder.tokenizer.decode(kept, skip_special_tokens=True).strip()
        assert answer.tokens_out == len(kept)


def blanks_apart_model(folder: Path) -> ModelConfig:
    made = build_llava_next(folder, "mistral", blanks_apart(), MISTRAL_CHAT)
    return settings(FAMILIES[0]).model.model_copy(update={"path": str(made)})


def test_answers_that_begin_with_a_blank_token_are_told_apart_after_it(tmp_path: Path) -> None:
    """The paper's model by its older files: ` Yes` is `▁` and `▁Yes`, and ` No` begins alike."""
    from llamafactory.data.processor import SupervisedDatasetProcessor

    model = blanks_apart_model(tmp_path)
    coder, made = Encoder(model), data(True)
    tokens = coder.answer_tokens(ANSWERS)
    assert coder.tokenizer.convert_ids_to_tokens(list(tokens)) == ["▁Yes", "▁No"]
    limits = SimpleNamespace(cutoff_len=2048, train_on_prompt=False, mask_history=False)
    trainer = SupervisedDatasetProcessor(coder.template, coder.tokenizer, coder.processor, limits)
    for row in rows(FAMILIES[0])[:20]:
        images = [made.data / image for image in row.images]
        turns = [[{"role": "user", "content": row.prompt}], [{"role": "assistant", "content": row.answer}]]
        ids, labels = trainer._encode_data_example(*turns, "", "", [str(image) for image in images], [], [])
        asked = coder.encode(row.prompt, images, SIDES)
        assert ids[: len(asked)] == asked
        assert coder.tokenizer.convert_ids_to_tokens(labels[len(asked) - 1 : len(asked) + 1]) == ["▁", f"▁{row.answer}"]
        assert ids[len(asked)] == tokens[ANSWERS.index(row.answer)]
        assert [label == -100 for label in labels].index(False) == len(asked) - 1


def test_answers_that_begin_alike_are_asked_of_no_server_and_read_once_by_a_reward_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = blanks_apart_model(tmp_path)
    with pytest.raises(StageError, match="Both answers begin with the same token"):
        ReferencePrompts(model).names(SIDES)
    coder, read = Encoder(model), dict[int, list[int]]()

    def rewards(_: Any, prompts: dict[int, list[int]]) -> list[tuple[int, list[float]]]:
        read.update(prompts)
        return [(number, [1.0, 0.0]) for number in prompts]

    loaded = SimpleNamespace(encoder=coder, rewards=rewards)
    monkeypatch.setattr("msr_adapter.backends.reward_model._Loaded", lambda *_: loaded)
    RewardBackend(model, BASE).complete([Request("m", "Will they?", choices=ANSWERS)])
    row = coder.encode("Will they?", (), SIDES)
    assert read == {0: row[:-1]}
    assert [*read[0], *coder.answer_ids("Yes")][: len(row)] == row
