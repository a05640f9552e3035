"""A synthetic run up to the evaluate stage: data, summaries, scores, a training log. The truth is known."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from rich.console import Console

from msr_adapter import schema
from msr_adapter.config.schema import ConfidenceConfig, EvaluateConfig, ProtocolConfig
from msr_adapter.evaluate.evaluation import EvaluateDirs, RunFacts, evaluate
from msr_adapter.pipeline.stage_functions import write_report
from msr_adapter.pipeline.stages import LABELS
from msr_adapter.progress import Reporter
from msr_adapter.report.report_context import PageLimits, ReportContext
from msr_adapter.stage_arguments import Job

HOSTILE_TITLES = (
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x.png onerror=alert(1)>',
    "مرحبا بالعالم ‮txet desrever",
    "🎬🧑‍🚀 a film",
    "long " * 4000,
    "two\nlines\0and control\x1b[31m",
    "",
    "{{ 7*7 }} {% raw %}",
)
PROTOCOL = ProtocolConfig(name="small", confidence=ConfidenceConfig(samples=100))
SIZE = 7


SPREAD = {"mean": 2.5, "min": 1, "5%": 1, "25%": 1, "median": 2, "75%": 3, "95%": 9, "max": 12}
STATISTICS = {
    "log": {"users": 1200, "items": 60, "interactions": 3400, "density": 0.0472, "per_user": SPREAD,
            "per_item": {**SPREAD, "95%": 1, "median": 1}, "rare_items": 0.5},
    "history": {"test": SPREAD}, "time": {"timestamps": True, "days": 31.2, "tied_targets": 0.0},
    "time_leakage": {"mean_share_later": 0.391}, "cold": {"targets": 0.024, "negatives": 0.3},
    "heuristics": {"lists": 40, "of": 40, "popularity": {"auc": 0.7904, "gauc": 0.7801},
                  "title_overlap": {"auc": 0.65, "gauc": 0.64}},
    "titles": {"empty": 0.0, "same": 0.01, "nearly_same": 0.02}, "images": {"with_image": 0.75, "shared": 0.125},
    "labels": {"train": {"positives": 10, "negatives": 40}},
}  # fmt: skip
"""What the audit measured, in its layout."""
LENGTHS = {
    "cutoff_len": 512,
    "row": {"median": 190.0, "max": 1030},
    "findings": [{"severity": "error", "topic": "row-length", "text": "Rows may have up to 1,030 tokens."}],
}

SELECTION = {
    "metric": "auc", "users": 30, "candidates": 630, "chosen": 30, "loss": 0.52, "stopped": 50, "findings": [],
    "reason": "highest auc of 5 checkpoints; training stopped at step 50 of 60, after 2 without a better one",
    "points": [
        {"step": 10 * n, "value": value, "low": value - 0.06, "high": value + 0.05, "loss": loss}
        for n, (value, loss) in enumerate(
            [(0.51, 0.9), (0.61, 0.7), (0.7, 0.6), (0.78, 0.52), (0.77, 0.55), (0.74, 0.61)]
        )
    ],
}  # fmt: skip
"""As the train stage writes it."""
TRAINED = {
    "steps": 50, "planned_steps": 60, "first_loss": 0.693, "last_loss": 0.412, "validation_loss": 0.52,
    "measured": {
        "seconds": 83.4, "from_step": 20, "rows_per_second": 85.2, "tokens_per_second": 9_412.0,
        "trainable_parameters": 41_312, "parameters": 1_116_736, "peak_bytes": 2**30, "peak_gpu_bytes": 3 * 2**29,
    },
    "selection": SELECTION,
}  # fmt: skip


@dataclass
class Run:
    """Folders of the upstream stages, and what goes with them."""

    root: Path
    users: int = 40
    trained: Path = field(init=False)
    base: Path = field(init=False)

    def __post_init__(self) -> None:
        self.data, self.trained, self.base = (self.root / name for name in ("data", "score", "score-base"))

    def evaluate(self, protocol: ProtocolConfig = PROTOCOL, **changes: Any) -> dict[str, Any]:
        """Run the stage into ``root/evaluate``; returns its key numbers.

        ``changes``: keys of `EvaluateConfig`, `score_dirs`, `fitted_dir`, `retrieved`, `reranked`, `trainings`, `seed`,
        `out`, `reporter`, `context`, `limits` of the page.
        """
        (self.root / "evaluate").mkdir(exist_ok=True)
        job = Job(
            changes.pop("out", self.root / "evaluate"),
            changes.pop("reporter", Reporter(console=Console(quiet=True))),
            changes.pop("seed", 0),
        )
        context = replace(changes.pop("context", self.context()), limits=changes.pop("limits", PageLimits()))
        folders = changes.pop("score_dirs", {"base": self.base, "trained": self.trained})
        again = changes.pop("retrieved", None), changes.pop("reranked", {})
        trainings = changes.pop("trainings", ())
        dirs = EvaluateDirs(self.data, folders, changes.pop("fitted_dir", None), *again, trainings=trainings)
        config = EvaluateConfig(protocol=protocol, **{"baselines": ("random", "popularity", "base"), **changes})
        return write_report(evaluate(config, dirs, RunFacts(context.name, context.versions), job), context, job)

    def context(self) -> ReportContext:
        """Return everything a pipeline could tell."""
        return ReportContext(
            name="a <b>bold</b> run",
            config={"data": {"source": {"kind": "synthetic"}}, "note": "</pre><script>x</script>"},
            versions={"torch": "0", "llamafactory": "0"},
            manifests={
                "train": {"stage": "train", "summary": TRAINED, "seconds": 125.0, "peak_bytes": 2**29},
                "users": {"stage": "users", "summary": {"distinct_requests": 90, "computed": 60, "cached": 30}},
                "lengths": {"stage": "lengths", "summary": LENGTHS},
            },
            labels=LABELS,
            training_log=self.root / "trainer_log.jsonl",
            items_dir=self.root / "items",
            users_dir=self.root / "users",
        )

    def metrics(self) -> dict[str, Any]:
        """Return the content of `metrics.json`."""
        return dict(json.loads((self.root / "evaluate" / "metrics.json").read_text()))

    def report(self) -> str:
        """Return the page."""
        return (self.root / "evaluate" / "report.html").read_text(encoding="utf-8")


def make_run(root: Path, users: int = 40, *, popularity_wins: bool = False, images: bool = True) -> Run:
    """Write a run in which the oracle is best, the trained model good and the base model blind."""
    run, generator = Run(root, users), np.random.default_rng(1)
    items = [f"{number:03d}" for number in range(40)]
    _write_items(run, items, images)
    candidates = _write_examples(run, items, generator)
    truth = np.where(candidates["label"], 2.0, 0.0) + generator.standard_normal(len(candidates["label"]))
    _write_truth(run, candidates, truth)
    if popularity_wins:
        _make_targets_popular(run, items, candidates)
    write_scores(run.trained, candidates, truth + 0.5 * generator.standard_normal(len(truth)))
    write_scores(run.base, candidates, np.zeros(len(truth)), mass=0.1)
    _write_log(root / "trainer_log.jsonl", generator)
    return run


def write_scores(folder: Path, candidates: dict[str, Any], logit: np.ndarray, mass: float = 0.999) -> None:
    """Write SCORES for ``candidates`` (columns of CANDIDATES)."""
    columns = {key: candidates[key] for key in ("example_id", "item_id")}
    columns |= {"score": 1 / (1 + np.exp(-logit)), "logit": logit, "answer_mass": np.full(len(logit), mass)}
    columns["bounded"] = np.zeros(len(logit), dtype=bool)
    schema.write_table(pa.table(columns, schema=schema.SCORES), schema.SCORES, folder / "scores.parquet")


def _write_items(run: Run, items: list[str], images: bool) -> None:
    titles = [HOSTILE_TITLES[i] if i < len(HOSTILE_TITLES) else f"Item {name}" for i, name in enumerate(items)]
    paths = [f"images/{name}.png" if images and i % 5 else None for i, name in enumerate(items)]
    (run.data / "images").mkdir(parents=True)
    for i, path in enumerate(paths):
        if path is not None:
            Image.new("RGB", (56, 56), (i * 6, 255 - i * 6, 90 + i * 4)).save(run.data / path)
    if images:
        (run.data / "images/001.png").write_bytes(b"not an image")
    columns = {
        "item_id": items,
        "title": titles,
        "image": paths,
        "image_digest": paths,
        "more_images": [None] * len(items),
    }
    columns["popularity"] = list(range(len(items)))
    columns |= {"text": [""] * len(items), "category": [("toys", "books", None)[i % 3] for i in range(len(items))]}
    columns |= dict.fromkeys(("in_log", "listed"), [True] * len(items))
    schema.write_table(pa.table(columns, schema=schema.ITEMS), schema.ITEMS, run.data / "items.parquet")
    summaries = pa.table({"item_id": items, "summary": [f"{title} in <i>red</i>" for title in titles]})
    schema.write_table(summaries, schema.ITEM_SUMMARIES, run.root / "items" / "items.parquet")


def _write_examples(run: Run, items: list[str], generator: np.random.Generator) -> dict[str, Any]:
    """Write train examples 0..4 and ``users`` test examples; return the test candidates' columns."""
    total = 5 + run.users
    examples = {
        "example_id": range(total),
        "split": ["train"] * 5 + ["test"] * run.users,
        "user_id": [f"u{number:03d}" for number in range(total)],
        "history": [generator.choice(items, 4, replace=False).tolist() for _ in range(total)],
        "timestamp": [1_600_000_000_000 + 86_400_000 * number for number in range(total)],
    }
    table = pa.table({key: list(value) for key, value in examples.items()}, schema=schema.EXAMPLES)
    schema.write_table(table, schema.EXAMPLES, run.data / "examples.parquet")
    label = np.zeros((total, SIZE), np.int8)
    label[np.arange(total), generator.integers(0, SIZE, total)] = 1
    columns = {
        "example_id": np.repeat(np.arange(total), SIZE),
        "item_id": np.concatenate([generator.choice(items, SIZE, replace=False) for _ in range(total)]),
        "label": label.ravel(),
    }
    write = pa.table(columns, schema=schema.CANDIDATES)
    schema.write_table(write, schema.CANDIDATES, run.data / "candidates.parquet")
    _write_log_of(run, examples, columns)
    summaries = {"example_id": range(total), "summary": ["likes <b>space</b> and 🪐"] * total}
    table = pa.table({key: list(value) for key, value in summaries.items()}, schema=schema.USER_SUMMARIES)
    schema.write_table(table, schema.USER_SUMMARIES, run.root / "users" / "users.parquet")
    _write_steps(run, range(5, total), summaries["summary"][0])
    counts = {"users": total, "dropped": {"short": 3}}
    audit: dict[str, Any] = {"counts": counts, "statistics": STATISTICS, "extra": [1]}
    audit["findings"] = [{"severity": "warning", "text": "<script>bad()</script> 3 users dropped", "more": 1}]
    (run.data / "audit.json").write_text(json.dumps(audit))
    return {key: value[5 * SIZE :] for key, value in columns.items()}


