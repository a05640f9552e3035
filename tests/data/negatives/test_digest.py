"""The candidate lists have one digest wherever it is shown."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.config.loader import load_pipeline
from msr_adapter.pipeline import run
from msr_adapter.progress import Reporter
from tests.support.scripted_pipeline import pretend_to_train_stages, scripted

YAML = scripted(30, "[0.5, 0.1, 0.4]", "{protocol: {name: quick, confidence: {samples: 100}}, baselines: [popularity]}")


def msr(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_every_place_shows_the_same_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_to_train_stages(monkeypatch)
    pipeline, folder = tmp_path / "scripted.yaml", tmp_path / "run"
    pipeline.write_text(YAML)
    run(load_pipeline(str(pipeline), (), folder), ("evaluate",), reporter=Reporter(quiet=True))

    def read(file: str) -> dict[str, object]:
        return dict(json.loads((folder / file).read_text(encoding="utf-8")))

    digest = read("evaluate/metrics.json")["candidates"]["digest"]  # type: ignore[index]
    assert read("data/audit.json")["candidates_digest"] == digest
    assert read("data/manifest.json")["summary"]["candidates_digest"] == digest  # type: ignore[index]
    assert read("evaluate/manifest.json")["summary"]["candidates_digest"] == digest  # type: ignore[index]
    assert digest[:16] in (folder / "evaluate" / "report.html").read_text(encoding="utf-8")
    assert json.loads(msr("results", folder, "--json"))["candidates"]["digest"] == digest
    compared = json.loads(msr("compare", folder, f"{folder}:popularity", "--json"))
    assert compared["candidates"]["digest"] == digest
    export = ("candidates", "export", pipeline, "--run-dir", folder, "--quiet", "--out", tmp_path / "lists.parquet")
    assert json.loads(msr(*export, "--json"))["digest"] == digest
    assert f"digest {digest[:16]}" in msr(*export, "--overwrite")


def test_the_digest_is_that_of_the_lists_that_are_judged(tmp_path: Path) -> None:
    (tmp_path / "scripted.yaml").write_text(YAML)

    def digest(*sets: str) -> str:
        loaded = load_pipeline(str(tmp_path / "scripted.yaml"), sets, tmp_path / "run")
        run(loaded, ("data",), reporter=Reporter(quiet=True))
        return str(json.loads((tmp_path / "run" / "data" / "audit.json").read_text())["candidates_digest"])

    one = digest()
    assert digest("train.negatives=3") == one  # whose training lists are others
    assert digest("evaluate.protocol.negatives=7") != one
