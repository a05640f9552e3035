import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.demo.build import CARD, build_base, demo_prompts, template_digests
from msr_adapter.demo.quality_check import examine, model_ref
from msr_adapter.demo.tokenize_examples import encode_batch, encode_lesson
from msr_adapter.demo.training_examples import PHASES, Lesson
from msr_adapter.demo.training_loop import learning_rate_factor, lesson_batches
from msr_adapter.files import bundled, bundled_model, file_digest
from msr_adapter.generation.request import Image, Request
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.synthetic import generate

TINY = bundled_model("tiny") or Path()
LESSONS = tuple(dict.fromkeys(kind for phase in PHASES for kind in phase.kinds))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model built the same way as the shipped one, by a few lessons only."""
    out = tmp_path_factory.mktemp("small") / "model"
    build_base(out, steps=12, seed=1, reporter=Reporter(quiet=True), questions=4)
    return out


def test_a_smaller_base_is_built_the_same_way(small: Path) -> None:
    card, shipped = (json.loads((folder / CARD).read_text(encoding="utf-8")) for folder in (small, TINY))
    assert card.keys() == shipped.keys()
    assert card["parameters"] == shipped["parameters"]
    assert {path.name for path in small.iterdir()} == {path.name for path in TINY.iterdir()}
    assert (small / "tokenizer.json").read_text(encoding="utf-8") != ""
    assert card["last_loss"] < np.log(500)  # nats per token: better than guessing among all tokens


def test_a_built_model_loads_with_transformers_in_single_precision(small: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(small)
    processor = AutoProcessor.from_pretrained(small)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert 1.0e6 < sum(parameter.numel() for parameter in model.parameters()) < 1.3e6
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hello"}]}
    text = processor.apply_chat_template([turn], add_generation_prompt=True)
    assert (
        text == "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Hello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_same_seed_gives_the_same_weights(small: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    build_base(again, steps=12, seed=1, reporter=Reporter(quiet=True), questions=4)
    assert file_digest(again / "model.safetensors") == file_digest(small / "model.safetensors")
    assert (again / "tokenizer.json").read_bytes() == (small / "tokenizer.json").read_bytes()


def test_the_shipped_model_was_taught_with_the_templates_of_today() -> None:
    """After an edit in templates/demo: python -m msr_adapter.demo msr_adapter/demo/tiny."""
    card = json.loads((TINY / CARD).read_text(encoding="utf-8"))
    assert card["templates"] == template_digests()


def test_the_shipped_model_is_small_and_passed_its_exam() -> None:
    assert sum(path.stat().st_size for path in TINY.rglob("*")) <= 3_000_000
    exam = json.loads((TINY / CARD).read_text(encoding="utf-8"))["exam"]
    assert exam["descriptions"] >= 0.98
    assert exam["updates"] >= 0.9
    assert 0.4 <= exam["yes_no_auc"] <= 0.6


def test_the_shipped_model_still_passes_its_exam() -> None:
    marks = examine(TINY, demo_prompts(), questions=60, seed=12)
    assert marks["descriptions"] >= 0.95
    assert marks["updates"] >= 0.85
    assert 0.3 <= marks["yes_no_auc"] <= 0.7  # 60 pairs: a standard error of 0.05


def test_the_shipped_model_describes_the_shop_of_the_demo(tmp_path: Path) -> None:
    shop, backend, requests = generate(10, 60, 5, 1.0, 99), HuggingFaceBackend(model_ref(TINY)), []
    for item, title in zip(*(shop.items[name].to_pylist() for name in ("item_id", "title")), strict=True):
        path = tmp_path / f"{item}.png"
        shop.draw(item).save(path)
        prompt = demo_prompts().item_summary(title=title, image=True)
        requests.append(Request(backend.identity, prompt, (Image(path, file_digest(path)),), (), 16))
    answers = [completion.text for completion in backend.complete(requests)]
    right = [answer == shop.describe(f"i{number:02d}") for number, answer in enumerate(answers, 1)]
    assert np.mean(right) >= 0.95


@pytest.fixture(scope="module")
def lessons() -> list[Lesson]:
    return [kind(demo_prompts(), np.random.default_rng(n)) for n in range(4) for kind in LESSONS]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(model_ref(TINY))


def saved(lesson: Lesson, folder: Path) -> Iterator[Path]:
    for number, image in enumerate(lesson.images):
        path = folder / f"{abs(hash(lesson.prompt))}-{number}.png"
        image.save(path)
        yield path


def test_lessons_are_encoded_token_for_token_as_llama_factory_does(
    lessons: list[Lesson], encoder: Encoder, tmp_path: Path
) -> None:
    for lesson in lessons:
        images = list(saved(lesson, tmp_path))
        source, target = encode_lesson(encoder.processor, lesson, image_tokens=4)
        assert source == encoder.encode(lesson.prompt, images)
        assert len(source) + len(target) == encoder.row_length(lesson.prompt, images, lesson.answer)
        assert target[0] == encoder._pair(lesson.prompt, images, lesson.answer)[1][0]


def test_a_batch_holds_llama_factorys_pixels_and_its_loss_covers_the_answers_only(
    lessons: list[Lesson], encoder: Encoder
) -> None:
    batch = encode_batch(encoder.processor, lessons)
    images = [image for lesson in lessons for image in lesson.images]
    theirs: dict[str, Any] = encoder.template.mm_plugin._get_mm_inputs(images, [], [], encoder.processor)
    assert torch.equal(batch["pixel_values"], theirs["pixel_values"])
    assert torch.equal(batch["image_grid_thw"], theirs["image_grid_thw"])
    decode = encoder.tokenizer.decode
    for ids, labels, lesson in zip(batch["input_ids"], batch["labels"], lessons, strict=True):
        assert decode(labels[labels != -100]) == f"{lesson.answer}<|im_end|>\n"
        assert torch.equal(ids[labels != -100], labels[labels != -100])


def test_yes_and_no_are_one_token_each(encoder: Encoder) -> None:
    yes, no = encoder.answer_tokens(("Yes", "No"))
    assert (encoder.tokenizer.decode([yes]), encoder.tokenizer.decode([no])) == ("Yes", "No")


def test_any_text_can_be_encoded(encoder: Encoder) -> None:
    text = "Crème brûlée 🍮 שלום 123"
    assert encoder.tokenizer.decode(encoder.tokenizer(text)["input_ids"]) == text


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, 1000) for step in range(1001)]
    assert factors[0] == pytest.approx(1 / 200)
    assert max(factors) == factors[199] == pytest.approx(1.0)
    assert factors[600] == pytest.approx(0.5)
    assert factors[1000] == pytest.approx(0.0)


def test_batches_hold_lessons_of_like_length() -> None:
    batches = lesson_batches(LESSONS[1], demo_prompts(), np.random.default_rng(0))
    widths = [np.ptp([len(lesson.prompt) for lesson in next(batches)]) for _ in range(8)]
    loose = [LESSONS[1](demo_prompts(), np.random.default_rng(n)) for n in range(32)]
    assert np.mean(widths) < 0.6 * np.ptp([len(lesson.prompt) for lesson in loose])


def test_a_model_with_other_templates_would_be_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(bundled("templates") / "demo", folder)
    assert Prompts(folder).digest("item_summary") == template_digests()["item_summary"]
    (folder / "item_summary.j2").write_text("{% if image %}<image>{% endif %} {{ title }}?", encoding="utf-8")
    assert Prompts(folder).digest("item_summary") != template_digests()["item_summary"]
    assert Prompts(folder).digest("recommend") == template_digests()["recommend"]