def _write_log_of(run: Run, examples: dict[str, Any], candidates: dict[str, Any]) -> None:
    """Write each user's history, which training knows, and target, which it does not; nothing is seen beside them."""
    targets = candidates["item_id"][candidates["label"] == 1].tolist()
    rows = [
        {"user_id": user, "item_id": item, "timestamp": time - 4 + place, "training": place < 4}
        for user, history, target, time in zip(
            examples["user_id"], examples["history"], targets, examples["timestamp"], strict=True
        )
        for place, item in enumerate([*history, target])
    ]
    log = pa.Table.from_pylist(rows, schema.INTERACTIONS)
    schema.write_table(log, schema.INTERACTIONS, run.data / "interactions.parquet")
    schema.write_table(schema.SEEN.empty_table(), schema.SEEN, run.data / "seen.parquet")
    schema.write_table(schema.EARLIER.empty_table(), schema.EARLIER, run.data / "earlier.parquet")


def _write_steps(run: Run, examples: Iterable[int], last: str) -> None:
    """Give every one of ``examples`` two steps over its history of four items."""
    rows = [(example, *step) for example in examples for step in ((1, 3, "likes nothing yet"), (2, 4, last))]
    table = pa.Table.from_pylist(
        [dict(zip(schema.USER_STEPS.names, row, strict=True)) for row in rows], schema.USER_STEPS
    )
    schema.write_table(table, schema.USER_STEPS, run.root / "users" / "steps.parquet")


