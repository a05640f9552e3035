"""What batching is worth to the model alone: 8 requests of 5 pairs in one call, against one call a pair.

No HTTP and no cache: processor time of the model's thread, on one thread. Of the demo's tiny model, and of one with the
same tokenizer that is 256 wide with 8 layers (random weights): the wider it is, the more of the time is arithmetic,
which a batch spares only as far as its prompts begin alike (tokens with and without that are told).

    python benchmarks/serve_batches.py --run-dir RUN [--rounds 3]

RUN is a run of the demo with a trained model, such as `benchmarks/serve.py --run-dir` takes.
"""

# ruff: noqa: E402 - threads are pinned before anything heavy is imported
import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import polars as pl

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.config.loader import load_pipeline
from msr_adapter.generation import Image, Request
from msr_adapter.pipeline.stage_context import prompts_of

WORDS = [
    "bold",
    "quiet",
    "red",
    "comic",
    "covers",
    "dogs",
    "ships",
    "night",
    "scenes",
    "short",
    "funny",
    "stories",
    "old",
    "friends",
]
WIDTH, LAYERS, HEADS = 256, 8, 8
REQUESTS, PAIRS, CATALOGUE = 8, 5, 40


class Asker:
    """Makes pairs of new user summaries and items of a run."""

    def __init__(self, run: Path) -> None:
        self._prompts = prompts_of(load_pipeline("demo").pipeline)
        self._data = run / "data"
        self._items = pl.read_parquet(self._data / "items.parquet", glob=False).head(CATALOGUE).to_dicts()
        self._random = random.Random(1)

    def pairs(self, requests: int) -> list[Request]:
        """Return the pairs of some requests, none of which was made before."""
        made = []
        for _ in range(requests):
            summary = " ".join(self._random.sample(WORDS, 12))
            for item in self._random.sample(self._items, PAIRS):
                image = Image(self._data / item["image"], item["image_digest"])
                prompt = self._prompts.recommend(summary, item["title"], True)
                made.append(Request(str(self._random.random()), prompt, (image,), choices=("Yes", "No")))
        return made


def widened(tiny: Path, folder: Path) -> Path:
    """Write a wider model of random weights beside the tokenizer of ``tiny``; return its folder."""
    import torch
    from transformers import AutoConfig, Qwen2VLForConditionalGeneration

    shutil.copytree(tiny, folder)
    config = AutoConfig.from_pretrained(tiny)
    text = config.get_text_config()
    text.hidden_size, text.num_hidden_layers, text.intermediate_size = WIDTH, LAYERS, WIDTH * 11 // 4
    text.num_attention_heads, text.num_key_value_heads = HEADS, HEADS // 2
    text.layer_types = ["full_attention"] * LAYERS
    config.vision_config.hidden_size = WIDTH
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    return folder


def measure(model: Path, asker: Asker, rounds: int) -> dict[str, float]:
    """Return milliseconds of the thread for all pairs together and pair by pair (medians), and tokens."""
    config = load_pipeline("demo").pipeline.train.model.model_copy(update={"path": str(model)})
    backend = HuggingFaceBackend(config)
    backend.complete(asker.pairs(REQUESTS))  # loads it
    together, apart = [], []
    flat, planned = backend.stats.tokens_flat, backend.stats.tokens_planned
    for _ in range(rounds):
        pairs = asker.pairs(REQUESTS)
        begun = time.thread_time()
        backend.complete(pairs)
        together.append(time.thread_time() - begun)
        if not apart:
            flat, planned = backend.stats.tokens_flat - flat, backend.stats.tokens_planned - planned
        pairs = asker.pairs(REQUESTS)
        begun = time.thread_time()
        for one in pairs:
            backend.complete([one])
        apart.append(time.thread_time() - begun)
    found = {"together_ms": 1000 * statistics.median(together), "pair_by_pair_ms": 1000 * statistics.median(apart)}
    return found | {"ratio": found["pair_by_pair_ms"] / found["together_ms"], "tokens_ratio": flat / planned}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    asker, tiny = Asker(options.run_dir), options.run_dir / "train" / "model"
    with tempfile.TemporaryDirectory() as folder:
        for name, model in (("tiny", tiny), (f"{WIDTH} x {LAYERS}", widened(tiny, Path(folder, "wide")))):
            found = measure(model, asker, options.rounds)
            print(name, ", ".join(f"{key} {value:.2f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
