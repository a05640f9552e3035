import json
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from msr_adapter.cli.app import app
from msr_adapter.generation import CompletionCache, Failure, Request
from msr_adapter.generation.completion_store import CompletionStore
from msr_adapter.pipeline.run_folder import RunFolder
from tests.support.recording import Recording

DAY_S = 86_400


def msr(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["cache", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder whose cache has three old completions of one model, two new ones and a failure of another."""
    RunFolder(tmp_path / "run").claim()
    path = tmp_path / "run" / "cache" / "completions.sqlite"
    old, new = Recording(), Recording(lambda request: f"new {request.prompt}")
    new.identity, new.label = "other", "another model"
    with monkeypatch.context() as past, CompletionCache(path) as cache:
        now = time.time()
        past.setattr("msr_adapter.generation.completion_store.time.time", lambda: now - 10 * DAY_S)
        cache.complete(old, [Request("recording", f"p{n}", max_new_tokens=5) for n in range(3)])
    with CompletionCache(path) as cache:
        cache.complete(new, [Request("other", f"é {n}", choices=("Yes", "No")[: 2 * n]) for n in range(2)])
    store = CompletionStore(path)
    store.add("other", "another model", [], [Failure("ab" * 32, "no luck")])
    store.close()
    return tmp_path / "run"


def test_ls_tells_what_each_model_has(run: Path) -> None:
    code, text = msr("ls", run)
    assert code == 0
    assert "a recording: 3 completions, 6 tokens in" in text
    assert "another model: 2 completions, 1 failed" in text
    report = json.loads(msr("ls", run, "--json")[1])
    assert [(model["label"], model["completions"], model["failures"]) for model in report["models"]] == [
        ("another model", 2, 1), ("a recording", 3, 0),
    ]  # fmt: skip


def test_prune_by_age_keeps_the_new_and_the_rest_is_computed_again(run: Path) -> None:
    assert msr("prune", run, "--older-than", 5)[0] == 0
    assert "3 completions" not in msr("ls", run)[1]
    with CompletionCache(run / "cache" / "completions.sqlite") as cache:
        again = Recording()
        cache.complete(again, [Request("recording", "p0", max_new_tokens=5)])
        assert len(again.prompts) == 1
        cache.complete(kept := Recording(), [Request("other", "é 0", choices=())])
        assert kept.prompts == []


def test_prune_by_model(run: Path) -> None:
    report = json.loads(msr("prune", run, "--model", "oth", "--json")[1])
    assert report["deleted"] == 2
    assert [model["label"] for model in json.loads(msr("ls", run, "--json")[1])["models"]] == ["a recording"]


def test_prune_leaves_a_run_at_work_alone(run: Path) -> None:
    with RunFolder(run).locked():
        code, text = msr("prune", run, "--older-than", 0)
    assert code == 2
    assert "in use by process" in text
    assert "a recording: 3 completions" in msr("ls", run)[1]
    assert msr("prune", run, "--older-than", 0)[0] == 0


def test_prune_needs_to_be_told_what(run: Path) -> None:
    code, text = msr("prune", run)
    assert code == 2
    assert "--older-than DAYS or --model ID" in text
    code, text = msr("prune", run, "--model", "x")
    assert code == 2
    assert "0 models" in text
    assert "recording" in text


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_export_holds_every_completion(run: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"all.{suffix}"
    assert msr("export", run, "--out", out)[0] == 0
    rows = (pq.read_table(out).to_pylist() if suffix == "parquet"
            else [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()])  # fmt: skip
    assert sorted(row["text"] for row in rows) == ["", "answer to p0", "answer to p1", "answer to p2", "new é 0"]
    assert sorted(len(row["choice_logprobs"]) for row in rows) == [0, 0, 0, 0, 2]
    assert {row["model"] for row in rows} == {"a recording", "another model"}


def test_export_refuses_what_it_cannot_write(run: Path, tmp_path: Path) -> None:
    assert msr("export", run, "--out", tmp_path / "x.csv")[0] == 2
    (tmp_path / "x.jsonl").write_text("mine")
    assert msr("export", run, "--out", tmp_path / "x.jsonl")[0] == 2
    assert (tmp_path / "x.jsonl").read_text() == "mine"


def test_a_cache_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, text = msr("ls", tmp_path / "empty")
    assert code == 2
    assert "no such cache" in text
    assert not list((tmp_path / "empty").iterdir())


def test_a_cache_can_be_named_by_its_pipeline(run: Path, tmp_path: Path) -> None:
    shared = run / "cache" / "completions.sqlite"
    (tmp_path / "mine.yaml").write_text(f"extends: demo\ncache: {shared}\n")
    assert json.loads(msr("ls", tmp_path / "mine.yaml", "--json")[1])["cache"] == str(shared)
