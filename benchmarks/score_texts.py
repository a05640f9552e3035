"""Log-likelihood ratios of titles: prefixes once and logits at the titles alone, against plain forward passes.

Workload: users x 21 candidates from a catalogue, a user's text of about 120 tokens, titles of about 12, the question
`next-item-text`. Each candidate has two terms: its title given the user, and given nobody.

- naive: both terms of every pair, each as one forward pass over prompt and title with logits at every position, sorted
  by length, in batches of 16.
- ours: what the score stage does: the term without a user once for each title.

Likelihoods of both ways agree within 1e-5 a token before any ratio is printed.

    python benchmarks/score_texts.py [--users N] [--json] [--model FOLDER --template NAME]
"""

# ruff: noqa: E402 - threads are pinned before PyTorch is imported
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import time

import numpy as np
import torch

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.backends.loaded_model import LoadedModel
from msr_adapter.config.schema import ModelConfig
from msr_adapter.generation.request import Request
from msr_adapter.llamafactory.prompt_encoder import collate
from msr_adapter.prompts import Prompts

SIZE, TITLES, BATCH = 21, 200, 16
MOST = 1e-5
"""Difference of log-likelihoods a token."""
WORDS = ("quiet", "red", "harbour", "night", "dogs", "ships", "funny", "stories",
         "old", "friends", "train", "rain", "cooking", "rice", "city", "lights")  # fmt: skip

Pair = tuple[str, str]
"""A prompt and a title."""


def workload(users: int) -> tuple[list[Pair], list[Pair]]:
    """Return prompt and title of every pair, with its user and without."""
    rng, prompts = np.random.default_rng(7), Prompts(question="next-item-text")
    titles = [" ".join(rng.choice(WORDS, rng.integers(4, 12))) for _ in range(TITLES)]
    texts = [" ".join(rng.choice(WORDS, 90)) for _ in range(users)]
    shown = [(text, titles[item]) for text in texts for item in rng.choice(TITLES, SIZE, replace=False)]
    given = [(prompts.recommend(text, "", image=False), title) for text, title in shown]
    return given, [(prompts.without_evidence, title) for _, title in shown]


def naive(loaded: LoadedModel, pairs: list[Pair]) -> np.ndarray:
    """Return the log-likelihood of each pair's title from whole rows, logits everywhere."""
    encoder, collator = loaded.encoder, loaded.encoder.collator(loaded.network)
    rows = [(encoder.encode(prompt), encoder.scored_ids(title, end=False)) for prompt, title in pairs]
    order = sorted(range(len(rows)), key=lambda place: -sum(map(len, rows[place])))
    found = np.empty(len(rows))
    for begin in range(0, len(order), BATCH):
        part = order[begin : begin + BATCH]
        batch = collate(collator, [[*rows[place][0], *rows[place][1]] for place in part], [[]] * len(part))
        with torch.inference_mode():
            logprobs = loaded.network(**batch, use_cache=False).logits.float().log_softmax(-1)
        for row, place in enumerate(part):
            answer = torch.tensor(rows[place][1])
            found[place] = float(logprobs[row, -len(answer) - 1 : -1].gather(1, answer[:, None]).double().sum())
    return found


def main() -> None:
    """Print both ways' seconds and tokens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--template", default="qwen2_vl")
    options = parser.parse_args()
    model = ModelConfig(path=options.model, template=options.template, default_system="")
    backend = HuggingFaceBackend(model)
    given, alone = workload(options.users)
    backend.complete([Request("warm", prompt, (), (title,), whole="answer") for prompt, title in given[:2]])
    loaded = backend._load()
    before, begun = backend.stats.tokens_processed, time.process_time()
    once = dict.fromkeys(alone)
    asked = [Request("m", prompt, (), (title,), whole="answer") for prompt, title in [*given, *once]]
    answers = backend.complete(asked)
    ours, processed = time.process_time() - begun, backend.stats.tokens_processed - before
    begun = time.process_time()
    plain = [naive(loaded, given), naive(loaded, alone)]
    theirs = time.process_time() - begun
    terms = dict(zip([*given, *once], answers, strict=True))
    for pairs, values in zip((given, alone), plain, strict=True):
        for pair, value in zip(pairs, values, strict=True):
            assert abs(terms[pair].choice_logprobs[0] - value) <= MOST * terms[pair].tokens_out, (pair, value)
    flat = sum(len(loaded.encoder.encode(prompt)) + len(loaded.encoder.scored_ids(title, end=False))
               for prompt, title in [*given, *alone])  # fmt: skip
    told = {"pairs": len(given), "tokens_naive": flat, "tokens_ours": processed, "cpu_s_naive": theirs,
            "cpu_s_ours": ours, "ratio": theirs / ours}  # fmt: skip
    print(json.dumps(told) if options.json else "\n".join(f"{name:<14}{value:,.2f}" for name, value in told.items()))


if __name__ == "__main__":
    main()
