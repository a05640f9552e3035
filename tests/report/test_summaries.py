"""One damaged image among 500, one that breaks later, one item without a title: the run ends, the report says so."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as PillowImage

from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import StageError
from msr_adapter.generation import Answer, Failure, Follow, Request, ends_there
from msr_adapter.pipeline import STAGE_NAMES, run
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.progress import Reporter
from msr_adapter.report.data_quality import summary_findings, summary_rows

ITEMS, DAMAGED, LATER, UNTITLED = 500, "i123", "i321", "i077"
YAML = """\
name: five-hundred
data:
  source: {kind: table, interactions: log.csv, items: items.csv}
  images: {folder: images}
summarize:
  items: {model: &model {path: nobody, backend: scripted}, mode: MODE, on_failure: POLICY}
  users: {model: *model}
train: {model: *model}
evaluate: {protocol: next-item, baselines: [popularity]}
"""


class Looking(ScriptedBackend):
    """Answers by rule, but opens every image first, as a model would."""

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:  # type: ignore[override]
        asked, answers = list(requests), list[Answer]()
        while len(answers) < len(asked):
            answers.append(self._look(asked[len(answers)]))
            asked += follow(answers[-1])
        return answers

    def _look(self, request: Request) -> Answer:
        try:
            for image in request.images:
                with PillowImage.open(image.path) as opened:
                    opened.load()
        except OSError:
            return Failure(request.key, "image cannot be read")
        return self._answer(request)


def write_inputs(folder: Path, mode: str, policy: str) -> None:
    (folder / "images").mkdir()
    (folder / "pipeline.yaml").write_text(YAML.replace("MODE", mode).replace("POLICY", policy))
    names = [f"i{number:03}" for number in range(ITEMS)]
    rows = [f"{name},{'' if name == UNTITLED else f'Title {name}'}" for name in names]
    (folder / "items.csv").write_text("item,title\n" + "\n".join(rows) + "\n")
    for number, name in enumerate(names):
        path = folder / "images" / f"{name}.png"
        PillowImage.new("RGB", (32, 32), (number % 256, number // 2, 99)).save(path)
        if name == DAMAGED:
            path.write_bytes(path.read_bytes()[:40])
    order = np.random.default_rng(0).permutation(ITEMS)
    log = [f"u{place % 50:02},{names[item]},{1_600_000_000 + place}" for place, item in enumerate(order)]
    (folder / "log.csv").write_text("user,item,timestamp\n" + "\n".join(log) + "\n")


def fake_training(context: Context) -> dict[str, Any]:
    model = context.out / "model"
    model.mkdir()
    (model / "adapter_model.safetensors").write_bytes(b"weights")
    (model / "adapter_config.json").write_text("{}")
    return {}


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.distributed.make_backend", lambda *_, **__: Looking())
    stages = tuple(replace(stage, run=fake_training) if stage.name == "train" else stage for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)


def prepared(folder: Path, mode: str, policy: str) -> LoadedPipeline:
    """Build the data, then take a stored image away: the summariser is the first to see it."""
    write_inputs(folder, mode, policy)
    loaded = load_pipeline(str(folder / "pipeline.yaml"), (), folder / "run")
    run(loaded, ("data",), reporter=Reporter(quiet=True))
    items = pq.read_table(folder / "run" / "data" / "items.parquet").to_pylist()
    later = next(item["image"] for item in items if item["item_id"] == LATER)
    (folder / "run" / "data" / later).unlink()
    return loaded


@pytest.mark.usefixtures("looking")
@pytest.mark.parametrize(("mode", "policy"), [("image", "title"), ("fusion", "skip")])
def test_damaged_images_and_an_empty_title_end_in_the_report_by_name(tmp_path: Path, mode: str, policy: str) -> None:
    loaded = prepared(tmp_path, mode, policy)
    run(loaded, STAGE_NAMES, reporter=Reporter(quiet=True))
    page = (tmp_path / "run" / "evaluate" / "report.html").read_text()
    findings = page[page.index('id="findings"') : page.index('id="metrics"')]
    assert all(name in findings for name in (DAMAGED, LATER, UNTITLED))
    assert f"<code>{LATER}</code> (image cannot be read)" in findings
    assert f"1 item has no title: <code>{UNTITLED}</code>" in findings
    assert "Item and user summaries" in page
    told = json.loads((tmp_path / "run" / "items" / "manifest.json").read_text())["summary"]
    assert told["failures"] == [{"id": LATER, "reason": "image cannot be read"}]
    assert told["failed"] == 1
    summaries = pq.read_table(tmp_path / "run" / "items" / "items.parquet").to_pylist()
    texts = {row["item_id"]: row["summary"] for row in summaries}
    described = {item for item, text in texts.items() if text}
    assert {DAMAGED, UNTITLED} <= described
    assert (LATER in texts, texts.get(LATER, "")) == (policy == "title", "")


@pytest.mark.usefixtures("looking")
def test_under_error_the_run_stops_with_the_name_once_all_else_is_kept(tmp_path: Path) -> None:
    loaded = prepared(tmp_path, "image", "error")
    with pytest.raises(StageError, match=rf"1 of \d+ requests failed \({LATER}: image cannot be read\)"):
        run(loaded, STAGE_NAMES, reporter=Reporter(quiet=True))
    assert not (tmp_path / "run" / "items").exists()


def test_the_report_names_twenty_and_counts_the_rest() -> None:
    failures = [{"id": f"i{number}", "reason": "no luck"} for number in range(20)]
    summary = {"requests": 90, "failed": 25, "failures": failures, "near_identical": 0.9, "bare": ["x"]}
    found = summary_findings({"items": {"summary": summary}, "users": {"summary": {"mode": "none"}}})
    assert [one["severity"] for one in found] == ["warning", "warning", "info"]
    assert "25 of 90 requests failed" in found[0]["text"]
    assert ", and 5 more. All are in items/failures.json" in found[0]["text"]
    assert "90% are nearly identical" in found[1]["text"]
    assert found[2]["text"] == "1 item has neither title, description nor image, and no summary: `x`."
    assert summary_findings({}) == []


def test_the_report_has_a_row_for_each_stage_that_asked() -> None:
    lengths = {"p5": 20.0, "median": 31.0, "p95": 40.0, "max": 44.0}
    users = {"requests": 1454, "cut_by_budget": 15, "trimmed": 5, "refused": 2, "lengths": lengths,
             "distinctness": 1.0, "near_identical": 0.081,
             "faults": {"repeats": 0.123, "cut": 0.02, "forgets": None}}  # fmt: skip
    [row] = summary_rows({"items": {"summary": {"mode": "none"}}, "users": {"summary": users}})
    assert row == {
        "stage": "User summaries", "asked": "1,454", "failed": "0", "refused": "2", "empty": "0",
        "cut": "15 (5 trimmed)", "length": "31 (20 – 40)", "distinct": "100%", "alike": "8%",
        "repeats_share": "12%", "cut_share": "2%", "forgets_share": "",
    }  # fmt: skip
    [older] = summary_rows({"users": {"summary": {"requests": 3}}})
    assert older["repeats_share"] == ""


def test_summaries_that_are_none_are_a_finding() -> None:
    users = {"requests": 80, "distinct_requests": 40, "faults": {"repeats": 0.4, "cut": 0.1, "forgets": 0.25}}
    [found] = summary_findings({"users": {"summary": users}})
    assert found["severity"] == "warning"
    assert found["text"].startswith(
        "User summaries: 40% repeat their prompt and 25% keep nothing of what was known before. A small model"
    )
    assert not summary_findings({"users": {"summary": {**users, "distinct_requests": 19}}})
    assert not summary_findings({"users": {"summary": {**users, "faults": {}}}})
