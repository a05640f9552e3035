"""Killed at random moments, resumed by the same command: equal to an undisturbed run, and nothing is left behind."""

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.support.scripted_pipeline import scripted
from tests.torture.kills import draw, killed, leftovers, outputs, resumed

NUMBER = int(os.environ.get("MSR_TORTURE_KILLS", "6"))
FIRST = int(os.environ.get("MSR_TORTURE_FIRST", "0"))
"""Seed of the first kill: a round can be made in parts."""
YAML = scripted(
    evaluate="{protocol: next-item, baselines: [popularity, item-knn], scorer: {path: ours, backend: scripted}}"
)


@pytest.mark.slow
def test_every_kill_ends_in_the_results_of_an_undisturbed_run(tmp_path: Path) -> None:
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(YAML + "execution: {workers: 2}\n")
    began = time.monotonic()
    assert resumed(pipeline, tmp_path / "reference") == 0
    longest = time.monotonic() - began
    expected = outputs(tmp_path / "reference")
    assert expected
    wrong = []
    for seed in range(FIRST, FIRST + NUMBER):
        run_dir = tmp_path / "run"
        kill = draw(seed, longest)
        code = killed(pipeline, run_dir, kill)
        again, equal = resumed(pipeline, run_dir), outputs(run_dir) == expected
        told = f"{seed} {kill} -> {code}; then {again}, equal: {equal}, left: {leftovers(run_dir)}"
        print(told, flush=True)
        if again != 0 or not equal or leftovers(run_dir):
            wrong.append(told)
        shutil.rmtree(run_dir)
    assert wrong == []
