"""Lessons to tensors: token for token what LLaMA-Factory's `qwen2_vl` template makes of them with an empty system text.

Written out here because lessons hold fresh drawings in memory, not files; a test holds it against LLaMA-Factory's own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from msr_adapter.generation.request import IMAGE_PLACEHOLDER

if TYPE_CHECKING:
    from msr_adapter.demo.training_examples import Lesson

_IGNORED = -100
_IMAGE = "<|vision_start|>{pads}<|vision_end|>"


def encode_lesson(processor: Any, lesson: "Lesson", image_tokens: int) -> tuple[list[int], list[int]]:
    """Return the token ids of prompt and answer; each image stands for ``image_tokens`` placeholders."""
    image = _IMAGE.format(pads="<|image_pad|>" * image_tokens)
    prompt = lesson.prompt.replace(IMAGE_PLACEHOLDER, image)
    source = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    return _ids(processor, source), _ids(processor, f"{lesson.answer}<|im_end|>\n")


def encode_batch(processor: Any, lessons: Sequence["Lesson"]) -> dict[str, torch.Tensor]:
    """Return one training batch; the loss covers the answers only.

    Padding stands on the right, where a causal model cannot look from a real token: no attention mask is needed.
    """
    images = [image for lesson in lessons for image in lesson.images]
    pixels = dict(processor.image_processor(images, return_tensors="pt")) if images else {}
    merged = processor.image_processor.merge_size**2
    tokens = int(pixels["image_grid_thw"][0].prod()) // merged if images else 0
    pairs = [encode_lesson(processor, lesson, tokens) for lesson in lessons]
    rows = [source + target for source, target in pairs]
    labels = [[_IGNORED] * len(source) + target for source, target in pairs]
    ids = _padded(rows, processor.tokenizer.pad_token_id)
    return {
        "input_ids": ids,
        "labels": _padded(labels, _IGNORED),
        "mm_token_type_ids": (ids == processor.image_token_id).int(),
        **pixels,
    }


def _ids(processor: Any, text: str) -> list[int]:
    return list(processor.tokenizer(text, add_special_tokens=False)["input_ids"])


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    length = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (length - len(row))] for row in rows])
