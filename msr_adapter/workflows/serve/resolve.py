"""Messages to work: ids are looked up, histories joined, candidates retrieved; whatever nobody knows is refused."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from pydantic import ValidationError

from msr_adapter.arrays import Codes
from msr_adapter.data.id_forms import near_matches
from msr_adapter.errors import Problem
from msr_adapter.retrieval import RetrieverInputs
from msr_adapter.workflows.recommend.retrieval import RetrievalUser, Retrieve, make_retriever
from msr_adapter.workflows.serve.messages import (
    DocumentMessage,
    InteractionMessage,
    PairMessage,
    QueryMessage,
    RecommendMessage,
    RerankMessage,
    UserMessage,
)
from msr_adapter.workflows.serve.refusals import RefusalError
from msr_adapter.workflows.serve.served_data import NOBODY, ServedItems, ServedUsers, UserHistory
from msr_adapter.workflows.serve.settings import ServeSettings
from msr_adapter.workflows.serve.strict_json import read_json
from msr_adapter.workflows.serve.work import Candidate, UserWork

_NAMED = 5
_COMPARED = 100_000
"""Ids up to which an unknown one is compared with all of them: more would take too long a look."""


@dataclass(frozen=True)
class ResolvedList:
    """A list to be ranked."""

    work: UserWork
    user: UserHistory
    candidates: Codes
    """Rows of ITEMS in the order of retrieval."""
    retrieved_by: Sequence[str]
    """How each came here (candidates,)."""
    candidates_from: str
    left_out: Mapping[str, int]
    """Of the candidates that the request named: how many stand there twice, or were seen by the user."""


@dataclass(frozen=True)
class ResolvedRerank:
    """Documents to be ranked."""

    work: UserWork
    items: Sequence[int]
    """Row of ITEMS of each document; -1 = a text."""
    warnings: Sequence[str]


class Resolver:
    """Looks up what messages name."""

    def __init__(
        self, items: ServedItems, users: ServedUsers, settings: ServeSettings, inputs: RetrieverInputs
    ) -> None:
        """Make the retrievers from ``inputs``."""
        self._items, self._users, self._limit = items, users, settings.limits.candidates
        self._again = inputs.again
        kinds = settings.retrievals
        self._kinds = {name: retrieval.kind for name, retrieval in kinds.items()}
        self._retrievers: dict[tuple[str, bool], Retrieve] = {}
        for name, retrieval in kinds.items():
            for own in {False, inputs.again}:
                made = make_retriever(retrieval, users.histories, None, replace(inputs, again=own))
                self._retrievers[name, own] = made
        self._popular = np.argsort(np.argsort(-items.popularity, kind="stable"), kind="stable")
        """Place of each item by popularity (items,)."""

    def recommend(self, message: RecommendMessage) -> ResolvedList:
        """Return the list that is asked for."""
        user = self.user(message, "", fallback=message.unknown_users == "fallback")
        wanted = message.candidates if message.candidates is not None else next(iter(self._kinds))
        history = user.codes
        again = self._again and message.exclude_seen is not True
        left_out: dict[str, int] = {}
        if message.exclude_seen is False:
            barred = history[:0]
        else:
            barred = user.beside if again else np.concatenate([history, user.beside])
        if isinstance(wanted, str):
            if wanted not in self._kinds:
                offered = ", ".join(self._kinds)
                found = f"the text {wanted[:60]!r} is no retriever of this server"
                raise RefusalError(422, Problem("", "candidates", found, f"a list of item ids, or one of {offered}"))
            retrieve = self._retrievers[wanted, again]
            [found_items] = retrieve([RetrievalUser(message.user_id or "", history, barred)])
            codes, name = found_items.items, self._kinds[wanted]
            by = ["history" if place < found_items.own else "popular" if place >= found_items.filled_from else name
                  for place in range(len(codes))]  # fmt: skip
        else:
            given = self._codes(wanted, "candidates")
            distinct = given[np.sort(np.unique(given, return_index=True)[1])]
            codes = distinct[~np.isin(distinct, barred)]
            left_out = {"twice": len(given) - len(distinct), "seen": len(distinct) - len(codes)}
            if not len(history):
                codes = codes[np.argsort(self._popular[codes], kind="stable")]
            by = ["request"] * len(codes)
        self._check_size(len(codes), "candidates")
        left_out = {reason: count for reason, count in left_out.items() if count}
        candidates = self._candidates(codes) if len(history) else ()
        work = UserWork(history, candidates, user_id=message.user_id or "")
        return ResolvedList(work, user, codes, by, wanted if isinstance(wanted, str) else "request",
                            left_out)  # fmt: skip

    def pairs(self, pairs: Sequence[PairMessage]) -> tuple[list[UserWork], list[tuple[int, int]]]:
        """Return one work for each distinct user, and where each pair is: number of the work, place in it."""
        self._check_size(len(pairs), "pairs")
        named = [place for place, pair in enumerate(pairs) if pair.item_id is not None]
        codes = self._codes([pairs[place].item_id or "" for place in named], "pairs.item_id")
        candidates = dict(zip(named, self._candidates(codes), strict=True))
        numbers: dict[str, int] = {}
        users: list[UserWork] = []
        lists: list[list[Candidate]] = []
        places: list[tuple[int, int]] = []
        for place, pair in enumerate(pairs):
            key = pair.model_dump_json(exclude={"item_id", "title"})
            if key not in numbers:
                numbers[key] = len(users)
                history = NOBODY if pair.summary is not None else self.user(pair, f"pairs.{place}.")
                users.append(UserWork(history.codes, (), pair.summary, pair.user_id or ""))
                lists.append([])
            number = numbers[key]
            places.append((number, len(lists[number])))
            lists[number].append(candidates.get(place) or Candidate(pair.title or ""))
        work = [replace(one, candidates=tuple(mine)) for one, mine in zip(users, lists, strict=True)]
        return work, places

    def rerank(self, message: RerankMessage) -> ResolvedRerank:
        """Return the documents with what they are."""
        self._check_size(len(message.documents), "documents")
        warnings = [f"{name} is not used" for name in ("rank_fields", "max_chunks_per_doc", "max_tokens_per_doc")
                    if getattr(message, name) is not None]  # fmt: skip
        query = message.query
        if isinstance(query, str) and query.lstrip().startswith("{"):
            query = _query_in(query)
        if isinstance(query, str):
            summary: str | None = query
            history, user_id = NOBODY.codes, ""
        else:
            history = NOBODY.codes if query.summary is not None else self.user(query, "query.").codes
            summary, user_id = query.summary, query.user_id or ""
        ids = [self._id_of(one, message.documents_are) for one in message.documents]
        named = [one for one in ids if one is not None]
        places = self._items.places(named) if named else np.empty(0, np.int64)
        texts = [one for one in message.documents if isinstance(one, str)]
        if message.documents_are == "auto" and texts:
            known = (self._items.places(texts) >= 0).sum()
            if known not in (0, len(texts)):
                found = f"{known} of the {len(texts)} documents given as text are item ids, the others are not"
                step = "Say documents_are: ids, or documents_are: texts"
                raise RefusalError(422, Problem("", "documents", found, "", step))
            if not known:
                ids = [None if isinstance(one, str) else item for one, item in zip(message.documents, ids, strict=True)]
                named = [one for one in ids if one is not None]
                places = self._items.places(named) if named else places[:0]
        self._refuse_unknown(named, places, "documents")
        rows = iter(places.tolist())
        items = [-1 if one is None else next(rows) for one in ids]
        shown = [self._candidate(item) if item >= 0 else Candidate(_text_of(one))
                 for item, one in zip(items, message.documents, strict=True)]  # fmt: skip
        return ResolvedRerank(UserWork(history, tuple(shown), summary, user_id), items, warnings)

    def user(self, message: UserMessage, where: str, *, fallback: bool = False) -> UserHistory:
        """Return what is known of a user with what the message adds; ``where`` begins the names of fields."""
        known = NOBODY
        if message.user_id is None and message.history is None:
            found = "neither user_id nor history is given"
            raise RefusalError(422, Problem("", where.rstrip("."), found, "one of them, or both"))
        if message.user_id is not None:
            user = self._users.find(message.user_id)
            if user is None and message.history is None and not fallback:
                raise self.unknown_user(message.user_id, f"{where}user_id")
            known = user or NOBODY
        if not message.history:
            return known
        told = [InteractionMessage(item_id=one) if isinstance(one, str) else one for one in message.history]
        codes = self._codes([one.item_id for one in told], f"{where}history")
        times = [one.milliseconds for one in told]
        moments = None if None in times else [moment for moment in times if moment is not None]
        return self._users.extended(known, codes.tolist(), moments)

    def unknown_user(self, user_id: str, field: str) -> RefusalError:
        """Return the refusal of a user in no log."""
        step = "Give a history, or unknown_users: fallback for the most popular items"
        if len(self._users.ids) <= _COMPARED and len(near := near_matches(pl.Series([user_id]), self._users.ids)):
            step = f"Did you mean {near.pairs['near'][0]!r}?"
        return RefusalError(404, Problem("", field, f"user {user_id[:60]!r} is not in the log", "", step))

    def _codes(self, ids: Sequence[str], field: str) -> Codes:
        places = self._items.places(ids)
        self._refuse_unknown(ids, places, field)
        return places.astype(np.int32)

    def _refuse_unknown(self, ids: Sequence[str], places: Codes, field: str) -> None:
        unknown = list(dict.fromkeys(one for one, place in zip(ids, places.tolist(), strict=True) if place < 0))
        if unknown:
            named = ", ".join(repr(one[:60]) for one in unknown[:_NAMED])
            more = f" and {len(unknown) - _NAMED:,} more" if len(unknown) > _NAMED else ""
            noun = "item is" if len(unknown) == 1 else "items are"
            found = f"{len(unknown):,} {noun} not in the catalogue: {named}{more}"
            raise RefusalError(422, Problem("", field, found, "ids of the catalogue (GET /v1/items finds them)"))

    def _check_size(self, number: int, field: str) -> None:
        if number > self._limit:
            found, allowed = f"{number:,} of them", f"at most {self._limit:,} in one request"
            raise RefusalError(422, Problem("", field, found, allowed, "Send several requests"))

    def _candidates(self, codes: Codes) -> tuple[Candidate, ...]:
        return tuple(self._candidate(code) for code in codes.tolist())

    def _candidate(self, code: int) -> Candidate:
        return self._items.candidate(code)

    def _id_of(self, document: str | DocumentMessage, documents_are: str) -> str | None:
        if isinstance(document, str):
            return None if documents_are == "texts" else document
        return document.item_id


def _query_in(text: str) -> str | QueryMessage:
    """Return the query that a text holds as JSON; the text itself where it holds none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    try:
        read_json(text.encode())
    except json.JSONDecodeError as error:
        raise RefusalError(422, Problem("", "query", f"the JSON in the text: {error.msg}")) from None
    try:
        return QueryMessage.model_validate(found)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(["query", *map(str, problem["loc"])])
        raise RefusalError(422, Problem("", where, f"the JSON in the text: {problem['msg']}")) from None


def _text_of(document: str | DocumentMessage) -> str:
    if isinstance(document, str):
        return document
    return document.title if document.title is not None else document.text or ""
