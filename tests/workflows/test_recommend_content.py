"""`msr recommend` by content and by fusion: who is searched by what, what is embedded once, what is refused."""

import io
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from msr_adapter.errors import UserError
from msr_adapter.pipeline import embedding_stage
from msr_adapter.progress import Reporter
from tests.support.recommending import DAY, ITEMS, START, TAKEN, order, own_run, rows, trained, write, write_pipeline
from tests.support.sentence_models import word_model

WORDS = ("title", *ITEMS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("finished")
    write_pipeline(folder)
    with trained(folder):
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return own_run(finished, tmp_path)


def said_of(folder: Path, *sets: str, **wanted: Any) -> str:
    told = io.StringIO()
    model = f"embedding.model={word_model(WORDS)}"
    order(folder, (model, *sets), Reporter(console=Console(file=told, width=300)), **wanted)
    return told.getvalue()


def retrieved(folder: Path, user: str) -> dict[str, int]:
    return {row["item_id"]: row["retrieval_rank"] for row in rows(folder) if row["user_id"] == user}


def test_candidates_are_what_is_like_the_history_and_never_what_was_seen(folder: Path) -> None:
    said = said_of(folder, "embedding.users=history", candidates="embedding:4", top=4)
    assert "by content: 0 users by the user summary, 10 by the mean of the history's items" in said
    for user, taken in TAKEN.items():
        found = retrieved(folder, user)
        assert sorted(found.values()) == [1, 2, 3, 4]
        assert not set(found) & set(taken)
    assert {row["retrieved_by"] for row in rows(folder)} == {"embedding"}


def test_items_are_embedded_once_and_new_texts_alone_later(folder: Path) -> None:
    assert "10 items embedded" in (said := said_of(folder, candidates="embedding:4"))
    assert "10 of them now" in said
    assert "by content: 10 users by the user summary" in said
    again = said_of(folder, candidates="fused:5")
    assert "items embedded" in again
    assert again.count(", 0 of them now") == 2  # items and summaries
    later = write(folder / "later.csv", ("user_id", "item_id", "timestamp"), [("new", "a", START + 999 * DAY)])
    assert "11 user summaries embedded" in (said := said_of(folder, candidates="embedding:4", interactions=later))
    assert "1 of them now" in said


def test_an_item_that_every_list_has_comes_first(folder: Path) -> None:
    """u0 has a to d; b to e are on the lists of its neighbours, and f to j are left."""
    said_of(folder, "fusion.retrievers=[popular, item-knn]", candidates="fused:5", top=5)
    assert {row["retrieved_by"] for row in rows(folder)} == {"fused"}
    assert min(retrieved(folder, "u0"), key=lambda item: retrieved(folder, "u0")[item]) == "e"


def test_what_is_not_installed_is_said_before_anything_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"sentence_transformers", "implicit", "faiss"}
    monkeypatch.setattr(embedding_stage, "find_spec", lambda name: None if name in absent else find_spec(name))
    with pytest.raises(UserError) as caught:
        order(folder, ("embedding.model=org/name", "embedding.search=faiss"), candidates="fused:5")
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    for part in ("fused needs implicit, which is not installed. Run `pip install 'msr-adapter[baselines]'`",
                 "org/name needs sentence-transformers, which is not installed. Run `pip install",
                 "faiss is not installed. Run `pip install 'msr-adapter[embedding]'`, or set embedding.search=exact",
                 ):  # fmt: skip
        assert part in text
    assert not (folder / "recs.parquet").exists()


@pytest.mark.parametrize(("settings", "said"), [
    (("embedding.model=./nowhere",), "no such folder"),
    (("embedding.model={here}",), "no modules.json: not saved by sentence-transformers"),
    (("evaluate.scorer={path: x, backend: server, server: {url: 'http://127.0.0.1:1/v1'}}",), "a server scores"),
])  # fmt: skip
def test_a_model_that_cannot_embed_is_refused(folder: Path, settings: tuple[str, ...], said: str) -> None:
    pytest.importorskip("sentence_transformers")
    with pytest.raises(UserError, match=said):
        order(folder, tuple(one.replace("{here}", str(folder)) for one in settings), candidates="embedding:5")
    assert not (folder / "recs.parquet").exists()
