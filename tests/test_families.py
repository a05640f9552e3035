"""Every tested family: trained by LLaMA-Factory, loaded, scored and asked for texts, token by token as trained."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_model
from tiny_run import QUIET, Stages, scratch, write_upstream

from msr_adapter.config.models import ModelRef, Train
from msr_adapter.llamafactory.config import training_config, write_yaml
from msr_adapter.llamafactory.dataset import TRAIN, TrainingRow, read_rows
from msr_adapter.llamafactory.encode import Encoder
from msr_adapter.llamafactory.families import FAMILIES, Family
from msr_adapter.prompts import Prompts
from msr_adapter.rows import ANSWERS
from msr_adapter.train import build_dataset

ROWS = 200
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def settings(family: Family) -> Train:
    model = ModelRef(path=str(tiny_model(family.name)), image_max_pixels=112 * 112, image_min_pixels=784, batch_size=8)
    return Train(
        model=model, images=family.sees_images, max_steps=3, batch_size=4, gradient_accumulation=1, learning_rate=1e-2
    )


@functools.cache
def data(images: bool) -> Stages:
    """Return a data set of `ROWS` training rows, with hostile titles, with and without pictures."""
    made = write_upstream(scratch(), counts={"train": ROWS // 4, "test": 2})
    made.dataset.mkdir()
    family = next(family for family in FAMILIES if family.sees_images == images)
    build_dataset(settings(family), made.data, made.users, Prompts(), 0, made.dataset, QUIET)
    return made


@functools.cache
def trained_folder() -> Path:
    """Train every family for three steps, all in one process; return the folder of what came of it."""
    folder = scratch()
    for family in FAMILIES:
        made = data(family.sees_images)
        config = training_config(settings(family), made.data, made.dataset, folder / family.name, 0, cuda=False)
        write_yaml(folder / f"{family.name}.yaml", config, "a tiny model")
    script = Path(__file__).with_name("train_families.py")
    environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script), str(folder)], env=environment, capture_output=True, timeout=900)
    assert done.returncode == 0, done.stderr.decode()[-5000:]
    return folder


def trained(family: Family) -> dict[str, Any]:
    seen = json.loads((trained_folder() / f"{family.name}.json").read_text(encoding="utf-8"))
    assert "error" not in seen, seen["error"]
    return seen


def rows(family: Family) -> list[TrainingRow]:
    return list(read_rows(data(family.sees_images).dataset / TRAIN))


@functools.cache
def encoder(name: str) -> Encoder:
    return Encoder(settings(next(family for family in FAMILIES if family.name == name)).model)


@each_family
def test_scored_tokens_are_trained_tokens(family: Family) -> None:
    seen, made, coder = trained(family), data(family.sees_images), encoder(family.name)
    written = rows(family)
    assert len(seen["input_ids"]) == len(written) == ROWS
    assert {bool(row.images) for row in written} == ({True, False} if family.sees_images else {False})
    yes_no = dict(zip(ANSWERS, coder.answer_tokens(ANSWERS), strict=True))
    for row, ids, labels in zip(written, seen["input_ids"], seen["labels"], strict=True):
        images = [made.data / image for image in row.images]
        prompt = coder.encode(row.prompt, images)
        asked = coder.encode(row.prompt, images, [[answer] for answer in ANSWERS])
        assert ids[: len(asked)] == asked
        assert labels[: len(prompt)] == [-100] * len(prompt)
        assert labels[len(prompt) :] == ids[len(prompt) :]
        assert ids[len(asked)] == yes_no[row.answer]
        assert len(ids) == coder.row_length(row.prompt, images, row.answer)
