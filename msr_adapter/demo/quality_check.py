"""The exam of a finished tiny model, through the same backend that every pipeline uses."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.config.schema import ModelConfig
from msr_adapter.demo.summary_rule import choices_of, summary_of
from msr_adapter.demo.training_examples import Lesson, Maker, describe, item_image, update, whole
from msr_adapter.files import file_digest
from msr_adapter.generation.request import Completion, Image, Request
from msr_adapter.metrics import pooled_auc
from msr_adapter.metrics.groups import make_groups
from msr_adapter.prompts import Prompts
from msr_adapter.synthetic import generate

_ANSWER_TOKENS = 48
_YES_NO = ("Yes", "No")
_KINDS: dict[str, Maker] = {"descriptions": describe, "updates": update, "direct": whole}


def model_ref(folder: Path) -> ModelConfig:
    """Return the model in ``folder`` with the settings it was taught under."""
    return ModelConfig(path=str(folder), template="qwen2_vl", default_system="", image_max_pixels=3136, batch_size=64)


def examine(folder: Path, prompts: Prompts, questions: int, seed: int) -> dict[str, float]:
    """Return the share of word-for-word right answers per kind of lesson, and the yes/no AUC, which must be chance."""
    backend = HuggingFaceBackend(model_ref(folder))
    marks = {}
    with tempfile.TemporaryDirectory() as scratch:
        for number, (name, kind) in enumerate(_KINDS.items()):
            rng = np.random.default_rng([seed, number])
            lessons = [kind(prompts, rng) for _ in range(questions)]
            answers = _complete(backend, _requests(backend.identity, lessons, Path(scratch) / name))
            right = [answer.text == lesson.answer for answer, lesson in zip(answers, lessons, strict=True)]
            marks[name] = float(np.mean(right))
        marks["yes_no_auc"] = _yes_no_auc(backend, prompts, questions, seed, Path(scratch))
    return marks


def _requests(model: str, lessons: Sequence[Lesson], folder: Path, choices: tuple[str, ...] = ()) -> list[Request]:
    budget = 0 if choices else _ANSWER_TOKENS
    return [
        Request(model, lesson.prompt, tuple(_saved(lesson, folder / str(number))), choices, budget)
        for number, lesson in enumerate(lessons)
    ]


def _saved(lesson: Lesson, folder: Path) -> Iterator[Image]:
    for number, image in enumerate(lesson.images):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{number}.png"
        image.save(path)
        yield Image(path, file_digest(path))


def _complete(backend: HuggingFaceBackend, requests: Sequence[Request]) -> list[Completion]:
    return [answer for answer in backend.complete(requests) if isinstance(answer, Completion)]


def _yes_no_auc(backend: HuggingFaceBackend, prompts: Prompts, questions: int, seed: int, scratch: Path) -> float:
    """Ask, for each user of a synthetic dataset, about the item they chose last and about one they never chose."""
    rng = np.random.default_rng([seed, len(_KINDS)])
    dataset = generate(users=questions, items=400, interactions_per_user=10, noise=1.0, seed=seed)
    codes = {item: code for code, item in enumerate(dataset.items["item_id"].to_pylist())}
    described = choices_of(dataset.facets)
    logs: dict[str, list[int]] = {}
    for row in dataset.interactions.to_pylist():
        logs.setdefault(row["user_id"], []).append(codes[row["item_id"]])
    lessons = []
    for log in logs.values():
        user_summary = summary_of("", [described[code] for code in log[:-1]])
        other = int(rng.choice(np.setdiff1d(np.arange(len(codes)), log)))
        for code in (log[-1], other):
            prompt = prompts.recommend(user_summary=user_summary, title=dataset.facets.titles[code], image=True)
            lessons.append(Lesson(prompt, (item_image(dataset.facets, code, rng),), ""))
    completions = _complete(backend, _requests(backend.identity, lessons, scratch / "yes_no", _YES_NO))
    scores = [c.choice_logprobs[0] - c.choice_logprobs[1] for c in completions]
    return pooled_auc(make_groups(scores, [1, 0] * len(logs), np.arange(0, len(scores) + 1, 2)))
