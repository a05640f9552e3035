"""Files of a finished run are damaged at random: nothing that follows believes them.

Each round puts the run back, damages one file (a flipped bit, a cut, an edit, a swap with another file of the run),
and gives the commands that read it. Each must end with a message, or with the very results of the undamaged run.
200 rounds take some minutes; `MSR_TAMPERED=20` makes 20 of them, `MSR_SEED=1` others.
"""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msr_adapter import integrity
from msr_adapter.cli.app import app
from msr_adapter.pipeline import stored_images
from tests.support.scripted_pipeline import scripted

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("MSR_TAMPERED", "200"))
SEED = int(os.environ.get("MSR_SEED", "0"))
JUDGED = "{protocol: next-item, baselines: [popularity], scorer: {path: nobody, backend: scripted}}"
NUMBERS = ("metrics.json", "per_user.parquet", "candidate_scores.parquet")
UNREAD = {".lock", ".msr-run", "run.log", "pipeline.json"}
"""Files that no number comes from: written anew, or only told."""


def msr(*arguments: str) -> tuple[int, str]:
    """Run a command as a new process would: nothing is known of any file. A traceback fails the test."""
    integrity._known.clear()
    integrity._sealed.clear()
    stored_images._seen.clear()
    done = CliRunner().invoke(app, arguments)
    assert done.exception is None or isinstance(done.exception, SystemExit), (arguments, done.exception)
    return done.exit_code, done.output


def damage(path: Path, other: Path, chance: random.Random) -> str:
    """Damage a file; return how."""
    data = bytearray(path.read_bytes())
    how = chance.choice(("flip", "cut", "edit", "swap"))
    if how == "swap":
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    elif how == "cut":
        path.write_bytes(data[: chance.randrange(len(data))])
    else:
        places = [place for place, byte in enumerate(data) if 48 <= byte <= 57] if how == "edit" else range(len(data))
        place = chance.choice(places or range(len(data)))
        data[place] ^= 1 if how == "edit" else 1 << chance.randrange(8)
        path.write_bytes(data)
    return how


def numbers(run: Path) -> list[bytes]:
    return [(run / "evaluate" / name).read_bytes() for name in NUMBERS]


def test_no_damaged_file_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = scripted(evaluate=JUDGED).replace("train: {model: *model}", "train: {model: {path: tiny}}")
    Path("scripted.yaml").write_text(text)
    run, kept = Path("run"), Path("kept")
    code, output = msr("run", "scripted.yaml", "--run-dir", "run", "--quiet")
    assert code == 0, output
    shutil.copytree(run, kept)
    expected, shown = numbers(run), msr("results", "run", "--json")
    chance, tally, believed = random.Random(SEED), Counter[str](), list[str]()
    for number in range(ROUNDS):
        shutil.rmtree(run)
        shutil.copytree(kept, run)
        files = sorted(path for path in run.rglob("*") if path.is_file() and path.name not in UNREAD)
        path, other = chance.sample(files, 2)
        told = f"{number}: {damage(path, other, chance)} {path} {other}"
        for command in (
            ("results", "run", "--json"), ("run", "scripted.yaml", "--run-dir", "run", "--quiet"),
            ("evaluate", "scripted.yaml", "--run-dir", "run", "--quiet", "--force", "evaluate"),
            ("evaluate", "scripted.yaml", "--run-dir", "run", "--quiet", "--force", "users", "--force", "score"),
        ):  # fmt: skip
            code, output = msr(*command)
            if code:
                tally["refused"] += 1
                assert len(output.strip()) > 20, told
            elif command[0] == "results":
                tally["equal"] += 1
                believed += [f"{told}: {command}"] if (code, output) != shown else []
            else:
                tally["made again or unread"] += 1
                believed += [f"{told}: {command}"] if numbers(run) != expected else []
    print(f"{ROUNDS} damaged files, {dict(tally)}, believed: {len(believed)}")
    assert believed == []
