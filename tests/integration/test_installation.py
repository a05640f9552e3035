"""The wheel in an empty environment of each Python that the package admits, as `pip install` would leave it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


def said(*command: str | Path, folder: Path) -> str:
    """Run a command to its end outside the checkout, within 20 minutes, and return what it printed."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "XDG_"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, capture_output=True, text=True, check=False, timeout=1200,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("python", ["python3.11", "python3.12"])
def test_the_wheel_installs_with_its_own_constraints_and_answers(python: str, tmp_path: Path) -> None:
    interpreter = sys.executable if python == f"python3.{sys.version_info.minor}" else shutil.which(python)
    # What a manager of versions puts on the path may be a script that finds nothing behind it.
    if interpreter is None or subprocess.run([interpreter, "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"no {python} on this machine")
    if shutil.disk_usage(tmp_path).free < 12e9:
        pytest.skip("an environment needs 7 GB of disk, and its making more")
    said(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, folder=tmp_path)
    [wheel] = tmp_path.glob("*.whl")
    said(interpreter, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    scripts = tmp_path / "venv" / "bin"
    install = [scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    try:
        said(*install, "--constraint", ROOT / "constraints.txt", wheel, folder=tmp_path)
        assert said(scripts / "msr", "--version", folder=tmp_path).startswith("msr ")
        assert said(scripts / "msr", "constraints", folder=tmp_path) == (ROOT / "constraints.txt").read_text()
        said(scripts / "python", "-m", "pip", "check", folder=tmp_path)
        said(
            scripts / "python",
            "-c",
            "import llamafactory, peft, torchaudio, torchvision, transformers",
            folder=tmp_path,
        )
        said(scripts / "msr", "check", "demo", folder=tmp_path)
        said(scripts / "msr", "build-data", "demo", folder=tmp_path)
        assert (tmp_path / "runs" / "demo" / "data" / "candidates.parquet").is_file()
    finally:
        shutil.rmtree(tmp_path / "venv")
