"""Likelihoods of answers that were put through a model behind their prompts: teacher forcing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def answer_logprobs(logits: "torch.Tensor", answers: Sequence[Sequence[int]]) -> list[tuple[float]]:
    """Return for each row the log-probability of all tokens of its answer together.

    ``logits`` (rows, tokens, vocabulary) end after the last token but one of every answer, so that row i's last
    ``len(answers[i])`` places foretell its answer. Float32 over the vocabulary, summed in float64.
    """
    import torch

    found = []
    for row, answer in zip(logits, answers, strict=True):  # one by one: a float32 copy of all would be large
        tokens = torch.tensor(answer, device=row.device)
        logprobs = row[-len(answer) :].float().log_softmax(-1).gather(1, tokens[:, None])
        found.append((float(logprobs.double().sum()),))
    return found
