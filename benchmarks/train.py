"""Where training time goes on a processor: a LoRA of SmolLM2, as LLaMA-Factory trains it and as msr has it trained.

Each way takes the same steps over the same rows in the same order (yes/no rows of MicroLens-50k titles), in a trainer
of its own, one after the other: LLaMA-Factory's own defaults first, then one thing more each time. Counted
are processor and clock seconds of all steps but the first. Before any ratio: in float32 the losses of every step are
those of LLaMA-Factory within 1e-4, which the script asserts; in bfloat16 the difference is told.

With `--batches` it asks something else: one pass over lists of titles with all weights, in bfloat16 and with the loss
on every token, in batches at random and in batches of similar length (`train.batches`); counted are the seconds of all
steps, and the tokens that the trainer was handed, padding included.

It needs SmolLM2 (`msr get-model smollm2`) and MicroLens-50k (../shared/data or MSR_SHARED_DATA).

    python benchmarks/train.py --model models/smollm2 [--steps 6] [--threads 1] [--full-weights] [--json]
    python benchmarks/train.py --model models/smollm2 --batches --steps 12 --threads 2
    python benchmarks/train.py --model models/smollm2 --count --steps 175
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.config.loader import load_pipeline
from msr_adapter.llamafactory import trainer_entrypoint
from msr_adapter.llamafactory.answer_logits import ON, VARIABLE, said
from msr_adapter.llamafactory.dataset import TRAIN, count_rows, read_rows
from msr_adapter.llamafactory.launcher import child_environment
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.training_yaml import training_config, write_yaml
from msr_adapter.train.dataset import measure_request

PIPELINE, LISTS = "microlens-50k-smollm2-yes-no", "microlens-50k-smollm2"
GOAL = 2.0
ALIKE = 1e-4
WAYS: dict[str, tuple[dict[str, Any], bool]] = {
    "LLaMA-Factory's defaults": ({"precision": "float32", "checkpointing": True}, False),
    "without gradient checkpointing": ({"precision": "float32", "checkpointing": False}, False),
    "and logits at the answers alone (msr's defaults)": ({"precision": "float32", "checkpointing": False}, True),
    "and in bfloat16 (train.precision)": ({"precision": "bfloat16", "checkpointing": False}, True),
}


@dataclass(frozen=True)
class Steps:
    """What the steps of one way took, and their losses."""

    cpu_s: float
    wall_s: float
    losses: list[float]
    peak_mb: int
    said: str


def build(model: Path, folder: Path, steps: int, method: str, pipeline: str = PIPELINE) -> tuple[Any, Path]:
    """Build as many rows as are needed; return the pipeline's config and its run folder."""
    shared = Path(os.environ.get("MSR_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data") / "microlens-50k"
    if not (shared / "MicroLens-50k_pairs.tsv").is_file() or not (model / "config.json").is_file():
        sys.exit(f"MicroLens-50k ({shared}) or SmolLM2 ({model}) is not there; see the head of this file")
    settings = [
        f"data.source.pairs={shared}/MicroLens-50k_pairs.tsv", f"data.source.titles={shared}/MicroLens-50k_titles.csv",
        *(["split.max_history=6"] if pipeline == PIPELINE else []), "train.model.dtype=float32",
        "train.scheduler=cosine", f"data.limit.users={max(100, steps * 8)}",
        f"train.max_steps={steps}", f"train.method={method}",
        *(f"{part}.model.path={model.resolve()}" for part in ("summarize.items", "summarize.users", "train")),
    ]  # fmt: skip
    flags = [part for setting in settings for part in ("--set", setting)]
    run = [sys.executable, "-m", "msr_adapter", "build-data", pipeline, "--run-dir", str(folder), *flags]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return load_pipeline(pipeline, settings).pipeline, folder


def take_steps(config: Any, run: Path, out: Path, way: tuple[dict[str, Any], bool], threads: int) -> Steps:
    """Train in a process of its own."""
    (chosen, answers_alone), out = way, out.resolve()
    overrides = {"disable_gradient_checkpointing": not chosen["checkpointing"], "logging_steps": 1}
    train = config.train.model_copy(
        update={
            "precision": chosen["precision"], "overrides": overrides | chosen.get("overrides", {}), "checkpoints": 0,
            "warmup_ratio": 0.0, "batches": chosen.get("batches", "random"),
        }
    )  # fmt: skip
    out.mkdir()
    arguments = training_config(train, run / "data", run / "dataset", out / "model", 0)
    write_yaml(out / "train.yaml", arguments, "A benchmark's.")
    environment = child_environment(os.environ, out / "cache", small=False) | {"OMP_NUM_THREADS": str(threads)}
    environment |= {VARIABLE: "1"} if answers_alone else {}
    command = [sys.executable, "-P", trainer_entrypoint.__file__, str(os.getpid()), "train", str(out / "train.yaml")]
    seen: list[tuple[float, float]] = []
    peak = 0
    with (out / "train.log").open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT, env=environment)
        while process.poll() is None:
            told = len(_losses(out / "model"))
            if told > len(seen):
                seen += [(_cpu_seconds(process.pid), time.monotonic())] * (told - len(seen))
            peak = _peak_mb(process.pid) or peak
            time.sleep(0.02)
    if process.returncode:
        sys.exit((out / "train.log").read_text(errors="replace")[-3000:])
    told_so = said(out / "train.log")
    if answers_alone and ON.removeprefix("msr: ") not in told_so:
        sys.exit(f"the trainer did not compute logits at the answers alone: {told_so or 'it said nothing'}")
    (first_cpu, first), (last_cpu, last) = seen[0], seen[train.max_steps - 1]
    return Steps(last_cpu - first_cpu, last - first, _losses(out / "model"), peak, told_so)


