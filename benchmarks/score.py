"""Candidate scoring: one forward pass with one position's logits, against generating the answer.

Workload: users x 21 candidates with an image each, preference text about 120 tokens, prompts through LLaMA-Factory's
template in both ways, image processing included. Baselines generate in batches of 6 in the given order and read the
first step's probabilities: exactly 30 new tokens, as published scripts do, and 2, which is where a tuned model stops.

    python benchmarks/score.py [--full] [--json] [--model FOLDER --template NAME]
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
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.config.models import ModelRef
from msr_adapter.files import file_digest
from msr_adapter.generation.request import Image, Request
from msr_adapter.llamafactory.encode import collate
from msr_adapter.prompts import Prompts
from msr_adapter.rows import ANSWERS

SIZE = 21
BASELINE_BATCH, OUR_BATCH = 6, 64
FLOOR, GOAL = 2.5, 3.0
FLOOR_2, GOAL_2 = 1.1, 1.25
DEFAULT_USERS, FULL_USERS = 2, 5
TEXT = "bold quiet red comic covers with dogs, ships and night scenes in short funny stories about old friends"


def make_workload(folder: Path, users: int, side: int, count: Callable[[str], int]) -> list[Request]:
    """Return every user's requests over the same 21 items; texts vary by 30% in length; ``count`` counts tokens."""
    generator = np.random.default_rng(0)
    prompts, images = Prompts(), []
    for number in range(SIZE):
        path = folder / f"{number}.png"
        PillowImage.fromarray(generator.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(path)
        images.append(Image(path, file_digest(path)))

    def say(tokens: int) -> str:
        words, wanted = "", tokens * generator.uniform(0.7, 1.3)
        while count(words) < wanted:
            words += f" {generator.choice(TEXT.split())}"
        return words.strip()

    titles = [say(15) for _ in images]
    preferences = [say(120) for _ in range(users)]
    return [
        Request("benchmark", prompts.recommend(preference=preference, title=title, image=True), (image,), ANSWERS)
        for preference in preferences
        for title, image in zip(titles, images, strict=True)
    ]


def generate(backend: HuggingFaceBackend, requests: list[Request], new_tokens: int) -> list[float]:
    """Return log p(yes) - log p(no) of each request from the first step of a generation of ``new_tokens`` tokens."""
    import torch

    loaded = backend._load()
    tokens = list(loaded.encoder.answer_tokens(ANSWERS))
    logits: list[float] = []
    for start in range(0, len(requests), BASELINE_BATCH):
        part = requests[start : start + BASELINE_BATCH]
        files = [[image.path for image in request.images] for request in part]
        prompts = [loaded.encoder.encode(request.prompt, paths) for request, paths in zip(part, files, strict=True)]
        batch = collate(loaded._collator, prompts, files)
        batch.pop("position_ids", None)
        if "image_grid_thw" in batch:
            batch["mm_token_type_ids"] = (batch["input_ids"] == loaded.network.config.image_token_id).int()
        with torch.inference_mode():
            output = loaded.network.generate(
                **batch, do_sample=False, min_new_tokens=new_tokens, max_new_tokens=new_tokens, output_logits=True,
                return_dict_in_generate=True, eos_token_id=loaded.encoder.stop_ids,
                pad_token_id=loaded.encoder.tokenizer.pad_token_id,
            )  # fmt: skip
        odds = output.logits[0].float().log_softmax(-1)[:, tokens]
        logits += (odds[:, 0] - odds[:, 1]).tolist()
    return logits


def ours(backend: HuggingFaceBackend, requests: list[Request]) -> list[float]:
    """Return the same numbers from the backend that the score stage uses."""
    return [answer.choice_logprobs[0] - answer.choice_logprobs[1] for answer in backend.complete(requests)]


def count(backend: HuggingFaceBackend, requests: list[Request]) -> dict[str, int]:
    """Return prompt tokens, tokens put through the language model with padding, images and forward passes of ours."""
    network = backend._load().network
    shapes: list[tuple[int, int]] = []

    def note(_: Any, __: Any, inputs: Mapping[str, Any]) -> None:
        shapes.append(tuple(inputs["input_ids"].shape))

    with network.register_forward_pre_hook(note, with_kwargs=True):
        answers = backend.complete(requests)
    return {
        "pairs": len(requests), "prompt_tokens": sum(answer.tokens_in for answer in answers),
        "model_tokens": sum(rows * length for rows, length in shapes), "forward_passes": len(shapes),
        "images": sum(len(request.images) for request in requests),
    }  # fmt: skip


def interleave(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return each way's median seconds; the ways take turns, so that a busy minute hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(model: ModelRef, users: int, side: int, repeats: int = 5) -> dict[str, Any]:
    """Assert equal scores, then time."""
    backend = HuggingFaceBackend(model)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = backend._load().encoder.tokenizer
        requests = make_workload(Path(folder), users, side, lambda text: len(tokenizer.encode(text)))
        counts = count(backend, requests)
        expected = generate(backend, requests, 2)
        worst = float(np.abs(np.subtract(ours(backend, requests), expected)).max())
        assert worst < 1e-4, f"scores differ by {worst}"
        seconds = interleave(
            {
                "ours": lambda: ours(backend, requests),
                "generate(2)": lambda: generate(backend, requests, 2),
                "generate(30)": lambda: generate(backend, requests, 30),
            },
            repeats,
        )
    return _result(counts, seconds, users, worst)


def _result(counts: dict[str, int], seconds: dict[str, float], users: int, worst: float) -> dict[str, Any]:
    return {
        "workload": f"score: {users} users x {SIZE} candidates, {counts['prompt_tokens'] // counts['pairs']} tokens",
        "ratio": seconds["generate(30)"] / seconds["ours"],
        "floor": FLOOR,
        "goal": GOAL,
        "ratio_2": seconds["generate(2)"] / seconds["ours"],
        "floor_2": FLOOR_2,
        "goal_2": GOAL_2,
        "ours_s": seconds["ours"],
        "baseline_s": seconds["generate(30)"],
        "limit_ratio": counts["model_tokens"] / counts["prompt_tokens"],
        "counts": counts,
        "worst_difference": worst,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "seconds": seconds,
    }


def main() -> None:
    """Print a table, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"{FULL_USERS} users instead of {DEFAULT_USERS}")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--model", default="tiny", help="model folder; default: the bundled tiny model")
    parser.add_argument("--template", default="qwen2_vl", help="LLaMA-Factory template of the model")
    parser.add_argument("--side", type=int, default=56, help="image side in pixels")
    options = parser.parse_args()
    limits = {"image_max_pixels": options.side**2, "image_min_pixels": 784}
    model = ModelRef(path=options.model, template=options.template, batch_size=OUR_BATCH, default_system="", **limits)
    result = measure(model, FULL_USERS if options.full else DEFAULT_USERS, options.side)
    print(result["workload"])
    for name, seconds in result["seconds"].items():
        print(f"  {name:14} {seconds:8.3f} s")
    print(f"  ours is {result['ratio']:.1f}x faster than generate(30) (floor {FLOOR}, goal {GOAL}), "
          f"{result['ratio_2']:.2f}x than generate(2) (floor {FLOOR_2}, goal {GOAL_2}); "
          f"{result['limit_ratio']:.2f} of the prompt tokens with padding; scores within "
          f"{result['worst_difference']:.0e}; peak {result['peak_rss_mb']:.0f} MB")  # fmt: skip
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
