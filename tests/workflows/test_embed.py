"""`msr embed`: a table of vectors, by whom, of what; once embedded, once computed; killed and resumed."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from msr_adapter import schema
from msr_adapter.embedding import read_vectors
from msr_adapter.embedding.sentence_model import SentenceBackend
from msr_adapter.errors import UserError
from msr_adapter.generation import Answer, Follow, Request, ends_there
from msr_adapter.progress import Reporter
from msr_adapter.workflows.embed import EmbedRequest, embed
from tests.support.recommending import ITEMS, TAKEN, load, own_run, trained, write_pipeline
from tests.support.sentence_models import word_model

MODEL_WORDS = ("title", *ITEMS)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("finished")
    write_pipeline(folder)
    with trained(folder):
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return own_run(finished, tmp_path)


def ordered(folder: Path, *sets: str, **wanted: Any) -> tuple[dict[str, Any], str]:
    told = io.StringIO()
    loaded = load(folder / "pipeline", folder, f"embedding.model={word_model(MODEL_WORDS)}", *sets)
    request = EmbedRequest(**{"out": folder / "vectors.parquet", "overwrite": True, **wanted})
    return embed(loaded, request, Reporter(console=Console(file=told, width=300))), told.getvalue()


def table(folder: Path) -> pl.DataFrame:
    frame = pl.from_arrow(schema.read_table(folder / "vectors.parquet", schema.EMBEDDINGS))
    assert isinstance(frame, pl.DataFrame)
    return frame


def test_a_row_for_each_item_and_user_of_length_one(folder: Path) -> None:
    counts, _ = ordered(folder)
    found = table(folder)
    assert found["id"].to_list() == [*ITEMS, *sorted(TAKEN)]
    assert found["kind"].to_list() == ["item"] * 10 + ["user"] * 10
    assert set(found["parts"]) == {"title+summary", "summary"}
    assert np.linalg.norm(found["vector"].to_list(), axis=1) == pytest.approx(1)
    assert set(found["dimension"]) == {16}
    assert (counts["items"], counts["users"], counts["by_summary"], counts["by_history"]) == (10, 10, 10, 0)
    assert set(found["model"]) == {counts["model"]}
    assert set(found["model_digest"]) == {counts["model_digest"]}


def test_a_users_mean_is_that_of_the_items_vectors(folder: Path) -> None:
    ordered(folder, "embedding.users=history", "embedding.parts=[title]")
    path = folder / "vectors.parquet"
    items = read_vectors(path, "item", list(ITEMS))
    for user, taken in TAKEN.items():
        mean = items[[ITEMS.index(item) for item in taken]].mean(axis=0)
        assert read_vectors(path, "user", [user])[0] == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert not read_vectors(path, "user", ["nobody"]).any()


def test_titles_alone_ask_no_model_for_users(folder: Path) -> None:
    counts, said = ordered(folder, "embedding.parts=[title]", kinds="items")
    assert (counts["items"], counts["users"]) == (10, 0)
    assert "steps of user summaries" not in said
    assert set(table(folder)["parts"]) == {"title"}


def test_a_killed_command_goes_on_and_the_same_file_comes_of_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = SentenceBackend.complete
    asked: list[int] = []

    def dies(backend: SentenceBackend, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        asked.append(len(requests))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return whole(backend, requests, follow)

    monkeypatch.setattr(SentenceBackend, "complete", dies)
    with pytest.raises(KeyboardInterrupt):
        ordered(folder)
    assert not list(folder.glob("*vectors*"))
    _, said = ordered(folder)
    assert "10 items embedded" in said
    assert said.count(", 0 of them now") == 1  # the items, which were done
    first = (folder / "vectors.parquet").read_bytes()
    ordered(folder)
    assert (folder / "vectors.parquet").read_bytes() == first
    assert len(asked) == 3


def test_another_model_is_another_cache(folder: Path) -> None:
    ordered(folder, kinds="items")
    other = word_model((*MODEL_WORDS, "more"), 8)
    counts, said = ordered(folder, f"embedding.model={other}", kinds="items")
    assert counts["dimension"] == 8
    assert "10 of them now" in said


def test_where_it_may_not_be_written(folder: Path) -> None:
    for out, said in ((folder / "x.csv", "unknown kind of file"), (folder / "run" / "x.parquet", "msr alone writes")):
        with pytest.raises(UserError, match=said):
            ordered(folder, out=out)
