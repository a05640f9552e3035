"""Data sets of every shape, trainings of every kind, and the odds that a trained model gives, for tests."""

import functools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from msr_adapter.backends import make_backend
from msr_adapter.candidate_rows import ANSWERS, CandidateRows
from msr_adapter.config.schema import ModelConfig, Objective, TrainConfig
from msr_adapter.generation import Request
from msr_adapter.llamafactory.model_weights import BASE, Weights
from msr_adapter.llamafactory.training_yaml import training_config, write_yaml
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import build_dataset, train
from tests.support.paths import ROOT
from tests.support.tiny_run import QUIET, Trained, scratch, train_config, write_upstream


@functools.cache
def data_for(objective: Objective) -> StageDirs:
    """Return the tiny run's stages with the data set of ``objective``, once per process."""
    made = write_upstream(scratch())
    made.dataset.mkdir()
    build_dataset(train_config(objective=objective), made, Prompts(), Job(made.dataset, QUIET))
    return made


def train_here(config: TrainConfig) -> Trained:
    """Train as the stage does, in a run folder of its own."""
    made, partial = data_for(config.objective), scratch() / ".train.partial"
    partial.mkdir()
    summary = train(config, made, Job(partial, QUIET))
    return Trained(partial.rename(partial.with_name("train")), summary)


def train_many(configs: Mapping[str, TrainConfig]) -> dict[str, Path]:
    """Train all ``configs`` by the YAML that msr writes, in one process; return where each model is.

    A failed one has no model there, but `NAME.error` beside it.
    """
    folder = scratch()
    for name, config in configs.items():
        made = data_for(config.objective)
        arguments = training_config(config, made.data, made.dataset, folder / name / "model", 0)
        write_yaml(folder / f"{name}.yaml", arguments, name)
    script = ROOT / "tests" / "support" / "train_yamls.py"
    environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script), str(folder)], env=environment, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()[-5000:]
    return {name: folder / name for name in configs}


def logits(model: ModelConfig, weights: Weights = BASE, split: str = "train") -> "np.ndarray[Any, Any]":
    """Return log p(Yes) - log p(No) of every candidate of a split, in the order of CANDIDATES."""
    made, backend = data_for("sft"), make_backend(model, weights)
    rows = CandidateRows(made.data, made.users, Prompts(), split, images=True)
    asked = [Request(backend.identity, row.prompt, (row.image,) if row.image else (), ANSWERS) for row in rows]
    answers = np.array([answer.choice_logprobs for answer in backend.complete(asked)])
    return answers[:, 0] - answers[:, 1]


def signs(split: str = "train") -> "np.ndarray[Any, Any]":
    """Return +1 where Yes is right and -1 where No is."""
    made = data_for("sft")
    return 2.0 * CandidateRows(made.data, made.users, Prompts(), split, images=True).labels - 1
