"""A whole pipeline whose answers follow rules, and a training that takes no time: seconds to run, nothing to load."""

from dataclasses import replace
from typing import Any

import pytest

from msr_adapter.files import digest, path_stamp
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGES


def scripted(
    users: int = 12,
    fractions: str = "[0.5, 0.2, 0.3]",
    evaluate: str = "{protocol: next-item, baselines: [popularity]}",
) -> str:
    """Return its YAML, on a synthetic dataset of 60 items."""
    return f"""\
name: scripted
data:
  source: {{kind: synthetic, users: {users}, items: 60}}
split: {{fractions: {fractions}}}
summarize:
  items: {{model: &model {{path: nobody, backend: scripted}}}}
  users: {{model: *model}}
train: {{model: *model}}
evaluate: {evaluate}
"""


SCRIPTED = scripted()


def pretend_to_train(c: Context) -> dict[str, Any]:
    """Write "weights" that depend on the data set, as real ones do."""
    (c.out / "model").mkdir()
    (c.out / "model" / "model.safetensors").write_text(digest(path_stamp(c.dir("dataset") / "msr_train")))
    return {}


def pretend_to_train_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every run of this test pretend."""
    stages = tuple(replace(stage, run=pretend_to_train) if stage.name == "train" else stage for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)
