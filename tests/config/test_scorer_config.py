"""`evaluate.scorer`: who scores, what is not done for its sake, and what is refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest

from msr_adapter import schema
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import UserError
from msr_adapter.pipeline import WHOLE, check, look_deep, plan, run
from msr_adapter.pipeline.stages import STAGE_NAMES, STAGES
from msr_adapter.progress import Reporter
from msr_adapter.workflows.recommend import RecommendRequest
from msr_adapter.workflows.recommend.workflow import recommend
from tests.support.recommending import write_pipeline

SCRIPTED = "evaluate.scorer={path: ours, backend: scripted}"
SERVER = (
    "evaluate.scorer={path: ours, backend: server, server: {url: 'http://127.0.0.1:9/v1', key_variable: NO_SUCH_KEY}}"
)

MINING = ("mine",)
"""The stage that mined negatives alone need."""
RETRIEVING = ("embed", "retrieve", "rerank", "rerank-base")
"""Stages that `evaluate.full` alone needs."""


def load(folder: Path, *sets: str) -> LoadedPipeline:
    few = ("evaluate.protocol.negatives=3", "train.negatives=1")
    return load_pipeline(str(folder / "scripted.yaml"), [*few, *sets], folder / "run")


def states(result: Any) -> dict[str, str]:
    return {stage.name: stage.state for stage in result.stages}


def test_what_is_served_is_not_trained_here_for_its_sake(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    quiet = Reporter(quiet=True)
    done = states(run(load(tmp_path, SCRIPTED), ("score",), reporter=quiet))
    assert done == dict.fromkeys(("data", "items", "users", "score"), "done")
    assert set(states(run(load(tmp_path, SCRIPTED), ("score",), reporter=quiet)).values()) == {"up to date"}
    reasons = plan(load(tmp_path, SCRIPTED))
    assert "train" not in reasons
    assert {name for name, reason in reasons.items() if reason != "up to date"} == {"evaluate"}
    assert plan(load(tmp_path))["evaluate"] == "after train"
    renamed = SCRIPTED.replace("ours", "another")
    again = states(run(load(tmp_path, renamed), ("score",), reporter=quiet))
    assert (again["users"], again["score"]) == ("up to date", "done")
    run(load(tmp_path, SCRIPTED), WHOLE, reporter=quiet)
    assert not (tmp_path / "run" / "train").exists()
    assert set(plan(load(tmp_path, SCRIPTED)).values()) == {"up to date"}
    with pytest.raises(UserError, match="no training to look at"):
        look_deep(load(tmp_path, SCRIPTED), plan(load(tmp_path, SCRIPTED)), quiet)
    [evaluate] = [stage for stage in STAGES if stage.name == "evaluate"]
    assert evaluate.spared(load(tmp_path, SCRIPTED).pipeline) == ("train",)
    assert evaluate.spared(load(tmp_path).pipeline) == ()


def test_a_whole_run_takes_every_stage_where_nothing_is_served(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    hybrid = "evaluate.hybrid={of: [trained, popularity]}"
    needed = ("evaluate.baselines=[base, item-knn]", "train.too_long=truncate", hybrid)
    assert tuple(plan(load(tmp_path, *needed))) == _without(*MINING, *RETRIEVING)
    whole = "evaluate.full={retriever: popularity, top: 20, base: true}"
    assert tuple(plan(load(tmp_path, *needed, whole))) == _without(*MINING, "embed")
    by_content = "evaluate.full={retriever: embedding, top: 20, base: true}"
    assert tuple(plan(load(tmp_path, *needed, by_content))) == _without(*MINING)


def _without(*names: str) -> tuple[str, ...]:
    return tuple(name for name in STAGE_NAMES if name not in names)


def test_recommending_asks_the_scorer(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    wanted = RecommendRequest(None, "popular:4", 2, tmp_path / "recs.parquet")
    counts = recommend(load(tmp_path, SCRIPTED), wanted, Reporter(quiet=True))
    rows = schema.read_table(wanted.out, schema.RECOMMENDATIONS).to_pylist()
    assert (counts["rows"], counts["scores"]["bounded"]) == (20, 0)
    assert not any(row["bounded"] for row in rows)
    assert not (tmp_path / "run" / "train").exists()


def test_only_a_server_stands_in_for_the_trained_model(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    with pytest.raises(UserError, match="only backend: server scores for the trained model"):
        load(tmp_path, "evaluate.scorer={path: tiny}")
    with pytest.raises(UserError, match=r"needs server\.url"):
        load(tmp_path, "evaluate.scorer={path: ours, backend: server}")


def test_a_key_that_is_not_there_is_told_before_anything_runs(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    [problem] = check(load(tmp_path, SERVER))
    assert problem.field == "evaluate.scorer.server.key_variable"
    assert problem.found == "the environment variable NO_SUCH_KEY is not set"


def test_speed_and_policy_of_a_scorer_are_no_reason_to_score_again(tmp_path: Path) -> None:
    write_pipeline(tmp_path)
    [score] = [stage for stage in STAGES if stage.name == "score"]

    def config(*sets: str) -> Any:
        return score.config(load(tmp_path, SERVER, *sets).pipeline)

    assert config("evaluate.scorer.server.concurrency=99") == config()
    assert config("evaluate.scorer.server.compare_prompts=false") == config()
    assert config("evaluate.scorer.server.top_logprobs=5") != config()
    assert config("evaluate.scorer.path=other") != config()
    assert config() != score.config(load(tmp_path).pipeline)
