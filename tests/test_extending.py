"""docs/extending.md, applied to a copy of the code: what it says is enough is enough."""

import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.end_to_end import environment
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(python|diff)\n# (msr_adapter/\S+)\n(.*?)```", re.DOTALL)
PIPELINE = """\
name: extended
data: {source: {kind: receipts, receipts: receipts.txt}}
split: {fractions: [0.6, 0.2, 0.2], max_history: 6}
summarize:
  items: {model: {path: parrot, backend: parrot}}
  users: {model: {path: parrot, backend: parrot}, max_new_tokens: 8}
train: {model: {path: tiny, default_system: ""}, images: false, max_steps: 1, batch_size: 4}
evaluate:
  protocol: {name: extended, metrics: [rbp, hr], k: [5], negatives: {count: 5}}
  baselines: [cooccurrence]
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout with every example of the page in its place."""
    root = tmp_path_factory.mktemp("extended")
    for folder in ("msr_adapter", "templates", "pipelines", "eval"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for kind, name, text in BLOCK.findall(PAGE):
        path = root / name
        if kind == "python":
            assert not path.exists()
            path.write_text(text)
        else:
            assert path.is_file(), name
            path.write_text(applied(text, path.read_text(), name))
    return root


def applied(diff: str, text: str, name: str) -> str:
    """Return ``text`` with the hunks of ``diff``; each must fit in exactly one place, after the one before it."""
    done = ""
    for hunk in diff.split("@@\n"):
        lines = hunk.rstrip("\n").split("\n")
        old, new = ("\n".join(line[1:] for line in lines if line[:1] in signs) for signs in ((" ", "-"), (" ", "+")))
        assert text.count(old) == 1, f"{name}: {text.count(old)} places for\n{old}"
        head, text = text.split(old)
        done += head + new
    return done + text


def test_each_example_takes_less_than_forty_lines_of_code() -> None:
    for section in PAGE.split("\n## ")[1:]:
        code = [line for _, _, text in BLOCK.findall(section) for line in text.splitlines()]
        added = (
            [line for line in code if line.strip() and not line.startswith(("@@", " "))] if "diff" in section else code
        )
        assert 0 < len(added) < 40, section.splitlines()[0]


def test_a_pipeline_runs_with_all_of_them(extended: Path) -> None:
    items = [f"thing {number}" for number in range(12)]
    baskets = itertools.islice(itertools.cycle(itertools.combinations(items, 4)), 60)
    lines = [f"customer {row % 30}|{1_600_000_000 + row}|{','.join(basket)}" for row, basket in enumerate(baskets)]
    (extended / "receipts.txt").write_text("\n".join(lines) + "\n")
    (extended / "extended.yaml").write_text(PIPELINE)
    done = subprocess.run(
        [sys.executable, "-m", "msr_adapter", "run", "extended.yaml", "--json"],
        cwd=extended, env=environment() | {"PYTHONPATH": str(extended)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    metrics = json.loads((extended / "runs" / "extended" / "evaluate" / "metrics.json").read_text())
    assert {"trained", "cooccurrence"} <= metrics["models"].keys()
    for model in ("trained", "cooccurrence"):
        assert 0 <= metrics["models"][model]["metrics"]["rbp@5"]["mean"] <= 0.2
    page = (extended / "runs" / "extended" / "evaluate" / "report.html").read_text()
    assert "RBP@5" in page
    assert "users who interacted with it and with the last item of the history" in page
