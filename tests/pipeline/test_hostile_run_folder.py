"""What may lie in a run folder in the place of what msr left there: made again or named, without a traceback."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.hostile_files import (
    Fault,
    copy_here,
    deep,
    device,
    fifo,
    finish,
    folder_there,
    harm,
    listening,
    long_number,
    msr,
    nested,
    noise,
    odd_types,
    other_table,
    rather_deep,
    self_link,
    truncated,
    write_inputs,
)

RUN = "run p.yaml --run-dir run"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "here"
    write_inputs(folder)
    return finish(folder, RUN)


@pytest.fixture
def folder(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return copy_here(made, tmp_path, monkeypatch)


MANIFEST = "run/score/manifest.json"
MADE_AGAIN: list[tuple[str, Fault]] = [
    *((MANIFEST, fault) for fault in (deep, rather_deep, long_number, noise, truncated, self_link, fifo, device)),
    ("run/data/items.parquet", truncated),
    ("run/data/items.parquet", fifo),
    ("run/users/users.parquet", device),
    ("run/users/users.parquet", other_table),
    ("run/score/scores.parquet", nested),
    ("run/score/scores.parquet", listening),
    ("run/baselines/item-knn.parquet", noise),
    ("run/pipeline.json", deep),
    (".", lambda folder, _: os.mkfifo(folder / "run" / ".msr-run.tmp")),
]


@pytest.mark.parametrize(("name", "fault"), MADE_AGAIN)
def test_what_is_damaged_is_made_again_or_named_with_what_makes_it_again(folder: Path, name: str, fault: Fault) -> None:
    if name == ".":
        fault(folder, random.Random(1))
    else:
        harm(folder / name, fault, random.Random(1))
    code, said, bug = msr(RUN)
    assert bug is None
    if code == 2:
        assert "--force" in said
        stage = name.split("/")[1]
        code, said, bug = msr(f"{RUN} --force {stage}")
    assert (code, bug) == (0, None), said
    assert msr(RUN)[1].count("up to date") == 6


TOLD: list[tuple[str, Fault, str]] = [
    ("run/run.log", fifo, "run.log"),
    ("run/run.log", folder_there, "run.log"),
    ("run/run.log", self_link, "run.log"),
    ("run/.msr-run", folder_there, ".msr-run"),
    ("run/.lock", folder_there, "run"),
    *(("run/cache/completions.sqlite", fault, "completions.sqlite") for fault in (noise, fifo, device, listening)),
    ("run", self_link, "run"),
    ("run", fifo, "run"),
]


@pytest.mark.parametrize(("name", "fault", "said"), TOLD)
def test_what_cannot_be_mended_is_named(folder: Path, name: str, fault: Fault, said: str) -> None:
    harm(folder / name, fault, random.Random(1))
    code, text, bug = msr(f"{RUN} --force score")
    assert bug is None
    assert code in (1, 2)
    assert said in text


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("command", ["check p.yaml --run-dir run", f"{RUN} --force evaluate"])
def test_odd_types_in_a_manifest_or_the_metrics_are_told_or_made_again(folder: Path, seed: int, command: str) -> None:
    for name in ("score/manifest.json", "data/manifest.json", "evaluate/metrics.json", ".msr-run"):
        odd_types(folder / "run" / name, random.Random(seed))
    code, said, bug = msr(command)
    assert bug is None, said
    assert code in (0, 1, 2)


def test_a_table_that_another_command_reads_is_named_with_what_makes_it_again(folder: Path) -> None:
    truncated(folder / "run" / "data" / "items.parquet", random.Random(1))
    for command in ("results run", "check p.yaml --run-dir run", "candidates export p.yaml --run-dir run --out x.tsv"):
        assert msr(command)[2] is None


@pytest.mark.parametrize("where", ["argument", "working directory"])
def test_names_that_are_no_utf_8_are_refused(tmp_path: Path, where: str) -> None:
    strange = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(strange)).mkdir()
    argument = strange if where == "argument" else b"demo"
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"msr_adapter", b"check", argument],
        cwd=strange if where != "argument" else tmp_path, capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.returncode == 2
    assert b"not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr
