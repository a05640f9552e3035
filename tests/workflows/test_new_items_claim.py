"""The claim of `benchmarks/new_items.py`, at a size that a test can bear: a real model that has never met the items."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from msr_adapter.progress import Reporter
from tests.support.paths import ROOT


def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("new_items", ROOT / "benchmarks" / "new_items.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_items_that_were_in_no_log_are_recommended_to_whom_they_suit_without_training_again(tmp_path: Path) -> None:
    sets = ("train.max_steps=150", "train.checkpoints=1", "train.keep=last")
    found = benchmark().measure(tmp_path, "demo", 20, sets, Reporter(quiet=True))
    assert found["weights_unchanged"]
    assert found["users"] > 100
    hits = {name: one["hr@5"]["mean"] for name, one in found["scorers"].items()}
    ahead = found["scorers"]["popularity"]["model_minus_this_hr@5"]
    assert ahead["low"] > 0, hits  # popularity knows nothing of them: it draws lots
    assert hits["true preferences"] > hits["model"] > hits["popularity"]
