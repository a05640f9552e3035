"""`msr constraints`: the versions of a release, on the terminal and as a file."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from msr_adapter.cli import app
from tests.support.paths import ROOT


def msr(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["constraints", *arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(("arguments", "file"), [((), "constraints.txt"), (("vllm",), "constraints-vllm.txt")])
def test_each_set_is_printed_as_it_stands_in_the_repository(arguments: tuple[str, ...], file: str) -> None:
    assert msr(*arguments) == (0, (ROOT / file).read_text(), "")


def test_a_file_is_written_once_and_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "here.txt"
    assert msr("--out", str(out)) == (0, f"{out}\n", "")
    assert out.read_text() == (ROOT / "constraints.txt").read_text()
    code, _, told = msr("vllm", "--out", str(out))
    assert code == 2
    assert "exists" in told
    assert out.read_text() == (ROOT / "constraints.txt").read_text()
    assert msr("vllm", "--out", str(out), "--overwrite")[0] == 0
    assert out.read_text() == (ROOT / "constraints-vllm.txt").read_text()