def count_padding(model: Path, steps: int) -> None:
    """Print the tokens of one pass over lists, by themselves and as each kind of batches pads them; trains nothing."""
    import torch
    from transformers.trainer_pt_utils import get_length_grouped_indices

    with tempfile.TemporaryDirectory() as name:
        config, run = build(model, Path(name) / "run", math.ceil(steps / 0.7), "full", LISTS)
        encoder, size = Encoder(config.train.model), config.train.batch_size
        asked = [measure_request(row, run / "data") for row in read_rows(run / "dataset" / TRAIN)]
        lengths = [encoder.row_length(one.prompt, (), one.answers[0]) for one in asked]
    drawn = torch.Generator().manual_seed(0)
    orders = {
        "random": torch.randperm(len(lengths), generator=drawn).tolist(),
        "similar-length": get_length_grouped_indices(lengths, size, generator=drawn),
    }
    print(f"{len(lengths):,} rows, {sum(lengths):,} tokens")
    for batches, order in orders.items():
        cut = [[lengths[place] for place in order[begin : begin + size]] for begin in range(0, len(order), size)]
        padded = sum(max(batch) * len(batch) for batch in cut)
        print(f"{batches}: {padded:,} with padding, {padded / sum(lengths):.2f} times")


def compare_batches(model: Path, steps: int, threads: int) -> None:
    """Train one pass both ways and print seconds and tokens."""
    print("| batches | tokens with padding | s of all steps | ratio | last loss |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        # Seven tenths of the users are trained on.
        config, run = build(model, Path(name) / "run", math.ceil(steps / 0.7), "full", LISTS)
        first, steps = None, math.ceil(count_rows(run / "dataset" / TRAIN) / config.train.batch_size)
        for batches in ("random", "similar-length"):
            counted = {"include_num_input_tokens_seen": "all"}
            chosen = {"precision": "bfloat16", "checkpointing": False, "batches": batches, "overrides": counted}
            limited = config.model_copy(update={"train": config.train.model_copy(update={"max_steps": steps})})
            took = take_steps(limited, run, Path(name) / batches, (chosen, False), threads)
            model_dir = Path(name) / batches / "model"
            seconds = json.loads((model_dir / "train_results.json").read_text())["train_runtime"]
            tokens = json.loads((model_dir / "trainer_state.json").read_text())["num_input_tokens_seen"]
            first = first or seconds
            print(f"| {batches} | {tokens:,} | {seconds:.0f} | {first / seconds:.2f}x | {took.losses[-1]:.3f} |",
                  flush=True)  # fmt: skip


def _losses(model: Path) -> list[float]:
    log = model / "trainer_log.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row["loss"] for row in rows if "loss" in row]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    """Run all ways, or both kinds of batches, and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"))
    parser.add_argument("--steps", type=int, default=6, help="of 8 rows, the first is not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--full-weights", action="store_true", help="all weights, in place of LoRA")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--batches", action="store_true", help="random ones against those of similar length")
    parser.add_argument("--count", action="store_true", help="the tokens of both kinds of batches; trains nothing")
    asked = parser.parse_args()
    if asked.count:
        count_padding(asked.model, asked.steps)
        return
    if asked.batches:
        compare_batches(asked.model, asked.steps, asked.threads)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config, run = build(asked.model, folder / "run", asked.steps, "full" if asked.full_weights else "lora")
        took = {
            way: take_steps(config, run, folder / str(number), how, asked.threads)
            for number, (way, how) in enumerate(WAYS.items())
        }
    plain, *others = took.values()
    for way, steps in zip(list(took)[1:], others, strict=True):
        apart = max(abs(one - other) for one, other in zip(plain.losses, steps.losses, strict=True))
        assert apart <= ALIKE or "bfloat16" in way, (way, plain.losses, steps.losses)
    if asked.json:
        print(json.dumps({way: vars(steps) for way, steps in took.items()}))
        return
    print("| way | CPU s a step | s a step | ratio (CPU) | peak MB | largest difference of a step's loss |")
    print("|---|---:|---:|---:|---:|---:|")
    for way, steps in took.items():
        apart = max(abs(one - other) for one, other in zip(plain.losses, steps.losses, strict=True))
        each, ratio = asked.steps - 1, plain.wall_s / steps.wall_s
        print(f"| {way} | {steps.cpu_s / each:.2f} | {steps.wall_s / each:.2f} | {ratio:.2f}x "
              f"({plain.cpu_s / steps.cpu_s:.2f}x) | {steps.peak_mb:,} | {apart:.1e} |")  # fmt: skip
    print(f"goal: {GOAL}x", *sorted({steps.said for steps in others if steps.said}), sep="\n")


if __name__ == "__main__":
    main()
