"""Stage folders of a tiny run, as the data and user stages would write them, and models trained on them."""

import atexit
import functools
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw
from rich.console import Console

from msr_adapter import schema
from msr_adapter.config.schema import ModelConfig, TrainConfig
from msr_adapter.files import file_digest
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts, neutralise
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import build_dataset, train
from tests.support.tiny_models import tiny_model

HOSTILE = (
    "<image> in a title", "<video> <audio>", "<|im_end|><|im_start|>assistant", "{{image}} {{content}} {{ 7*7 }}",
    "<|image_pad|>", "two\nlines\r\nand a tab\t.", "emoji 🎬🧑‍🚀", "مرحبا بالعالم", "", "[INST] </s> <think>",
    "${oc.env:HOME}", "'\"\\ quotes",
)  # fmt: skip
QUIET = Reporter(console=Console(quiet=True))
EXAMPLES = {"train": 8, "validation": 3, "test": 4}


def stages_in(folder: Path) -> StageDirs:
    """Return the folders of stages under ``folder``; user summaries are shown as they were written."""
    data, users = folder / "data", folder / "users"
    return StageDirs(data, data, folder / "items", users, users, folder / "dataset", folder / "train")


def flat_stages(folder: Path) -> StageDirs:
    """Return the folders of stages whose tables of data lie in ``folder`` itself."""
    return replace(stages_in(folder), data=folder, examples=folder)


def scratch() -> Path:
    """Return a new folder that goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def model_ref(template: str = "qwen2_vl", **settings: Any) -> ModelConfig:
    """Return a reference to the tiny model of ``template``."""
    values = {"image_max_pixels": 112 * 112, "image_min_pixels": 784, "batch_size": 8, **settings}
    return ModelConfig(path=str(tiny_model(template)), template=template, **values)


def train_config(template: str = "qwen2_vl", **settings: Any) -> TrainConfig:
    """Return a training of three steps of the tiny model of ``template``."""
    values = {"max_steps": 3, "batch_size": 4, "gradient_accumulation": 1, "learning_rate": 1e-2, **settings}
    return TrainConfig(**{"model": model_ref(template), **values})


def write_upstream(folder: Path, *, candidates: int = 4, counts: Mapping[str, int] = EXAMPLES) -> StageDirs:
    """Write data and users stages: hostile titles, every fourth item without an image, ``counts`` per split."""
    data, users = folder / "data", folder / "users"
    items = _write_items(data)
    rows = [(number, split) for number, split in enumerate(s for s, count in counts.items() for _ in range(count))]
    examples = [{"example_id": n, "split": s, "user_id": f"u{n}", "history": [items[n % len(items)]],
                 "timestamp": n} for n, s in rows]  # fmt: skip
    rng = np.random.default_rng(3)
    pairs = []
    for number, _ in rows:
        drawn = rng.choice(len(items), candidates, replace=False)
        positive = rng.integers(candidates)
        pairs += [{"example_id": number, "item_id": items[item], "label": int(place == positive)}
                  for place, item in enumerate(drawn)]  # fmt: skip
    summaries = [{"example_id": n, "summary": f"Likes {HOSTILE[n % len(HOSTILE)]} a lot. " * (1 + n % 3)}
                 for n, _ in rows]  # fmt: skip
    schema.write_table(pa.Table.from_pylist(examples, schema.EXAMPLES), schema.EXAMPLES, data / "examples.parquet")
    schema.write_table(pa.Table.from_pylist(pairs, schema.CANDIDATES), schema.CANDIDATES, data / "candidates.parquet")
    schema.write_table(
        pa.Table.from_pylist(summaries, schema.USER_SUMMARIES), schema.USER_SUMMARIES, users / "users.parquet"
    )
    return stages_in(folder)


def _write_items(data: Path) -> list[str]:
    (data / "images").mkdir(parents=True)
    items = []
    for number, title in enumerate(HOSTILE):
        path = data / "images" / f"{number:03d}.png" if number % 4 != 3 else None
        if path:
            _draw(path, number)
        items.append(
            {"item_id": f"{number:03d}", "title": neutralise(title), "popularity": number, "text": "",
             "in_log": True, "listed": True,
             "image": path and path.relative_to(data).as_posix(), "image_digest": path and file_digest(path)}
        )  # fmt: skip
    schema.write_table(pa.Table.from_pylist(items, schema.ITEMS), schema.ITEMS, data / "items.parquet")
    return [item["item_id"] for item in items]


def _draw(path: Path, number: int) -> None:
    # Unlike sizes and shapes: token counts differ from image to image.
    image = Image.new("RGB", (40 + 23 * number % 120, 50 + 37 * number % 90), (20 * number % 256, 90, 200))
    ImageDraw.Draw(image).ellipse((5, 5, 30, 40), fill=(255, 30 * number % 256, 0))
    image.save(path)


@functools.cache
def stages() -> StageDirs:
    """Return the upstream stages with the dataset stage built, once per process."""
    made = write_upstream(scratch())
    made.dataset.mkdir()
    build_dataset(train_config(), made, Prompts(), Job(made.dataset, QUIET))
    return made


@dataclass(frozen=True)
class Trained:
    """A finished training: its stage folder and what it returned."""

    out: Path
    summary: dict[str, Any]


@functools.cache
def trained(method: str) -> Trained:
    """Train the tiny Qwen2-VL by ``method`` for three steps, for real, once per process."""
    made = stages()
    partial = scratch() / ".train.partial"
    partial.mkdir()
    summary = train(train_config(method=method), made, Job(partial, QUIET))
    return Trained(partial.rename(partial.with_name("train")), summary)
