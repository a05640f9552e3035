"""Logs that are added to: what `msr check` recommends for them."""

from pathlib import Path

import polars as pl
import pytest

from msr_adapter.pipeline.checks import notes
from msr_adapter.pipeline.planning import plan
from tests.support.recommending import load, write_pipeline


def noted(folder: Path, *sets: str) -> list[str]:
    loaded = load(folder, folder, *sets)
    return [note for note in notes(loaded, plan(loaded)) if "history_window" in note]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pipeline(tmp_path)
    (tmp_path / "log").mkdir()
    pl.read_csv(tmp_path / "log.csv").write_parquet(tmp_path / "log" / "day-1.parquet")
    return tmp_path


def test_a_window_of_blocks_is_recommended_where_a_log_grows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = f"data.source.interactions={folder / 'log'}"
    [note] = noted(folder, parts)
    assert note.startswith("data.source.interactions is a folder of parts")
    database = "{kind: sql, url_env: SHOP_DB, interactions: SELECT 1, watermark: ts}"
    monkeypatch.setenv("SHOP_DB", "sqlite:///nowhere.db")
    [note] = noted(folder, f"data.source={database}")
    assert note.startswith("data.source.watermark reads a log that grows")


def test_it_is_not_where_it_would_change_nothing(folder: Path) -> None:
    parts = f"data.source.interactions={folder / 'log'}"
    assert noted(folder) == []
    assert noted(folder, parts, "split.history_window=blocks") == []
    assert noted(folder, parts, "summarize.users.mode=none") == []
