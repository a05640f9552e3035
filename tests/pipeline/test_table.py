"""Where a user starts: `msr cp table my.yaml`, two files beside it, `msr check`, `msr build-data`."""

import json
from pathlib import Path

import pytest

from msr_adapter.cli.cp import copy
from msr_adapter.config.loader import load_pipeline
from tests.support.data_builders import build_in, random_rows, write_csv
from tests.support.end_to_end import msr

ROWS = random_rows(60, 40, 6)


def my_files(folder: Path) -> Path:
    copy("table", folder / "my.yaml")
    write_csv(folder / "log.csv", ["user_id", "item_id", "timestamp"], ROWS)
    items = sorted({item for _, item, _ in ROWS})
    write_csv(folder / "items.csv", ["item_id", "title", "text"], [[i, f"Title {i}", f"About {i}"] for i in items])
    return folder / "my.yaml"


def test_missing_files_are_one_clear_message(tmp_path: Path) -> None:
    copy("table", tmp_path / "my.yaml")
    done = msr("check", "my.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for name, key in (("log.csv", "interactions"), ("items.csv", "items")):
        assert f"{tmp_path / name} data.source.{key}: no such file" in done.stderr
    assert f"Correct data.source.{key}; paths are relative to the YAML" in done.stderr


def test_the_copy_builds_from_the_files_beside_it(tmp_path: Path) -> None:
    loaded = load_pipeline(str(my_files(tmp_path)))
    assert loaded.pipeline.name == "my"
    built = build_in(tmp_path / "built", loaded.pipeline.data, loaded.pipeline.split, negatives=20)
    texts = {row["item_id"]: row["text"] for row in built.rows("items")}
    assert texts["i001"] == "About i001"
    assert built.counts["interactions_read"] == len(ROWS)


@pytest.mark.parametrize("path", ["./log", "log"])
def test_a_hugging_face_folder_is_relative_to_the_yaml_when_it_begins_with_a_dot(tmp_path: Path, path: str) -> None:
    yaml = my_files(tmp_path)
    text = yaml.read_text(encoding="utf-8").replace("kind: table", "kind: huggingface")
    text = text.replace("interactions: log.csv", f"interactions: {{path: {path}}}").replace("items: items.csv", "#")
    yaml.write_text(text, encoding="utf-8")
    source = load_pipeline(str(yaml)).resolved["data"]["source"]
    assert source["interactions"]["path"] == (str(tmp_path / "log") if path.startswith(".") else "log")


def test_check_as_json_says_that_all_is_well(tmp_path: Path) -> None:
    done = msr("check", my_files(tmp_path), "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
