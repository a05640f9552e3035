"""The JSON schema against what the config classes take.

`UPDATE_GOLDENS=1 pytest tests/config/test_json_schema.py` rewrites the files beside the bundled YAMLs.
"""

import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.config.bundled import BundledFile, YamlKind, bundled_files
from msr_adapter.config.json_schema import SCHEMA_FILES, installed_schema, json_schema, schema_text
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.yaml_tree import YamlSource, parse
from tests.support.paths import ROOT

KINDS: tuple[YamlKind, ...] = ("pipelines", "eval")
VALIDATORS = {kind: Draft7Validator(json_schema(kind)) for kind in KINDS}
YAMLS = [file for kind in KINDS for file in bundled_files(kind)]


def faults(kind: YamlKind, data: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATORS[kind].iter_errors(data)]


def plain(text: str) -> Any:
    tree = parse(text, YamlSource("a.yaml", Path()), [])
    assert tree is not None
    return tree.plain()


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_that_travels_with_msr_is_that_of_the_classes(kind: YamlKind) -> None:
    Draft7Validator.check_schema(json_schema(kind))
    path = ROOT / kind / SCHEMA_FILES[kind]
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(schema_text(kind), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == schema_text(kind), "UPDATE_GOLDENS=1 rewrites it"


@pytest.mark.parametrize("file", YAMLS, ids=lambda file: file.name)
def test_every_bundled_yaml_fits_the_schema_that_it_names(file: BundledFile) -> None:
    text = file.path.read_text(encoding="utf-8")
    assert faults(file.kind, plain(text)) == []  # type: ignore[arg-type]
    line = next(line for line in text.splitlines() if line.startswith("# yaml-language-server"))
    named = file.path.parent / line.partition("$schema=")[2]
    assert named.samefile(installed_schema(file.kind))  # type: ignore[arg-type]


@pytest.mark.parametrize("file", bundled_files("pipelines"), ids=lambda file: file.name)
def test_a_config_with_every_default_fits(file: BundledFile) -> None:
    assert faults("pipelines", load_pipeline(str(file.path)).resolved) == []


@pytest.mark.parametrize(("old", "new"), [
    ("seed: 7", "sead: 7"), ("seed: 7", "seed: seven"), ("seed: 7", "seed: -1"), ("kind: synthetic", "kind: sinthetic"),
    ("protocol: ", "protocol: [1]\n  pro: "), ("train:", "train:\n  epoch: 2"), ("data:", "daten:"),
])  # fmt: skip
def test_a_slip_is_marked(old: str, new: str) -> None:
    text = next(file for file in YAMLS if file.name == "demo").path.read_text(encoding="utf-8")
    assert old in text
    assert faults("pipelines", plain(text.replace(old, new, 1)))


def test_a_file_that_extends_another_may_say_little() -> None:
    assert faults("pipelines", plain("extends: demo\ndata: {source: {users: 5}}\ntrain: {negatives: {count: 2}}")) == []
    assert faults("pipelines", plain("data: {source: {users: 5}}"))
    assert faults("pipelines", plain("extends: demo\nevaluate: {protocol: {k: [3]}}")) == []
    assert faults("eval", plain("extends: [paper]\nk: [3]")) == []
    assert faults("eval", plain("extends: [paper]\nkk: [3]"))


def test_schema_prints_and_writes(tmp_path: Path) -> None:
    def msr(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["schema", *arguments])
        return done.stdout if done.exit_code == 0 else f"{done.exit_code}: {done.stderr}"

    assert msr() == schema_text("pipelines")
    assert msr("protocol") == schema_text("eval")
    assert "pipeline.schema.json" in msr("--out", str(tmp_path / "new"))
    for kind, name in SCHEMA_FILES.items():
        assert (tmp_path / "new" / name).read_text(encoding="utf-8") == schema_text(kind)
    assert msr("--out", str(tmp_path / "new")).startswith("2: ")
    assert "pipeline.schema.json" in msr("--out", str(tmp_path / "new"), "--overwrite")
