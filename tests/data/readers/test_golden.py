"""Every published layout gives the corpus that is written down for it: rows, items, counts and findings.

`UPDATE_GOLDENS=1 pytest tests/test_readers_golden.py` rewrites the files; read the difference before you keep it.
"""

import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.sources import SOURCES as KINDS
from msr_adapter.data.readers.sources import check_source, read, source_files
from tests.support.paths import GOLDENS
from tests.support.reader_fixtures import SOURCES

FOLDER = GOLDENS / "readers"


def told(frame: pl.DataFrame) -> dict[str, Any]:
    """Return a frame as JSON that is read from top to bottom: its types, then a row a line."""
    rows = [[value.hex() if isinstance(value, bytes) else value for value in row] for row in frame.rows()]
    return {"columns": {name: str(dtype) for name, dtype in frame.schema.items()}, "rows": rows}


def written(value: dict[str, Any]) -> str:
    """Write JSON with one line per row of a table, count or finding."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    for row in [*value["interactions"]["rows"], *((value["items"] or {}).get("rows", []))]:
        text = text.replace(json.dumps(row, indent=1, ensure_ascii=False).replace("\n", "\n   "),
                            json.dumps(row, ensure_ascii=False))  # fmt: skip
    return text + "\n"


@pytest.mark.parametrize("name", SOURCES)
def test_golden(name: str, tmp_path: Path) -> None:
    source = SOURCES[name](tmp_path)
    assert check_source(source) == []
    audit = Audit()
    corpus = read(source, 0, audit)
    items = None if corpus.items is None else told(corpus.items)
    found = {"interactions": told(corpus.interactions.collect()), "items": items, **audit.as_json()}
    path = FOLDER / f"{name}.json"
    if os.environ.get("UPDATE_GOLDENS") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(written(found), encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8"))


def test_every_golden_is_read() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.json" for name in SOURCES}


def test_every_kind_of_source_has_a_golden(tmp_path: Path) -> None:
    tried = set()
    for name, make in SOURCES.items():
        (tmp_path / name).mkdir()
        tried.add(make(tmp_path / name).kind)
    assert {row.kind for row in KINDS if not row.draws_images} == tried


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "sql"])  # whose rows are no file
def test_the_files_of_a_source_are_known_to_its_stamp(name: str, tmp_path: Path) -> None:
    files = [path for path in source_files(SOURCES[name](tmp_path)).values() if path is not None]
    assert files
    assert all(isinstance(path, Path) and path.exists() for path in files)
