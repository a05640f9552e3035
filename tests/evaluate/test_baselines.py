"""Baselines that fit nothing, the stage that holds the fitted ones, and what is said when a library is absent."""

import json
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest

from msr_adapter import schema
from msr_adapter.config.schema import BaselineName, EvaluateConfig, ProtocolConfig, SplitConfig
from msr_adapter.doctor.libraries import LIBRARIES, RECTOOLS
from msr_adapter.errors import StageError, UserError
from msr_adapter.evaluate.baselines.catalogue import BASELINES
from msr_adapter.evaluate.baselines.simple import recency_scores, title_overlap_scores
from msr_adapter.evaluate.baselines.training_log import BaselineInputs
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.evaluate.catalogue_ranking import read_choices, write_ranks
from msr_adapter.files import write_json
from msr_adapter.metrics import TargetRanks
from msr_adapter.pipeline import RunResult, check, checks, plan, run
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.progress import Reporter
from tests.pipeline.test_run import load, states
from tests.support.data_builders import Row, build_in, table_data
from tests.support.judged_run import make_run
from tests.support.paths import ROOT

SECONDS = 1_700_000_000
YAML = """\
name: scripted
data:
  source: {kind: synthetic, users: 40, items: 60}
summarize:
  items: {model: &model {path: nobody, backend: scripted}}
  users: {model: *model}
train: {model: *model}
evaluate:
  protocol: next-item
  baselines: [item-knn, mf]
  grid: {item_knn: {neighbours: [5, 20], damping: [0]}, mf: {factors: [4], confidence: [1, 10]}}
"""


def rows(start: int) -> list[Row]:
    letters = ("abce", "bcda", "cdae", "dabe", "ecad", "bdac", "eabd", "dbec", "abde", "cbda")
    return [(f"u{user}", item, start + 10 * user + step) for user, word in enumerate(letters)
            for step, item in enumerate(word)]  # fmt: skip


def build(folder: Path, start: int = SECONDS) -> Path:
    titles = {"a": "red car", "b": "red bus", "c": "blue bus", "d": "blue sky", "e": "green sky"}
    split = SplitConfig(kind="leave-last-out", min_history=1)
    return build_in(folder, table_data(folder, rows(start), titles), split, negatives=1).out


def inputs_of(data: Path) -> BaselineInputs:
    return BaselineInputs(read_held_out(data), data, EvaluateConfig(protocol=ProtocolConfig(name="small")), 0)


def test_the_config_allows_exactly_the_rows_that_are_made_on_request() -> None:
    assert {row.name for row in BASELINES if row.on_request} == set(get_args(BaselineName))
    assert len({row.name for row in BASELINES}) == len({row.look for row in BASELINES}) == len(BASELINES)


def test_what_a_fitted_row_needs_is_among_the_optional_libraries() -> None:
    known = {library.module for library in LIBRARIES}
    fittings = [row.fitting for row in BASELINES if row.fitting]
    assert {module for fitting in fittings for module in fitting.libraries} <= known
    assert all(fitting.libraries for fitting in fittings)


def test_recency_is_the_brute_force(tmp_path: Path) -> None:
    data = build(tmp_path)
    held_out = read_held_out(data)
    scores = recency_scores(inputs_of(data))
    assert scores is not None
    log = [row for row in schema.read_table(data / "interactions.parquet", schema.INTERACTIONS).to_pylist()
           if row["training"]]  # fmt: skip
    examples = schema.read_table(data / "examples.parquet", schema.EXAMPLES).to_pylist()
    when = {row["example_id"]: row["timestamp"] for row in examples}
    for row, score in zip(held_out.table.to_pylist(), scores, strict=True):
        now = when[row["example_id"]]
        seen = [each["timestamp"] for each in log if each["item_id"] == row["item_id"] and each["timestamp"] < now]
        assert score == (max(seen) - now if seen else scores.min())
    assert len(set(scores)) > 5


def test_recency_is_absent_where_times_are_positions(tmp_path: Path) -> None:
    data = build(tmp_path, start=1)
    assert recency_scores(inputs_of(data)) is None


