"""`evaluate.full` as a pipeline runs it: retrieved, scored like candidates, judged; the cost said first."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from msr_adapter import schema
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import UserError
from msr_adapter.pipeline import notes, plan, run
from msr_adapter.progress import Reporter
from tests.pipeline.test_run import states
from tests.support.scripted_pipeline import pretend_to_train_stages, scripted

ASKED = ("evaluate.full.retriever=item-knn", "evaluate.full.top=10")
KNN = ("evaluate.grid.item_knn={neighbours: [20], damping: [0]}",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pretend_to_train_stages(monkeypatch)
    evaluate = "{protocol: next-item, baselines: [popularity, base]}"
    (tmp_path / "scripted.yaml").write_text(scripted(40, evaluate=evaluate))
    return tmp_path


def load(folder: Path, *sets: str) -> LoadedPipeline:
    return load_pipeline(str(folder / "scripted.yaml"), (*KNN, *sets), folder / "run")


def evaluated(folder: Path, *sets: str) -> tuple[dict[str, str], str]:
    """Run all stages; return what became of them and what was said."""
    said = io.StringIO()
    result = run(load(folder, *sets), ("evaluate",), reporter=Reporter(console=Console(file=said, width=400)))
    return states(result), said.getvalue()


def metrics(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "evaluate" / "metrics.json").read_text())
    return found


def rows(folder: Path, stage: str, table: str, columns: str) -> list[dict[str, Any]]:
    return schema.read_table(folder / "run" / stage / f"{table}.parquet", getattr(schema, columns)).to_pylist()


def test_what_was_retrieved_is_scored_and_a_target_that_was_not_is_a_miss(folder: Path) -> None:
    ran, said = evaluated(folder, *ASKED)
    assert ran["retrieve"] == ran["rerank"] == "done"
    assert "rerank-base" not in ran
    found, scores = rows(folder, "retrieve", "candidates", "CANDIDATES"), rows(folder, "rerank", "scores", "SCORES")
    assert [row["item_id"] for row in found] == [row["item_id"] for row in scores]
    lists: dict[int, list[tuple[int, float]]] = {}
    for row, score in zip(found, scores, strict=True):
        lists.setdefault(row["example_id"], []).append((row["label"], score["logit"]))
    assert {len(one) for one in lists.values()} == {10}
    gains = []
    for one in lists.values():
        own = [score for label, score in one if label]
        above = sum(score > own[0] for _, score in one) if own else 0
        tied = sum(score == own[0] for _, score in one) if own else 0
        gains.append(np.mean([1 / np.log2(above + place + 2) for place in range(tied)]) if own else 0.0)
    full, retrieval = metrics(folder)["full"], metrics(folder)["full"]["retrieval"]
    assert retrieval["models"]["trained"]["ndcg@10"]["mean"] == pytest.approx(np.mean(gains))
    assert retrieval["recall"]["mean"] == pytest.approx(
        np.mean([any(label for label, _ in one) for one in lists.values()])
    )
    assert (retrieval["retriever"], retrieval["top"], retrieval["prompts"]) == ("item-knn", 10, len(found))
    assert 0 < retrieval["recall"]["mean"] < 1
    assert list(full["models"]) == ["popularity", "item-knn"]  # what retrieves stands beside, asked for or not
    assert "item-knn" not in metrics(folder)["models"]
    for name, gap in retrieval["differences"].items():
        assert gap["mean"] == pytest.approx(np.mean(gains) - full["models"][name]["ndcg@10"]["mean"])
    cost = said.index(f"{len(found)} prompts to rank what was retrieved")
    assert said.index("rerank      running") < cost < said.index("rerank      done")
    assert "item-knn + trained" in said
    assert "Over the whole catalogue" in (folder / "run" / "evaluate" / "report.html").read_text()


def test_the_base_model_ranks_it_too_where_it_is_asked_for(folder: Path) -> None:
    ran, _ = evaluated(folder, "evaluate.full.retriever=popularity", "evaluate.full.top=12", "evaluate.full.base=true")
    assert ran["rerank-base"] == "done"
    assert "baselines" not in ran  # popularity needs no fit
    assert list(metrics(folder)["full"]["retrieval"]["models"]) == ["trained", "base"]


def test_only_what_changes_is_scored_again_and_nothing_is_lost(folder: Path) -> None:
    evaluated(folder, *ASKED)
    ran, _ = evaluated(folder, *ASKED, "evaluate.baselines=[popularity, base, mf]",
                       "evaluate.grid.mf={factors: [4], confidence: [1]}")  # fmt: skip
    assert ran["baselines"] == ran["retrieve"] == "done"
    assert ran["rerank"] == ran["score"] == "up to date"  # the same items were retrieved
    ran, _ = evaluated(folder)
    assert "rerank" not in ran
    assert ran["score"] == "up to date"
    assert metrics(folder)["full"]["retrieval"] is None
    ran, _ = evaluated(folder, *ASKED[:1], "evaluate.full.top=12")
    assert ran["rerank"] == "done"
    ran, said = evaluated(folder, *ASKED)
    assert ran["rerank"] == "up to date"
    assert "rerank      found again" in said


def test_check_says_first_what_it_costs(folder: Path) -> None:
    before = load(folder, *ASKED, "evaluate.full.base=true")
    (told,) = (note for note in notes(before, plan(before)) if note.startswith("evaluate.full"))
    assert "20 prompts a user" in told
    run(before, ("data",), reporter=Reporter(quiet=True))
    (told,) = (note for note in notes(before, plan(before)) if note.startswith("evaluate.full"))
    users = sum(row["split"] == "test" for row in rows(folder, "data", "examples", "EXAMPLES"))
    assert f"{users * 20} prompts at most (2 scored)" in told
    assert any("scores of retrieved items" in note for note in notes(before, plan(before)) if note.startswith("time:"))
    evaluated(folder, *ASKED)
    done = load(folder, *ASKED)
    assert not [note for note in notes(done, plan(done)) if note.startswith("evaluate.full")]


def test_too_few_items_for_the_cut_offs_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r"full.top: 5 items cannot fill the first 10 places"):
        load(folder, "evaluate.full.top=5")
