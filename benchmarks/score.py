"""Candidate scoring: what prompts share computed once, against plain forward passes and against generating the answer.

Workload: users x 21 candidates with an image each, a user summary of about 120 tokens, prompts through LLaMA-Factory's
template in every way, image processing included. With users first, a user's candidates share the user summary; with
items first, all users who have the same candidate share its image and title; reuse 1 gives every user items of their
own.

- generate(30): batches of 6 in the given order, exactly 30 new tokens, as published scripts do.
- generate(2): the same, 2 new tokens: where a tuned model stops by itself.
- plain: one forward pass per prompt, one position's logits, sorted by length, in batches.
- ours: what the score stage does.

Scores of all ways agree within 1e-4, and AUC, HR, MRR and NDCG are identical, before any ratio is printed.

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PillowImage

from msr_adapter.backends.huggingface import HuggingFaceBackend, fit_device
from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.candidate_rows import ANSWERS
from msr_adapter.config.schema import ModelConfig
from msr_adapter.files import file_digest
from msr_adapter.generation.request import Image, Request
from msr_adapter.llamafactory.prompt_encoder import collate
from msr_adapter.metrics import evaluate_groups
from msr_adapter.prompts import Prompts

SIZE = 21
BASELINE_BATCH, OUR_BATCH = 6, 64
FLOOR, GOAL = 7.0, 12.0
FLOOR_2, GOAL_2 = 3.0, 4.8
FLOOR_PLAIN, GOAL_PLAIN = 2.8, 3.5
MOST_TOKENS = 1.1
"""Tokens processed, padding included, over those of the prefix tree."""
DEFAULT_USERS, FULL_USERS = 3, 5
TEXT = "bold quiet red comic covers with dogs, ships and night scenes in short funny stories about old friends"
METRICS = ("auc", "gauc", "hr", "mrr", "ndcg")


@dataclass(frozen=True)
class Case:
    """One workload."""

    order: str
    side: int
    """Of the images, in pixels: 56 make 4 image tokens, 224 make 64."""
    reuse: bool
    """Whether all users have the same candidates."""

    @property
    def name(self) -> str:
        """What the tables call it."""
        tokens = (self.side // 28) ** 2
        return f"{self.order} first, {tokens} image tokens, {'items shared by all users' if self.reuse else 'reuse 1'}"


HEADLINE = Case("users", 56, True)


def make_workload(folder: Path, case: Case, users: int, count: Callable[[str], int]) -> list[Request]:
    """Return every user's requests, user by user; texts vary by 30% in length; ``count`` counts tokens."""
    generator = np.random.default_rng(0)
    prompts = Prompts(question="recommend" if case.order == "users" else "recommend-image-first")
    images = []
    for number in range(SIZE if case.reuse else SIZE * users):
        path = folder / f"{case.side}-{number}.png"
        pixels = generator.integers(0, 255, (case.side, case.side, 3), dtype=np.uint8)
        PillowImage.fromarray(pixels).save(path)
        images.append(Image(path, file_digest(path)))

    def say(tokens: int) -> str:
        words, wanted = "", tokens * generator.uniform(0.7, 1.3)
        while count(words) < wanted:
            words += f" {generator.choice(TEXT.split())}"
        return words.strip()

    titles = [say(15) for _ in images]
    summaries = [say(120) for _ in range(users)]
    met = [range(SIZE) if case.reuse else range(SIZE * user, SIZE * (user + 1)) for user in range(users)]
    return [
        Request("benchmark", prompts.recommend(summaries[user], titles[item], image=True), (images[item],), ANSWERS)
        for user in range(users)
        for item in met[user]
    ]