def test_title_overlap_prefers_the_words_of_the_history(tmp_path: Path) -> None:
    data = build(tmp_path)
    held_out = read_held_out(data)
    scores = title_overlap_scores(inputs_of(data))
    history = {row["example_id"]: row["history"] for row in
               schema.read_table(data / "examples.parquet", schema.EXAMPLES).to_pylist()}  # fmt: skip
    near = {frozenset("ab"), frozenset("bc"), frozenset("cd"), frozenset("de")}  # titles that share a word
    shares = [any(frozenset((old, row["item_id"])) in near for old in history[row["example_id"]])
              for row in held_out.table.to_pylist()]  # fmt: skip
    assert ((scores > 0) == shares).all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scripted.yaml").write_text(YAML)
    return tmp_path


def fitted(folder: Path, *sets: str) -> RunResult:
    return run(load(folder, *sets), ("baselines",), reporter=Reporter(quiet=True))


def test_the_stage_fits_once_and_again_only_for_what_it_reads(folder: Path) -> None:
    assert states(fitted(folder)) == {"data": "done", "baselines": "done"}
    files = sorted(path.name for path in (folder / "run" / "baselines").iterdir())
    assert files == [
        "item-knn.full.parquet",
        "item-knn.parquet",
        "item-knn.validation.parquet",
        "manifest.json",
        "mf.full.parquet",
        "mf.parquet",
        "mf.validation.parquet",
        "tuning.json",
    ]
    summary = json.loads((folder / "run" / "baselines" / "manifest.json").read_text())["summary"]
    assert set(summary["seconds"]) == {"item-knn", "mf"}
    for same in ("evaluate.protocol.confidence.samples=500", "evaluate.sasrec.epochs=3", "train.epochs=2",
                 "evaluate.grid.sasrec.dropout=[0.1]", "evaluate.baselines=[item-knn,mf,random]"):  # fmt: skip
        assert states(fitted(folder, same)) == {"data": "up to date", "baselines": "up to date"}, same
    assert states(fitted(folder, "evaluate.baselines=[item-knn]")) == {"data": "up to date", "baselines": "done"}
    for other in ("evaluate.tune=false", "evaluate.grid.mf.factors=[2]", "evaluate.mf.iterations=3"):
        assert states(fitted(folder, other)) == {"data": "up to date", "baselines": "done"}, other
    assert states(fitted(folder, "seed=1")) == {"data": "done", "baselines": "done"}


def test_without_a_fitted_baseline_there_is_no_stage(folder: Path) -> None:
    assert states(fitted(folder, "evaluate.baselines=[random]")) == {"data": "done"}


def test_an_absent_library_is_named_with_its_command_before_anything_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    loaded = load(folder, "evaluate.baselines=[popularity,sasrec,mf]")
    [problem] = check(loaded)
    assert problem.field == "evaluate.baselines"
    assert "mf, sasrec cannot be fitted: implicit, pytorch_lightning, rectools not installed" in problem.found
    assert "pip install 'msr-adapter[baselines]'" in problem.next_step
    assert "pip install --no-deps RecTools==" in problem.next_step
    ran: list[str] = []
    stages = tuple(replace(stage, run=lambda _: ran.append("stage") or {}) for stage in STAGES)  # type: ignore[func-returns-value]
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)
    with pytest.raises(UserError, match="cannot be fitted"):
        run(loaded, ("baselines",), reporter=Reporter(quiet=True))
    assert not ran
    assert check(load(folder, "evaluate.baselines=[popularity,recency,title-overlap,random]")) == []


def test_what_tuning_takes_is_said_before_anything_runs(folder: Path) -> None:
    loaded = load(folder, "evaluate.baselines=[mf,sasrec]")
    said = [note for note in checks.notes(loaded, plan(loaded)) if "tuned" in note]
    assert said == ["mf is tuned on validation users: at most 2 fits",
                    "sasrec is tuned on validation users: at most 10 fits of at most 100 epochs each"]  # fmt: skip
    untuned = load(folder, "evaluate.baselines=[mf,sasrec]", "evaluate.tune=false")
    assert not [note for note in checks.notes(untuned, plan(untuned)) if "tuned" in note]


