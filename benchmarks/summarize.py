"""Recurrent user summaries: all users on their way together, against one user at a time with the same model and budget.

Workload: 64 users x 9 items, 3 recurrent steps, the bundled tiny model (128 wide, 4 layers), greedy, at most 48 new
tokens a step. "natural": the model ends its answers itself, so their lengths vary. "fixed": every answer has exactly 48
tokens. The baseline is timed on every sixteenth user (``--full``: every fourth) and scaled up; it keeps transformers'
`generate` busy with one prompt after the other. Texts are asserted to be equal before a ratio is printed.

    python benchmarks/summarize.py [--full] [--json]
"""

# ruff: noqa: E402 - threads are pinned before PyTorch is imported
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.config.schema import ModelConfig
from msr_adapter.files import bundled
from msr_adapter.generation import Answer, Chain, Completion, CompletionCache, Request
from msr_adapter.llamafactory.prompt_encoder import Encoder, collate
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.synthetic import generate

USERS, ITEMS, BLOCK, BUDGET, SLOTS = 64, 9, 3, 48, 64
FLOOR, GOAL = 3.0, 4.5

History = Sequence[HistoryItem]


def make_histories() -> list[History]:
    """Return every user's items: a title and what its image shows, in the words of the synthetic dataset."""
    dataset = generate(users=USERS, items=200, interactions_per_user=ITEMS + 3, noise=0.7, seed=0)
    titles = dataset.items["title"].to_pylist()
    draw = np.random.default_rng(0)
    return [
        [HistoryItem(titles[item], f"Drawn: {titles[(item * 7) % 200]}.") for item in draw.permutation(200)[:ITEMS]]
        for _ in range(USERS)
    ]


def together(backend: HuggingFaceBackend, prompts: Prompts, histories: Sequence[History]) -> list[str]:
    """Return each user's last summary, written as the users stage writes it."""

    def chain(user: int) -> Chain[str]:
        text = ""
        for start in range(0, ITEMS, BLOCK):
            prompt = prompts.user_summary(text, histories[user][start : start + BLOCK])
            answer: Answer = yield Request(backend.identity, prompt, max_new_tokens=BUDGET)
            assert isinstance(answer, Completion)
            text = answer.text
        return text

    with tempfile.TemporaryDirectory() as folder, CompletionCache(Path(folder) / "cache.sqlite") as cache:
        ended = dict(cache.run_chains(backend, [partial(chain, user) for user in range(len(histories))]))
    return [ended[user] for user in range(len(histories))]


def one_at_a_time(backend: HuggingFaceBackend, prompts: Prompts, histories: Sequence[History]) -> list[str]:
    """Return the same summaries, one prompt in `generate` after the other."""
    import torch

    loaded = backend._load()
    texts = []
    for history in histories:
        text = ""
        for start in range(0, ITEMS, BLOCK):
            ids = loaded.encoder.encode(prompts.user_summary(text, history[start : start + BLOCK]))
            inputs = collate(loaded._collator, [ids], [[]])
            inputs.pop("position_ids", None)
            with torch.inference_mode():
                output = loaded.network.generate(
                    **inputs, do_sample=False, max_new_tokens=BUDGET, eos_token_id=loaded.encoder.stop_ids or None,
                    pad_token_id=loaded.encoder.tokenizer.pad_token_id,
                )  # fmt: skip
            text = loaded.encoder.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True).strip()
        texts.append(text)
    return texts


def count(backend: HuggingFaceBackend, prompts: Prompts, histories: Sequence[History]) -> dict[str, int]:
    """Return forward passes and tokens, padding included, that ours puts through the model."""
    network, shapes = backend._load().network, list[tuple[int, int]]()

    def note(_: Any, __: Any, inputs: Mapping[str, Any]) -> None:
        shapes.append(tuple(inputs["input_ids"].shape))

    with network.register_forward_pre_hook(note, with_kwargs=True):
        together(backend, prompts, histories)
    return {"forward_passes": len(shapes), "model_tokens": sum(rows * columns for rows, columns in shapes)}


def measure(repeats: int, step: int) -> dict[str, Any]:
    """Assert equal texts, then time; the ways take turns."""
    backend = HuggingFaceBackend(ModelConfig(path="tiny", default_system="", batch_size=SLOTS))
    prompts, histories = Prompts(bundled("templates") / "demo"), make_histories()
    part = histories[::step]
    assert together(backend, prompts, histories)[::step] == one_at_a_time(backend, prompts, part)
    ways: dict[str, Callable[[], object]] = {
        "ours": lambda: together(backend, prompts, histories),
        "baseline": lambda: one_at_a_time(backend, prompts, part),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append((time.perf_counter() - started) * (step if name == "baseline" else 1))
    ratios = [baseline / ours for ours, baseline in zip(seconds["ours"], seconds["baseline"], strict=True)]
    ours, baseline = (statistics.median(seconds[name]) for name in ("ours", "baseline"))
    return {
        "ratio": baseline / ours, "lowest_ratio": min(ratios), "highest_ratio": max(ratios),
        "ours_s": ours, "baseline_s": baseline, "counts": count(backend, prompts, histories),
    }  # fmt: skip


def measure_all(repeats: int, step: int) -> dict[str, Any]:
    """Measure both workloads."""
    natural = measure(repeats, step)
    stops = Encoder.stop_ids
    Encoder.stop_ids = property(lambda _: [])  # type: ignore[assignment, method-assign]
    try:
        fixed = measure(repeats, step)
    finally:
        Encoder.stop_ids = stops  # type: ignore[method-assign]
    return {
        "workload": f"summarize: {USERS} users x {ITEMS} items, {ITEMS // BLOCK} steps of at most {BUDGET} tokens",
        "floor": FLOOR, "goal": GOAL, **fixed, "limit_ratio": None, "natural": natural,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip


def main() -> None:
    """Print a table, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="baseline on every fourth user, 5 repeats")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    result = measure_all(5, 4) if options.full else measure_all(3, 16)
    print(result["workload"])
    for name, part in (("fixed", result), ("natural", result["natural"])):
        times = f"ours {part['ours_s']:7.2f} s, one at a time {part['baseline_s']:7.2f} s"
        spread = f"({part['lowest_ratio']:.1f} to {part['highest_ratio']:.1f})"
        passes = part["counts"]["forward_passes"]
        print(f"  {name:8} {times}: {part['ratio']:.1f}x {spread}; {passes} forward passes")
    print(f"  floor {FLOOR}x, goal {GOAL}x; equal texts; peak {result['peak_rss_mb']:.0f} MB")
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
