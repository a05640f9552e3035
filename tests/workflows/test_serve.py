"""`msr serve` around the model: what it answers is what `msr recommend` writes; the model answers by script."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.recommending import (
    DAY,
    ITEMS,
    START,
    TAKEN,
    Asked,
    load,
    order,
    own_run,
    rows,
    trained,
    write,
    write_pipeline,
)
from tests.support.serving import RETRIEVERS, Served, serve_folder, served


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    write_pipeline(folder)
    with trained(folder):
        yield folder


@pytest.fixture(scope="module")
def folder(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own_run(finished, tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    with served(serve_folder(folder)) as found:
        yield found


SHARED = ("rank", "item_id", "title", "score", "logit", "bounded", "ranked_by", "retrieved_by", "retrieval_rank")


def of(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: row[name] for name in SHARED} for row in listed]


@pytest.mark.parametrize("candidates", RETRIEVERS)
@pytest.mark.parametrize("seen", [None, True, False])
def test_lists_are_those_of_msr_recommend_to_the_last_bit(
    server: Served, folder: Path, candidates: str, seen: bool | None
) -> None:
    order(folder, candidates=candidates, top=4, include_seen=seen)
    expected = rows(folder)
    for user in TAKEN:
        body = {"user_id": user, "candidates": candidates, "k": 4, "exclude_seen": None if seen is None else not seen}
        found = server.post("/v1/recommend", body)
        assert of(found["items"]) == of([row for row in expected if row["user_id"] == user])
        assert found["history_items"] == len(TAKEN[user])


def test_new_interactions_go_on_from_what_is_known(finished: Path, tmp_path: Path) -> None:
    folder = own_run(finished, tmp_path)
    late = START + DAY * 500
    new = [("u1", "h", late), ("u1", "j", late + 1), ("u3", "a", START), ("fresh", "b", late), ("fresh", "c", late + 5)]
    log = write(folder / "new.csv", ("user_id", "item_id", "timestamp"), new)
    users = write(folder / "users.csv", ("user_id",), [("u1",), ("u3",), ("fresh",)])
    listed = write(folder / "items.csv", ("item_id",), [(item,) for item in ITEMS])
    order(folder, users=users, interactions=log, candidates=str(listed), top=9)
    expected = rows(folder)
    with served(serve_folder(folder)) as server:
        for user in ("u1", "u3", "fresh"):
            history = [{"item_id": item, "timestamp": moment} for who, item, moment in new if who == user]
            body = {"user_id": user, "history": history, "candidates": list(ITEMS), "k": 9}
            found = of(server.post("/v1/recommend", body)["items"])
            wanted = of([row | {"retrieved_by": "request"} for row in expected if row["user_id"] == user])
            places = [row.pop("retrieval_rank") for row in found]
            assert len(places) == len(wanted)
            assert found == [{key: row[key] for key in row if key != "retrieval_rank"} for row in wanted]


def test_a_longer_history_asks_about_its_new_block_alone(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own_run(finished, tmp_path)
    with served(serve_folder(folder)) as server:
        server.post("/v1/recommend", {"history": list("abcd"), "candidates": ["j"]})
        asked = Asked(monkeypatch)
        found = server.post("/v1/recommend", {"history": list("abcdef"), "candidates": ["j"], "explain": True})
    assert len(asked.texts) == 1
    assert [step["items_read"] for step in found["steps"]] == [2, 4, 6]
    assert found["steps"][-1]["summary"] == found["summary"]
    assert len(asked.scored) == 1


def test_a_user_without_a_history_gets_the_popular_items_unscored(server: Served) -> None:
    refused = server.post("/v1/recommend", {"user_id": "nobody"}, 404)["error"]
    assert refused["message"].startswith("user_id: user 'nobody' is not in the log")
    found = server.post("/v1/recommend", {"user_id": "nobody", "unknown_users": "fallback", "k": 2})
    assert [(row["score"], row["ranked_by"]) for row in found["items"]] == [(None, "popularity")] * 2
    assert found["summary"] is None
    again = server.post("/v1/recommend", {"history": [], "k": 2})
    assert again["items"] == found["items"]


def test_named_candidates_are_counted_where_they_are_left_out(server: Served) -> None:
    found = server.post("/v1/recommend", {"history": ["a", "b"], "candidates": ["c", "a", "c", "d"]})
    assert sorted(row["item_id"] for row in found["items"]) == ["c", "d"]
    assert found["left_out"] == {"twice": 1, "seen": 1}


def test_pairs_are_scored_in_their_order_and_as_lists_are(server: Served) -> None:
    listed = server.post("/v1/recommend", {"user_id": "u1", "candidates": "all", "k": 20})["items"]
    scores = {row["item_id"]: row["score"] for row in listed}
    pairs = [{"user_id": "u1", "item_id": item} for item in sorted(scores, reverse=True)]
    pairs.insert(1, {"history": ["a", "b"], "item_id": "c"})
    pairs.insert(3, {"summary": "likes ships", "title": "An item of nowhere"})
    pairs.append({"history": [], "item_id": "a"})
    found = server.post("/v1/score", {"pairs": pairs})["scores"]
    assert [one["index"] for one in found] == list(range(len(pairs)))
    for pair, one in zip(pairs, found, strict=True):
        if pair.get("user_id"):
            assert one["score"] == scores[pair["item_id"]]
    assert (found[-1]["score"], found[-1]["why"]) == (None, "the user has no history")
    assert 0 < found[3]["score"] < 1


def test_reranking_has_the_shape_of_coheres(server: Served) -> None:
    documents = ["Ships", {"text": "Maps", "id": "7"}, {"item_id": "b"}, {"title": "Cars"}]
    for path in ("/v1/rerank", "/v2/rerank"):
        body = {"model": "any", "query": "likes ships", "documents": documents, "top_n": 3, "return_documents": True,
                "max_tokens_per_doc": 5}  # fmt: skip
        found = server.post(path, body)
        results = found["results"]
        assert len(results) == 3
        assert set(results[0]) == {"index", "relevance_score", "document"}
        assert all("text" in one["document"] or one["document"].get("title") for one in results)
        scores = [one["relevance_score"] for one in results]
        assert scores == sorted(scores, reverse=True)
        assert found["id"]
        assert found["meta"]["warnings"] == ["max_tokens_per_doc is not used"]
    whole = server.post("/v1/rerank", {"query": "likes ships", "documents": documents})["results"]
    assert sorted(one["index"] for one in whole) == [0, 1, 2, 3]
    assert [one["index"] for one in results] == [one["index"] for one in whole][:3]


def test_documents_that_are_ids_are_items_of_the_catalogue(server: Served) -> None:
    query = json.dumps({"user_id": "u1"})
    found = server.post("/v1/rerank", {"query": query, "documents": ["a", "b"]})["results"]
    pairs = [{"user_id": "u1", "item_id": item} for item in "ab"]
    scores = server.post("/v1/score", {"pairs": pairs})["scores"]
    assert {one["index"]: one["relevance_score"] for one in found} == {one["index"]: one["score"] for one in scores}
    mixed = {"query": "likes ships", "documents": ["a", "Ships"]}
    assert "1 of the 2 documents" in server.post("/v1/rerank", mixed, 422)["error"]["message"]
    texts = server.post("/v1/rerank", {**mixed, "documents_are": "texts"})["results"]
    assert len(texts) == 2
    assert "'Ships'" in server.post("/v1/rerank", {**mixed, "documents_are": "ids"}, 422)["error"]["message"]


def test_users_and_items_are_found(server: Served) -> None:
    user = server.get("/v1/users/u1")
    assert [one["item_id"] for one in user["history"]] == TAKEN["u1"]
    assert user["history"][0]["timestamp"] == START + DAY * 10
    assert user["summary"] == user["steps"][-1]["summary"]
    assert "summary" not in server.get("/v1/users/u1", summary=False)
    assert server.get("/v1/users", query="1")["users"] == [{"user_id": "u1"}]
    found = server.get("/v1/items", query="TITLE", limit=3)
    assert found["total"] == 10
    counts = [one["interactions"] for one in server.get("/v1/items")["items"]]
    assert counts == sorted(counts, reverse=True)
    assert server.get("/v1/items", query="no such words")["items"] == []


def test_the_server_tells_what_it_is(server: Served) -> None:
    assert server.get("/healthz") == server.get("/readyz") == {"status": "ok"}
    assert server.get("/v1/info")["candidates"] == list(RETRIEVERS)
    paths = server.get("/openapi.json")["paths"]
    assert {"/v1/recommend", "/v1/score", "/v1/rerank", "/v1/users/{user_id}", "/metrics"} <= set(paths)
    page = server.client.get("/docs")
    assert "/v1/recommend" in page.text
    assert "https://" not in page.text
    before = server.metric("msr_requests_total")
    server.get("/v1/info")
    assert server.metric("msr_requests_total") == before + 2  # the look at the metrics counts too
    assert server.metric("msr_batch_pairs_count") > 0


def test_histories_are_read_as_each_mode_reads_them(finished: Path, tmp_path: Path) -> None:
    """Without summaries of items or users, too; what `msr recommend` writes is what is answered."""
    modes = ("summarize.users.mode=none", "summarize.users.mode=direct", "summarize.items.mode=none")
    for number, mode in enumerate(modes):
        sets = (mode,)
        (tmp_path / str(number)).mkdir()
        folder = own_run(finished, tmp_path / str(number))
        order(folder, sets, candidates="all", top=5)
        expected = rows(folder)
        with served(load(folder / "pipeline", folder, *sets)) as server:
            for user in ("u0", "u7"):
                found = server.post("/v1/recommend", {"user_id": user, "candidates": "all", "k": 5})
                assert of(found["items"]) == of([row for row in expected if row["user_id"] == user])
