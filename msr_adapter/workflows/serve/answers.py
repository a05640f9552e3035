"""What clients get: ranked lists, scores in the order asked for, documents in Cohere's shape."""

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from msr_adapter.workflows.recommend.ranking import ranked
from msr_adapter.workflows.serve.messages import DocumentMessage, RecommendMessage, RerankMessage
from msr_adapter.workflows.serve.resolve import ResolvedList, ResolvedRerank
from msr_adapter.workflows.serve.served_data import ServedItems, UserHistory
from msr_adapter.workflows.serve.work import LiveSummary, ScoredUser

JsonObject = dict[str, Any]


def list_answer(message: RecommendMessage, resolved: ResolvedList, found: ScoredUser, items: ServedItems) -> JsonObject:
    """Return the answer to `POST /v1/recommend`: names and order are those of `msr recommend`."""
    known = resolved.work.has_user
    number = len(resolved.candidates)
    places = np.arange(number)
    order = ranked(found.logits, places, np.zeros(number, np.int64)) if known else places
    rows = [
        {
            "rank": rank, **item_facts(items, int(resolved.candidates[place])),
            "score": float(found.scores[place]) if known else None,
            "logit": float(found.logits[place]) if known else None,
            "bounded": bool(found.bounded[place]) if known else False,
            "ranked_by": "model" if known else "popularity",
            "retrieved_by": resolved.retrieved_by[place], "retrieval_rank": int(place) + 1,
        }
        for rank, place in enumerate(order[: message.k].tolist(), start=1)
    ]  # fmt: skip
    answer = {
        "user_id": message.user_id, "history_items": len(resolved.user.codes), "summary": found.shown or None,
        "candidates_from": resolved.candidates_from, "candidates": number, "left_out": dict(resolved.left_out),
        "items": rows,
    }  # fmt: skip
    return answer | ({"steps": steps_of(found.summary)} if message.explain else {})


def steps_of(summary: LiveSummary) -> list[dict[str, Any]]:
    """Return the user summary after each block of the history."""
    return [{"items_read": step.items_read, "summary": step.text} for step in summary.steps]


def score_answer(
    places: Sequence[tuple[int, int]], found: Sequence[ScoredUser], has_user: Sequence[bool]
) -> JsonObject:
    """Return the answer to `POST /v1/score`, in the order of the pairs."""
    rows = []
    for index, (number, place) in enumerate(places):
        one, known = found[number], has_user[number]
        rows.append({
            "index": index, "score": float(one.scores[place]) if known else None,
            "logit": float(one.logits[place]) if known else None,
            "bounded": bool(one.bounded[place]) if known else False,
            "why": None if known else "the user has no history",
        })  # fmt: skip
    return {"scores": rows}


def rerank_answer(
    message: RerankMessage, resolved: ResolvedRerank, found: ScoredUser, items: ServedItems
) -> JsonObject:
    """Return the answer to `POST /v1/rerank`, as Cohere's: the best documents first, by place in the request."""
    order = ranked(found.logits, np.arange(len(found.logits)), np.zeros(len(found.logits), np.int64))
    results = []
    for place in order[: message.top_n or len(order)].tolist():
        one: dict[str, Any] = {"index": place, "relevance_score": float(found.scores[place])}
        if message.return_documents:
            one["document"] = _document(message.documents[place], resolved.items[place], items)
        results.append(one)
    meta: dict[str, Any] = {"api_version": {"version": "1"}, "billed_units": {"search_units": 0}}
    if resolved.warnings:
        meta["warnings"] = list(resolved.warnings)
    return {"id": str(uuid.uuid4()), "results": results, "meta": meta}


def user_answer(user_id: str, user: UserHistory, found: ScoredUser | None, items: ServedItems) -> dict[str, Any]:
    """Return the answer to `GET /v1/users/{id}`."""
    times = [None] * len(user.codes) if user.times is None else user.times.tolist()
    history = [
        item_facts(items, code) | {"timestamp": moment} for code, moment in zip(user.codes.tolist(), times, strict=True)
    ]
    answer: dict[str, Any] = {"user_id": user_id, "history": history, "seen_beside": len(user.beside)}
    if found is not None:
        answer |= {"summary": found.summary.text or None, "steps": steps_of(found.summary)}
    return answer


def item_facts(items: ServedItems, code: int) -> dict[str, Any]:
    """Return what answers say of an item."""
    image = items.image(code)
    return {"item_id": items.ids[code], "title": items.titles[code], "has_image": image is not None}


def _document(document: str | DocumentMessage, item: int, items: ServedItems) -> dict[str, Any]:
    if item >= 0:
        return {"text": items.titles[item], "item_id": items.ids[item]}
    if isinstance(document, str):
        return {"text": document}
    return document.model_dump(exclude_none=True)
