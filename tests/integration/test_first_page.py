"""The first page, README.md, done by its letter: the demo, and a shop of one's own with the YAML that it shows."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_own_shop_page import write_shop
from tests.support.paths import ROOT

PAGE = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)
SCRIPTS = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


def said(command: str, folder: Path) -> str:
    done = subprocess.run(
        command, shell=True, cwd=folder, env=ENVIRONMENT | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        check=False, timeout=1_500,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_page_has_the_blocks_that_are_done_here() -> None:
    assert [kind for kind, _ in BLOCKS[:4]] == ["", "", "yaml", ""]
    commands = [line.split(" #")[0].strip() for _, block in (BLOCKS[0], BLOCKS[1], BLOCKS[3])
                for line in block.splitlines()]  # fmt: skip
    assert commands == [
        "make demo",
        "make test",  # which are these tests
        "msr init log.csv items.csv --images images/",
        "msr check my.yaml && msr run my.yaml",
    ]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_demo_ends_with_a_report(tmp_path: Path) -> None:
    # -o: the environment is the one that these tests run in, not one to be made.
    printed = said(f"make -f '{ROOT / 'Makefile'}' BIN='{SCRIPTS}' -o .venv/runtime.stamp demo", tmp_path)
    assert "report: " in printed
    assert (tmp_path / "runs" / "demo" / "evaluate" / "report.html").is_file()


@pytest.mark.slow
def test_the_commands_and_the_yaml_run_on_a_shop(tmp_path: Path) -> None:
    write_shop(tmp_path, items=80, users=40)
    said(BLOCKS[1][1], tmp_path)
    assert (tmp_path / "my.yaml").is_file()
    # A model that is here, and a training of seconds; all else is as the page has it.
    shown = BLOCKS[2][1].replace("Qwen/Qwen2-VL-2B-Instruct", "tiny").replace("epochs: 3", "max_steps: 6")
    assert "tiny" in shown
    assert "max_steps" in shown
    (tmp_path / "my.yaml").write_text(shown)
    printed = said(BLOCKS[3][1], tmp_path)
    assert (tmp_path / "runs" / "my" / "evaluate" / "report.html").is_file(), printed
