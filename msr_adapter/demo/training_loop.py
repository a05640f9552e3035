"""Teaching: plain supervised training on lessons made afresh, one kind after the other."""

import math
from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch

from msr_adapter.demo.tokenize_examples import encode_batch
from msr_adapter.demo.training_examples import PHASES, Lesson, Maker
from msr_adapter.progress import Advance
from msr_adapter.prompts import Prompts

BATCH = 32
_WARM_UP = 200
_POOL = 4
"""Batches drawn together and sorted by length, so that little is spent on padding."""


def teach(model: Any, processor: Any, prompts: Prompts, steps: int, seed: int, advance: Advance) -> list[float]:
    """Train all weights in place for ``steps`` batches, shared among the phases; return each batch's loss.

    Losses are nats per answer token. Between phases the weights are what a saved model would have: half precision.
    """
    losses: list[float] = []
    planned = sum(phase.steps for phase in PHASES)
    model.train()
    for number, phase in enumerate(PHASES):
        ends = round(steps * sum(each.steps for each in PHASES[: number + 1]) / planned)
        # Batches of each kind of lesson in turn, without end.
        kinds = [lesson_batches(kind, prompts, np.random.default_rng([seed + number, place]))
                 for place, kind in enumerate(phase.kinds)]  # fmt: skip
        batches = (encode_batch(processor, next(lessons)) for lessons in cycle(kinds))
        losses += _train_phase(model, phase.peak_rate, batches, ends - len(losses), advance)
        model.half().float()
    model.eval()
    return losses


def _train_phase(
    model: Any, peak_rate: float, batches: Iterator[dict[str, torch.Tensor]], steps: int, advance: Advance
) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak_rate, betas=(0.9, 0.95), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
    losses = []
    for batch in islice(batches, steps):
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        advance(1)
    return losses


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the share of the peak rate at ``step``: linear warm-up, then a cosine down to zero."""
    warm_up = min(_WARM_UP, max(1, steps // 4))
    fall = 0.5 + 0.5 * math.cos(math.pi * max(0, step - warm_up) / max(1, steps - warm_up))
    return min(1.0, (step + 1) / warm_up) * fall


def lesson_batches(kind: Maker, prompts: Prompts, rng: np.random.Generator) -> Iterator[list[Lesson]]:
    """Yield batches of one kind without end; the lessons of a batch are about equally long."""
    while True:
        pool = sorted((kind(prompts, rng) for _ in range(_POOL * BATCH)), key=lambda lesson: len(lesson.prompt))
        for place in rng.permutation(_POOL):
            yield pool[place * BATCH : (place + 1) * BATCH]
