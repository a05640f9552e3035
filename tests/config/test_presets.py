"""The paper's settings and those of its published code: every number, what differs, and that they would start."""

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from msr_adapter.config.bundled import bundled_files
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.config.schema import SourceConfig
from msr_adapter.pipeline import check
from tests.support.reader_fixtures import amazon_jsonl, microlens_csv, official

LLAVA, LLAMA = "llava-hf/llava-v1.6-mistral-7b-hf", "meta-llama/Meta-Llama-3-8B-Instruct"
PRESETS = ("microlens-50k-paper", "microlens-50k-released-code", "amazon-video-games-paper",
           "amazon-video-games-released-code")  # fmt: skip
PAPER = {
    "train.model.path": LLAVA, "summarize.items.model.path": LLAVA, "summarize.users.model.path": LLAMA,
    "train.method": "lora", "train.lora.rank": 8, "train.learning_rate": 2e-5, "train.batch_size": 1,
    "train.gradient_accumulation": 8, "train.epochs": 10, "train.max_steps": None, "train.train_on_prompt": True,
    "train.cutoff_len": 512 + 2_928, "summarize.users.block": 3, "summarize.items.mode": "fusion",
    "train.negatives.count": 1, "evaluate.protocol.negatives.count": 20, "evaluate.protocol.name": "paper",
    "data.k_core": {"users": 7, "items": 5}, "split.kind": "user-holdout", "split.fractions": [0.8, 0.1, 0.1],
    "data.limit": {"users": None, "items": None, "unseen_items": None},
}  # fmt: skip
CODE = PAPER | {
    "train.lora": {"rank": 16, "alpha": 32, "dropout": 0.1, "target": "all"}, "train.epochs": 4,
    "train.gradient_accumulation": 4, "train.cutoff_len": 1_024 + 2_928, "summarize.items.mode": "image",
    "evaluate.protocol.name": "released-code", "evaluate.protocol.target": "most-popular-last",
    "split.max_history": 5,
}  # fmt: skip
del CODE["train.lora.rank"]
NUMBERS: Mapping[str, Mapping[str, Any]] = {
    "microlens-50k-paper": PAPER,
    "microlens-50k-released-code": CODE,
    "amazon-video-games-paper": PAPER | {"data.k_core": {"users": 6, "items": 5}, "data.source.kind": "amazon-2023"},
    "amazon-video-games-released-code": CODE
    | {"data.k_core": {"users": 1, "items": 1}, "data.source.kind": "mllm-msr-amazon", "split.kind": "column",
       "evaluate.protocol.name": "released-code-amazon", "evaluate.protocol.target": "last", "split.max_history": 10},
}  # fmt: skip
FILES: Mapping[str, Callable[[Path], SourceConfig]] = {
    "microlens": microlens_csv, "amazon-2023": amazon_jsonl, "mllm-msr-amazon": official,
}  # fmt: skip


def value(loaded: LoadedPipeline, key: str) -> Any:
    found: Any = loaded.resolved
    for part in key.split("."):
        found = found[part]
    return found


@pytest.mark.parametrize("name", PRESETS)
def test_every_number_is_the_published_one(name: str) -> None:
    loaded = load_pipeline(name)
    assert {key: value(loaded, key) for key in NUMBERS[name]} == NUMBERS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_every_line_of_a_preset_is_explained(name: str) -> None:
    text = next(file for file in bundled_files("pipelines") if file.name == name).path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for above, line in pairwise(lines):
        sets = (
            line.startswith(" ") and not line.lstrip().startswith("#") and not line.rstrip().endswith((":", "&llava"))
        )
        assert not sets or "#" in line or above.lstrip().startswith("#"), line


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_would_start_where_the_files_are(name: str, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (40, 60)).save(images / "1.png")
    kind = load_pipeline(name).pipeline.data.source.kind
    (tmp_path / "files").mkdir()
    source = FILES[kind](tmp_path / "files").model_dump(mode="json", exclude_none=True)
    sets = [f"data.source.{key}={text}" for key, text in source.items() if isinstance(text, str)]
    problems = check(load_pipeline(name, [*sets, f"data.images.folder={images}"], tmp_path / "run"))
    assert [str(problem) for problem in problems] == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_every_file_that_lacks(name: str, tmp_path: Path) -> None:
    problems = check(load_pipeline(name, [], tmp_path / "run"))
    assert problems
    assert all(problem.field.startswith(("data.source", "data.images")) for problem in problems), problems
