"""`evaluate.full` by content and by fusion as a pipeline runs it: embedded, retrieved, reranked, judged."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from msr_adapter import schema
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.embedding import read_vectors
from msr_adapter.errors import UserError
from msr_adapter.pipeline import run
from msr_adapter.pipeline.fingerprints import embed_config, evaluate_config, retrieve_config
from msr_adapter.progress import Reporter
from tests.pipeline.test_run import states
from tests.support.scripted_pipeline import pretend_to_train_stages, scripted
from tests.support.sentence_models import word_model

SUBJECTS = ("a", "the", "of", "and", "night", "river", "city", "garden", "winter", "house", "star", "stone")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pretend_to_train_stages(monkeypatch)
    (tmp_path / "scripted.yaml").write_text(scripted(40))
    return tmp_path


def load(folder: Path, *sets: str) -> LoadedPipeline:
    model = f"embedding.model={word_model(SUBJECTS)}"
    return load_pipeline(str(folder / "scripted.yaml"), (model, *sets), folder / "run")


def evaluated(folder: Path, *sets: str) -> tuple[dict[str, str], str]:
    said = io.StringIO()
    result = run(load(folder, *sets), ("evaluate",), reporter=Reporter(console=Console(file=said, width=400)))
    return states(result), said.getvalue()


def rows(folder: Path, stage: str, table: str, columns: str) -> list[dict[str, Any]]:
    return schema.read_table(folder / "run" / stage / f"{table}.parquet", getattr(schema, columns)).to_pylist()


def retrieval_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run" / "evaluate" / "metrics.json").read_text())["full"]
    return found


def test_a_target_is_found_by_what_its_text_says_and_every_retriever_has_its_recall(folder: Path) -> None:
    pytest.importorskip("implicit")
    asked = ("evaluate.full.retriever=fused", "evaluate.full.top=15", "embedding.users=history")
    ran, said = evaluated(folder, *asked)
    assert ran["embed"] == ran["retrieve"] == ran["rerank"] == "done"
    full = retrieval_of(folder)
    entry = full["retrieval"]
    assert list(entry["recalls"]) == ["popular", "item-knn", "embedding", "fused"]
    assert entry["recalls"]["fused"]["mean"] == pytest.approx(entry["recall"]["mean"])
    assert "fused" in full["models"]  # its own order, beside that of the model
    assert set(entry["differences"]) == {"popularity", "fused"}
    assert "Recall among 15 items" in said or "recall among 15 items" in said
    # By brute force: the nearest of what the user has not seen, by the mean of the history.
    found = rows(folder, "retrieve", "recalls", "RETRIEVER_RECALLS")
    items = [row["item_id"] for row in rows(folder, "data", "items", "ITEMS")]
    popularity = {row["item_id"]: row["popularity"] for row in rows(folder, "data", "items", "ITEMS")}
    vectors = read_vectors(folder / "run" / "embed" / "items.parquet", "item", items).astype(float)
    seen: dict[str, set[str]] = {}
    for row in rows(folder, "data", "interactions", "INTERACTIONS"):
        seen.setdefault(row["user_id"], set()).add(row["item_id"])
    targets = {row["example_id"]: row["item_id"] for row in rows(folder, "data", "candidates", "CANDIDATES")
               if row["label"]}  # fmt: skip
    for example in rows(folder, "data", "examples", "EXAMPLES"):
        if example["split"] != "test":
            continue
        target = targets[example["example_id"]]
        query = vectors[[items.index(item) for item in example["history"]]].sum(axis=0)
        free = [item for item in items if item == target or item not in seen[example["user_id"]]]
        near = {item: round(float(vectors[items.index(item)] @ query / np.linalg.norm(query)), 6) for item in free}
        there = [item for item in free if vectors[items.index(item)].any()]
        best = sorted(there, key=lambda item: (-near[item], -popularity[item], item))[:15]
        mine = next(
            row for row in found if row["retriever"] == "embedding" and row["example_id"] == example["example_id"]
        )
        assert mine["found"] == (target in best)


def test_what_changes_makes_again_what_depends_on_it_alone(folder: Path) -> None:
    asked = ("evaluate.full.retriever=embedding", "evaluate.full.top=12")
    evaluated(folder, *asked)
    assert set(evaluated(folder, *asked)[0].values()) == {"up to date"}
    ran, _ = evaluated(folder, *asked, "embedding.users=history")
    assert (ran["embed"], ran["retrieve"], ran["score"]) == ("done", "done", "up to date")
    ran, said = evaluated(folder, *asked, "embedding.parts=[summary]")
    assert (ran["embed"], ran["retrieve"], ran["score"]) == ("done", "done", "up to date")
    assert "user summaries embedded" in said


def test_which_keys_count_for_what(folder: Path) -> None:
    asked = ("evaluate.full.retriever=fused", "fusion.retrievers=[popular, embedding]")
    before = load(folder, *asked).pipeline
    for setting, parts in (
        ("embedding.parts=[title]", {embed_config}),
        ("embedding.user_prompt=query", {embed_config}),
        ("embedding.batch_size=3", set()),
        ("embedding.users=history", {embed_config, retrieve_config, evaluate_config}),
        ("embedding.search=faiss", {retrieve_config, evaluate_config}),
        ("fusion.k=3", {retrieve_config, evaluate_config}),
        ("fusion.weights=[1, 2]", {retrieve_config, evaluate_config}),
        ("evaluate.full.compare=[item-knn]", {retrieve_config, evaluate_config}),
    ):
        after = load(folder, *asked, setting).pipeline
        changed = {part for part in (embed_config, retrieve_config, evaluate_config) if part(before) != part(after)}
        assert changed == parts, setting


def test_what_a_retriever_lacks_is_said_by_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from msr_adapter.pipeline import embedding_stage

    monkeypatch.setattr(embedding_stage, "find_spec", lambda _: None)
    with pytest.raises(UserError) as caught:
        evaluated(folder, "evaluate.full.compare=[fused]")
    assert "fused needs implicit" in str(caught.value)
    assert "needs sentence-transformers" in str(caught.value)
