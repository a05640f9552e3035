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
    # One by one: a float32 copy of all would be large.
    return [(float(token_logprobs(row, answer).double().sum()),) for row, answer in zip(logits, answers, strict=True)]


def token_logprobs(logits: "torch.Tensor", answer: Sequence[int]) -> "torch.Tensor":
    """Return the log-probability of each token of an answer, (tokens,), given the logits (tokens, V) of its row.

    The row ends as those of `answer_logprobs` do.
    """
    import torch

    tokens = torch.tensor(answer, device=logits.device)
    return logits[-len(answer) :].float().log_softmax(-1).gather(1, tokens[:, None])[:, 0]