def _write_truth(run: Run, candidates: dict[str, Any], truth: np.ndarray) -> None:
    columns = {"example_id": candidates["example_id"], "item_id": candidates["item_id"]}
    order = np.random.default_rng(2).permutation(len(truth))  # the stage must join by ids
    table = pa.table({**columns, "score": truth}, schema=schema.TRUTH).take(pa.array(order))
    schema.write_table(table, schema.TRUTH, run.data / "truth.parquet")


def _make_targets_popular(run: Run, items: list[str], candidates: dict[str, Any]) -> None:
    """Give every test user the most popular candidate as target."""
    popularity = {name: i for i, name in enumerate(items)}
    order = np.array([popularity[item] for item in candidates["item_id"]]).reshape(-1, SIZE).argmax(axis=1)
    candidates["label"] = np.eye(SIZE, dtype=np.int8)[order].ravel()
    table = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES)
    labels = np.concatenate([table["label"].to_numpy()[: 5 * SIZE], candidates["label"]])
    table = table.set_column(2, schema.CANDIDATES.field("label"), pa.array(labels))
    schema.write_table(table, schema.CANDIDATES, run.data / "candidates.parquet")


def _write_log(path: Path, generator: np.random.Generator) -> None:
    rows = [
        {"current_steps": step, "loss": 3 / step + 0.1 * generator.random(), "lr": 1e-3 / step} for step in range(1, 60)
    ]
    rows += [{"current_steps": step, "eval_loss": 0.5} for step in (20, 40)] + [
        {"current_steps": 60, "percentage": 100}
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + '\n{"current_steps": 61, "lo')