class Ways:
    """The ways of scoring the same requests with the same model; each call starts with nothing remembered."""

    def __init__(self, model: ModelConfig) -> None:
        self.backend = HuggingFaceBackend(model)
        self.loaded = self.backend._load()
        self.requests: list[Request] = []

    def generate(self, new_tokens: int) -> list[float]:
        """Return log p(yes) - log p(no) from the first step of a generation of ``new_tokens`` tokens."""
        import torch

        self._forget()
        loaded = self.loaded
        tokens = list(loaded.encoder.answer_tokens(ANSWERS))
        logits: list[float] = []
        for start in range(0, len(self.requests), BASELINE_BATCH):
            part = self.requests[start : start + BASELINE_BATCH]
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
            difference = output.logits[0].float().log_softmax(-1)[:, tokens]
            logits += (difference[:, 0] - difference[:, 1]).tolist()
        return logits

    def plain(self) -> list[float]:
        """Return the same from one forward pass per prompt, sorted by length, in batches."""
        self._forget()
        encode = self.loaded.encoder.encode
        work = [
            (request, encode(request.prompt, [image.path for image in request.images])) for request in self.requests
        ]
        order = sorted(range(len(work)), key=lambda at: -len(work[at][1]))
        logits = np.empty(len(work))
        room = BatchSizer(OUR_BATCH)
        fit_device(room, self.loaded.network)
        passes = room.each(
            order, lambda at: len(work[at][1]), lambda part: self.loaded.score([work[at] for at in part])
        )
        for part, answers in passes:
            logits[list(part)] = [answer.choice_logprobs[0] - answer.choice_logprobs[1] for answer in answers]
        return list(logits.tolist())

    def ours(self) -> list[float]:
        """Return the same as the score stage does."""
        self._forget()
        answers = self.backend.complete(self.requests)
        return [answer.choice_logprobs[0] - answer.choice_logprobs[1] for answer in answers]

    def counts(self) -> dict[str, int]:
        """Return what one call of ours takes."""
        before = self.backend.stats.counts()
        self.ours()
        return {name: value - before[name] for name, value in self.backend.stats.counts().items()}

    def _forget(self) -> None:
        self.loaded.prefix_cache.forget()
        self.loaded.encoder._expansions.clear()


def check(case: Case, ways: Ways, counts: Mapping[str, int], users: int) -> float:
    """Assert equal scores and metrics, and the counts; return the largest difference of a score."""
    expected = ways.generate(2)
    worst = 0.0
    for found in (ways.plain(), ways.ours()):
        worst = max(worst, float(np.abs(np.subtract(found, expected)).max()))
        assert judge(found, users) == judge(expected, users), f"{case.name}: the metrics differ"
    assert worst < 1e-4, f"{case.name}: scores differ by {worst}"
    shown = SIZE if case.reuse else SIZE * users
    assert counts["images_encoded"] == shown, f"{case.name}: {counts['images_encoded']} images encoded of {shown}"
    return worst


def judge(logits: Sequence[float], users: int) -> dict[str, float]:
    """Return ranking metrics of the scores, the true item of each user drawn by seed."""
    labels = np.zeros((users, SIZE), np.int8)
    labels[np.arange(users), np.random.default_rng(1).integers(SIZE, size=users)] = 1
    found = evaluate_groups(
        np.asarray(logits), labels.ravel(), np.arange(0, users * SIZE + 1, SIZE), METRICS, (1, 5, 10)
    )
    return {**found.pooled, **{name: float(values.mean()) for name, values in found.per_user.items()}}


def interleave(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return each way's median seconds; the ways take turns, so that a busy minute hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(case: Case, ways: Ways, users: int, folder: Path, timed: Sequence[str], repeats: int) -> dict[str, Any]:
    """Check one case, then time the ways ``timed`` beside ours."""
    tokenizer = ways.loaded.encoder.tokenizer
    ways.requests = make_workload(folder, case, users, lambda text: len(tokenizer.encode(text)))
    counts = ways.counts()
    worst = check(case, ways, counts, users)
    known: dict[str, Callable[[], object]] = {
        "plain": ways.plain, "generate(2)": lambda: ways.generate(2), "generate(30)": lambda: ways.generate(30),
    }  # fmt: skip
    seconds = interleave({"ours": ways.ours, **{name: known[name] for name in timed}}, repeats)
    return {
        "case": case.name, "counts": counts, "worst_difference": worst, "seconds": seconds,
        "ratios": {name: seconds[name] / seconds["ours"] for name in timed},
        "tokens_over_tree": counts["tokens_processed"] / counts["tokens_least"],
        "tokens_over_flat": counts["tokens_processed"] / counts["tokens_flat"],
    }  # fmt: skip


def run(model: ModelConfig, users: int, *, full: bool) -> list[dict[str, Any]]:
    """Measure the headline case in all ways, and the others: against a plain pass, or with ``full`` in all ways too."""
    ways = Ways(model)
    every = [Case(order, side, reuse) for reuse in (True, False) for side in (56, 224) for order in ("users", "items")]
    others = [case for case in every if case != HEADLINE and (full or case.reuse)]
    all_ways = ("plain", "generate(2)", "generate(30)")
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(HEADLINE, ways, users, Path(folder), all_ways, 5)]
        timed, repeats = (all_ways, 3) if full else (("plain",), 1)
        return found + [measure(case, ways, users, Path(folder), timed, repeats) for case in others]


