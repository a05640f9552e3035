"""docs/metrics.md is true: it names every metric, and every key of a real metrics.json, and no other."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from msr_adapter.config.schema import EmbeddingConfig, EvaluateConfig, FullConfig, FusionConfig, ProtocolConfig
from msr_adapter.evaluate.retrieval import RetrieveDirs, retrieve
from msr_adapter.evaluate.table_retrieval import RetrievalSettings
from msr_adapter.metrics import METRICS, RANKING, MetricName
from msr_adapter.progress import Reporter
from msr_adapter.schema import CANDIDATES, read_table
from msr_adapter.stage_arguments import Job
from tests.evaluate.test_hybrid import Stages
from tests.support.judged_run import make_run, write_scores
from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
_OPEN = ("protocol",)  # its keys are in configuration.md


def _rows(heading: str) -> list[str]:
    """The first cells of the table under a heading, without their backquotes."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [row.split("|")[1].strip().replace("`", "") for row in re.findall(r"^\| `.*\|$", section, re.M)]


def test_every_metric_of_a_protocol_has_a_row() -> None:
    ranking = [name.removesuffix("@k") for name in _rows("Ranking metrics")]
    others = [*_rows("Calibration"), *(name.removesuffix("@k") for name in _rows("What the first k places show"))]
    assert ranking == list(RANKING)
    assert [*ranking, *others] == [row.name for row in METRICS]


def test_the_overview_is_the_table_of_metrics() -> None:
    at_k = {True: "@k", False: ""}
    rows = [
        f"| `{row.name}{at_k[row.at_k]}` | {row.label} | {row.better} | {row.about.format(k='`k`')} |"
        for row in METRICS
    ]
    assert "\n".join(rows) in TEXT


def _paths(value: Any, path: str = "") -> set[str]:
    if path in _OPEN or not isinstance(value, dict | list):
        return {path}
    if isinstance(value, list):
        return {found for element in value for found in _paths(element, f"{path}[]")}
    return {found for key, inner in value.items() for found in _paths(inner, f"{path}.{key}".lstrip("."))}


def _pattern(documented: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<\w+>", r"[\\w@-]+", re.sub(r"([.\[\]])", r"\\\1", documented)))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    run = make_run(tmp_path_factory.mktemp("run"))
    every = ProtocolConfig(name="small", confidence={"samples": 100}, metrics=get_args(MetricName))  # type: ignore[arg-type]
    run.evaluate(every)
    found = _paths(run.metrics())
    run.evaluate(every.model_copy(update={"metrics": ("gauc",)}))
    found |= _paths(run.metrics())
    full = FullConfig(retriever="popularity", top=10)
    again = run.root / "rerank"
    again.mkdir()
    config = EvaluateConfig(protocol=every, full=full)
    settings = RetrievalSettings(EmbeddingConfig(), FusionConfig(), run.root)
    retrieve(config, RetrieveDirs(run.data, run.root), settings, Job(again, Reporter(quiet=True), 0))
    retrieved = read_table(again / "candidates.parquet", CANDIDATES)
    write_scores(again, {name: retrieved[name] for name in ("example_id", "item_id")}, np.zeros(retrieved.num_rows))
    run.evaluate(every, full=full, retrieved=again, reranked={"trained": again})
    found |= _paths(run.metrics())
    weighed = tmp_path_factory.mktemp("hybrid")
    Stages(weighed).evaluate(weighed / "evaluate")
    found |= _paths(json.loads((weighed / "evaluate" / "metrics.json").read_text()))
    run.evaluate(every, trainings=((0, run.trained), (1, run.base), (2, run.trained)))
    return found | _paths(run.metrics())


def test_every_key_of_metrics_json_is_documented(found: set[str]) -> None:
    patterns = [_pattern(row.removesuffix("*").strip()) for row in _rows("`metrics.json`")]
    assert len(found) > 50
    assert [key for key in sorted(found) if not any(pattern.fullmatch(key) for pattern in patterns)] == []


def test_every_documented_key_is_in_metrics_json(found: set[str]) -> None:
    rows = [row.removesuffix("*").strip() for row in _rows("`metrics.json`")]
    assert len(rows) > 30
    assert [row for row in rows if not any(_pattern(row).fullmatch(key) for key in found)] == []


def test_what_is_not_in_every_run_is_marked(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.data / "truth.parquet").unlink()
    run.evaluate(
        ProtocolConfig(name="few", metrics=("auc",), slices=(), confidence={"samples": 100}),  # type: ignore[arg-type]
        baselines=(),
        score_dirs={"trained": run.trained},
    )
    found = _paths(run.metrics())
    always = [row for row in _rows("`metrics.json`") if not row.endswith("*")]
    assert [row for row in always if not any(_pattern(row).fullmatch(key) for key in found)] == []