def test_a_metric_that_tells_no_checkpoints_apart_is_refused_before_anything_runs(folder: Path) -> None:
    keep = ("train.keep=best", "evaluate.baselines=[]", "train.model.path=tiny", "train.model.backend=huggingface")

    def told(metric: str, *sets: str) -> list[str]:
        return [problem.found for problem in check(load(folder, *keep, f"train.selection.metric={metric}", *sets))
                if problem.field == "train.selection.metric"]  # fmt: skip

    same = "{} is the same for every checkpoint: validation lists have 21 candidates"
    for metric in ("hr@21", "recall@30", "precision@21"):
        assert told(metric) == [same.format(metric)]
    for metric in ("hr@20", "ndcg@21", "mrr@50", "auc", "gauc"):
        assert told(metric) == []
    assert told("hr@21", "evaluate.protocol.negatives=99") == []
    assert told("hr@21", "evaluate.protocol=full-ranking") == []


def test_the_message_names_the_version_that_is_tested() -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert RECTOOLS.split()[-1] in pins


def test_simple_baselines_score_every_candidate(tmp_path: Path) -> None:
    inputs = inputs_of(build(tmp_path))
    for row in (row for row in BASELINES if row.score and row.on_request):
        scores = row.score and row.score(inputs)
        assert scores is not None
        assert scores.shape == (inputs.held_out.table.num_rows,), row.name
        assert np.isfinite(scores).all(), row.name


def test_fitted_baselines_are_judged_beside_the_model(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    held_out = read_held_out(made.data)
    fitted_dir = tmp_path / "baselines"
    fitted_dir.mkdir()
    better = held_out.labels * 1.0
    columns = {key: held_out.table[key] for key in ("example_id", "item_id")}
    schema.write_table(pa.table({**columns, "score": better}), schema.BASELINE_SCORES, fitted_dir / "mf.parquet")
    choices = read_choices(held_out, made.data)
    ranks = TargetRanks(choices.owners, np.zeros_like(choices.targets), np.ones_like(choices.targets), choices.sizes)
    write_ranks(held_out, ranks, fitted_dir / "mf.full.parquet")
    attempts = [
        {"settings": {"factors": 8}, "seed": 0, "value": 0.25},
        {"settings": {"factors": 4}, "seed": 0, "value": 0.5},
    ]
    choice = {**attempts[1], "tried": attempts, "untuned": ""}
    write_json(fitted_dir / "tuning.json", {"metric": "ndcg@10", "users": 30, "baselines": {"mf": choice}})
    result = made.evaluate(baselines=("mf", "popularity"), score_dirs={"trained": made.trained}, fitted_dir=fitted_dir)
    assert list(result["metrics"]) == ["trained", "mf", "popularity", "oracle"]
    assert made.metrics()["full"]["models"]["mf"]["ndcg@10"]["mean"] == 1
    said = "Matrix factorisation was tuned on 30 validation users: factors 4. NDCG@10 0.500, the best of 2 fits."
    assert {"severity": "info", "text": said} in made.metrics()["findings"]
    choice |= {"tried": [], "value": None, "untuned": "evaluate.tune is false"}
    write_json(fitted_dir / "tuning.json", {"metric": "ndcg@10", "users": 0, "baselines": {"mf": choice}})
    made.evaluate(baselines=("mf",), score_dirs={"trained": made.trained}, fitted_dir=fitted_dir)
    (finding,) = (one for one in made.metrics()["findings"] if "not tuned" in one["text"])
    assert finding["severity"] == "warning"
    assert "(evaluate.tune is false): factors 4. A baseline" in finding["text"]
    assert result["metrics"]["mf"]["auc"] == 1
    assert any(
        one["severity"] == "warning" and one["text"].startswith("Matrix factorisation gives NDCG@10 1.000")
        for one in result["findings"]
    )
    assert "matrix factorisation of the training log" in made.report()
    with pytest.raises(StageError, match="no scores of item-knn"):
        made.evaluate(baselines=("item-knn",), score_dirs={"trained": made.trained}, fitted_dir=fitted_dir)