def result(found: Sequence[Mapping[str, Any]], users: int) -> dict[str, Any]:
    """Return the JSON object; its headline is the first case."""
    first = found[0]
    return {
        "workload": f"score: {users} users x {SIZE} candidates, {first['case']}",
        "ratio": first["ratios"]["generate(30)"],
        "floor": FLOOR,
        "goal": GOAL,
        "ratio_2": first["ratios"]["generate(2)"],
        "floor_2": FLOOR_2,
        "goal_2": GOAL_2,
        "ratio_plain": first["ratios"]["plain"],
        "floor_plain": FLOOR_PLAIN,
        "goal_plain": GOAL_PLAIN,
        "ours_s": first["seconds"]["ours"],
        "baseline_s": first["seconds"]["generate(30)"],
        "limit_ratio": first["tokens_over_tree"],
        "limit_ratio_most": MOST_TOKENS,
        "counts": first["counts"],
        "worst_difference": max(case["worst_difference"] for case in found),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cases": list(found),
    }


def tell(made: Mapping[str, Any]) -> None:
    """Print a table."""
    print(made["workload"])
    for name, seconds in made["cases"][0]["seconds"].items():
        print(f"  {name:14} {seconds:8.3f} s")
    goals = {"generate(30)": (FLOOR, GOAL), "generate(2)": (FLOOR_2, GOAL_2), "plain": (FLOOR_PLAIN, GOAL_PLAIN)}
    for name, (floor, goal) in goals.items():
        print(f"  ours is {made['cases'][0]['ratios'][name]:.1f}x faster than {name} (floor {floor}, goal {goal})")
    print(f"  {'case':58} {'tokens':>8} {'of flat':>8} {'of tree':>8} {'images':>11}   faster than")
    for case in made["cases"]:
        counts = case["counts"]
        ratios = ", ".join(f"{name} {ratio:.1f}x" for name, ratio in case["ratios"].items())
        images = f"{counts['images_encoded']}/{counts['images_shown']}"
        print(f"  {case['case']:58} {counts['tokens_processed']:>8,} {case['tokens_over_flat']:>8.0%} "
              f"{case['tokens_over_tree']:>8.3f} {images:>11}   {ratios}")  # fmt: skip
    print(f"  scores within {made['worst_difference']:.0e}, metrics identical; peak {made['peak_rss_mb']:.0f} MB")


def main() -> None:
    """Print a table, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"{FULL_USERS} users instead of {DEFAULT_USERS}, all ways")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--model", default="tiny", help="model folder; default: the bundled tiny model")
    parser.add_argument("--template", default="qwen2_vl", help="LLaMA-Factory template of the model")
    options = parser.parse_args()
    limits = {"image_max_pixels": 224**2, "image_min_pixels": 784}
    model = ModelConfig(
        path=options.model, template=options.template, batch_size=OUR_BATCH, default_system="", **limits
    )
    users = FULL_USERS if options.full else DEFAULT_USERS
    made = result(run(model, users, full=options.full), users)
    tell(made)
    over = [case["case"] for case in made["cases"] if case["tokens_over_tree"] > MOST_TOKENS]
    if over:
        print(f"  more than {MOST_TOKENS} of the prefix tree: {'; '.join(over)}")
    if options.json:
        print(json.dumps(made))


if __name__ == "__main__":
    main()
