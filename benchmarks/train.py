"""Where training time goes on a processor: a LoRA of SmolLM2, as LLaMA-Factory trains it and as msr has it trained.

Each way takes the same steps over the same rows in the same order (yes/no rows of MicroLens-50k titles), in a trainer
of its own, one after the other: LLaMA-Factory's own defaults first, then one thing more each time. Counted
are processor and clock seconds of all steps but the first. Before any ratio: in float32 the losses of every step are
those of LLaMA-Factory within 1e-4, which the script asserts; in bfloat16 the difference is told.

It needs SmolLM2 (`msr get-model smollm2`) and MicroLens-50k (../shared/data or MSR_SHARED_DATA).

    python benchmarks/train.py --model models/smollm2 [--steps 6] [--threads 1] [--full-weights] [--json]
"""

import argparse
import json
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
from msr_adapter.llamafactory.launcher import child_environment
from msr_adapter.llamafactory.training_yaml import training_config, write_yaml

PIPELINE = "microlens-50k-smollm2-yes-no"
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


def build(model: Path, folder: Path, steps: int, method: str) -> tuple[Any, Path]:
    """Build as many rows as are needed; return the pipeline's config and its run folder."""
    shared = Path(os.environ.get("MSR_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data") / "microlens-50k"
    if not (shared / "MicroLens-50k_pairs.tsv").is_file() or not (model / "config.json").is_file():
        sys.exit(f"MicroLens-50k ({shared}) or SmolLM2 ({model}) is not there; see the head of this file")
    settings = [
        f"data.source.pairs={shared}/MicroLens-50k_pairs.tsv", f"data.source.titles={shared}/MicroLens-50k_titles.csv",
        "split.max_history=6", "train.model.dtype=float32", "train.scheduler=cosine",
        f"data.limit.users={max(100, steps * 8)}",
        f"train.max_steps={steps}", f"train.method={method}",
        *(f"{part}.model.path={model.resolve()}" for part in ("summarize.items", "summarize.users", "train")),
    ]  # fmt: skip
    flags = [part for setting in settings for part in ("--set", setting)]
    run = [sys.executable, "-m", "msr_adapter", "build-data", PIPELINE, "--run-dir", str(folder), *flags]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return load_pipeline(PIPELINE, settings).pipeline, folder


def take_steps(config: Any, run: Path, out: Path, way: tuple[dict[str, Any], bool], threads: int) -> Steps:
    """Train in a process of its own."""
    (chosen, answers_alone), out = way, out.resolve()
    overrides = {"disable_gradient_checkpointing": not chosen["checkpointing"], "logging_steps": 1}
    train = config.train.model_copy(
        update={"precision": chosen["precision"], "overrides": overrides, "checkpoints": 0, "warmup_ratio": 0.0}
    )
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
    """Run all ways and print their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2"))
    parser.add_argument("--steps", type=int, default=6, help="of 8 rows, the first is not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--full-weights", action="store_true", help="all weights, in place of LoRA")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
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
