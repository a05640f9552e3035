"""The tiny base model, made from nothing: its tokenizer, its weights, its lessons, its exam, its model card."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from msr_adapter.demo.model import make_model, make_processor, make_tokenizer
from msr_adapter.demo.quality_check import examine
from msr_adapter.demo.training_examples import PHASES
from msr_adapter.demo.training_loop import BATCH, teach
from msr_adapter.files import bundled, write_json, write_text
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts

STEPS = sum(phase.steps for phase in PHASES)
CARD = "card.json"
_TEMPLATES = ("item_summary", "user_summary", "recommend")
_CORPUS_LESSONS = 3000
_QUESTIONS = 300
_EXAM_SEED = 2**20
"""Far from any seed of the lessons: the exam is held out."""


def build_base(out: Path, steps: int, seed: int, reporter: Reporter, questions: int = _QUESTIONS) -> dict[str, Any]:
    """Write a complete tiny Qwen2-VL to ``out`` and return its card. On one CPU core, about half a second per step.

    The same seed, steps and library versions give the same weights, on one kind of processor.
    """
    started, prompts = time.monotonic(), demo_prompts()
    with _alone(seed):
        processor = make_processor(make_tokenizer(_corpus(prompts, seed)))
        model = make_model(processor.tokenizer)
        with reporter.track("teaching the tiny model", steps) as advance:
            losses = teach(model, processor, prompts, steps, seed, advance)
    out.mkdir(parents=True, exist_ok=True)
    _save(model, processor, out)
    reporter.note(f"taught in {time.monotonic() - started:.0f} s; examining")
    card = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps, "batch": BATCH, "seed": seed, "last_loss": round(float(np.mean(losses[-100:])), 4),
        "exam": examine(out, prompts, questions, _EXAM_SEED), "exam_questions": questions,
        "templates": template_digests(), "torch": torch.__version__,
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip
    write_json(out / CARD, card)
    write_text(out / "README.md", _readme(card))
    return card


def demo_prompts() -> Prompts:
    """Return the prompts that the tiny model was taught with."""
    return Prompts(bundled("templates") / "demo")


def template_digests() -> dict[str, str]:
    """Return the digests of the demo's templates: a model taught with others must be built again."""
    prompts = demo_prompts()
    return {name: prompts.digest(name) for name in _TEMPLATES}


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Seeded and on one thread (sums depend on the number of threads); restores both."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def _corpus(prompts: Prompts, seed: int) -> Iterator[str]:
    """Yield the text that the tokenizer is trained on: lessons, and the recommender's words without their use."""
    kinds = PHASES[0].kinds
    rng = np.random.default_rng([seed, len(kinds)])
    for number in range(_CORPUS_LESSONS):
        lesson = kinds[number % len(kinds)](prompts, rng)
        yield lesson.prompt
        yield lesson.answer
        yield prompts.recommend(user_summary=lesson.answer, title="", image=False)
        yield from ("Yes", "No")


def _save(model: Any, processor: Any, out: Path) -> None:
    """Save half-precision weights whose config says float32, so that they are loaded as such."""
    logging.disable_progress_bar()
    model.half().save_pretrained(out)
    processor.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    path = out / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for part in (config, config["text_config"], config["vision_config"]):
        part["dtype"] = "float32"
    write_json(path, config)


def _readme(card: dict[str, Any]) -> str:
    exam = card["exam"]
    return f"""# tiny

A Qwen2-VL of {card["parameters"]:,} parameters (Apache-2.0), made from nothing by

    python -m msr_adapter.demo OUT --steps {card["steps"]} --seed {card["seed"]}

It knows the drawn covers of msr's generated shop and nothing else: it describes a cover, and it keeps a summary of a
user's choices, described or shown. It was never taught to recommend: asked whether a user will choose an item, it
answers Yes or No by the toss of a coin, and the demo fine-tunes it to do better.

| held-out exam, {card["exam_questions"]} questions each | |
|---|---|
| descriptions, word for word right | {exam["descriptions"]:.1%} |
| summaries block by block, word for word right | {exam["updates"]:.1%} |
| summaries of whole histories at once, word for word right | {exam["direct"]:.1%} |
| AUC of its untaught yes/no | {exam["yes_no_auc"]:.3f} |

`card.json` has the same as data, and the digests of the templates it was taught with. Use it with LLaMA-Factory's
template `qwen2_vl`, `default_system: ""` and `image_max_pixels: 3136`. Weights are stored in half precision and loaded
in float32.
"""
