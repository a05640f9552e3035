"""What the shell completes, asked as bash, zsh and fish ask."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from msr_adapter.cli.completion import STAGES, complete_pipeline, complete_run, complete_stage
from msr_adapter.pipeline.stages import STAGE_NAMES
from tests.cli.test_cli import HEAVY
from tests.support.paths import ROOT

ASK = """
import sys
from msr_adapter.cli import main
sys.argv = ["msr"]
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/demo-blind/.msr-run", "runs/other/file", "mine/a.yaml", "demo-own.yaml", "demo.csv", ".hidden"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_pipelines_runs_and_stages_are_completed() -> None:
    assert set(complete_pipeline("demo")) >= {"demo", "demo-dpo", "demo-own.yaml"}
    assert "demo.csv" not in complete_pipeline("demo")
    assert complete_pipeline("mine/") == ["mine/a.yaml"]
    assert "mine/" in complete_pipeline("")
    assert ".hidden" not in complete_pipeline("")
    assert complete_pipeline("nowhere/x") == []
    assert "demo-blind" in complete_run("demo")
    assert complete_run("oth") == []
    assert complete_stage("sco") == ["score", "score-base", "score-validation"]


def test_the_stages_are_those_of_the_pipeline() -> None:
    assert STAGES == STAGE_NAMES


@pytest.mark.parametrize(("shell", "variables"), [
    ("bash", {"COMP_WORDS": "msr results demo-b", "COMP_CWORD": "2"}),
    ("zsh", {"_TYPER_COMPLETE_ARGS": "msr results demo-b"}),
    ("fish", {"_TYPER_COMPLETE_ARGS": "msr results demo-b", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
])  # fmt: skip
def test_a_shell_is_answered_without_anything_heavy(shell: str, variables: dict[str, str]) -> None:
    asked = {**os.environ, "PYTHONPATH": str(ROOT), "_MSR_COMPLETE": f"complete_{shell}", **variables}
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, env=asked, check=False)
    assert "demo-blind" in done.stdout
    assert not {name.partition(".")[0] for name in done.stderr.split()} & HEAVY
