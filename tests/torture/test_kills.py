"""Killed at random moments, resumed by the same command: equal to an undisturbed run, and nothing is left behind."""

import os
import shutil
import time
from pathlib import Path

import pytest

from tests.support.scripted_pipeline import scripted
from tests.torture.kills import draw, killed, leftovers, outputs, resumed

NUMBER = int(os.environ.get("MSR_TORTURE_KILLS", "6"))
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
    for seed in range(NUMBER):
        run_dir = tmp_path / "run"
        kill = draw(seed, longest)
        code = killed(pipeline, run_dir, kill)
        if resumed(pipeline, run_dir) != 0 or outputs(run_dir) != expected or leftovers(run_dir):
            wrong.append(f"{seed} {kill} -> {code}: {leftovers(run_dir)}")
        shutil.rmtree(run_dir)
    assert wrong == []
