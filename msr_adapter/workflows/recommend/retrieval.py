"""Candidates per user, best first: by a retriever of the table, the whole catalogue, or those of a file."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Codes
from msr_adapter.retrieval import Found, KnownLog, RetrievalUser, Retrieve, RetrieverInputs
from msr_adapter.retrieval.asked_users import without
from msr_adapter.retrieval.popular import first_of, whole
from msr_adapter.retrieval.retrievers import row_of
from msr_adapter.workflows.recommend.histories import Histories
from msr_adapter.workflows.recommend.request import Retrieval

__all__ = ["Found", "RetrievalUser", "Retrieve", "known_log", "make_retriever"]

_EMPTY = np.empty(0, np.int32)


def known_log(histories: Histories) -> KnownLog:
    """Return what retrievers count in: all interactions, nothing held out."""
    popularity = None if histories.units is None else histories.popularity()
    return KnownLog(histories.offsets, histories.codes, len(histories.items), popularity)


def make_retriever(
    retrieval: Retrieval, histories: Histories, listed: pl.DataFrame | None, inputs: RetrieverInputs | None = None
) -> Retrieve:
    """Return what retrieves; popularity and neighbours are those of all interactions, nothing held out.

    ``listed`` is the content of a file of candidates: item_id, perhaps with user_id, all of the catalogue. ``inputs``
    are for a retriever that needs more than the log.
    """
    inputs = inputs or RetrieverInputs(known_log(histories))
    log = inputs.log
    if retrieval.kind == "file":
        assert listed is not None
        found = pc.index_in(listed["item_id"].to_arrow().cast(pa.string()), value_set=histories.items)
        codes: Codes = np.asarray(found.to_numpy(), dtype=np.int32)
        if "user_id" in listed.columns:
            return _of_pairs(_by_user(listed["user_id"], codes), log)
        return first_of(codes, len(codes), log)
    if retrieval.kind == "all":
        return first_of(log.by_popularity, log.items, log)
    return row_of(retrieval.kind).make(inputs, retrieval.count)


def _of_pairs(lists: Mapping[str, Codes], log: KnownLog) -> Retrieve:
    """Take each user's own candidates, by id; of a user without a history, the most popular first."""

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        found = []
        for one in users:
            pool = lists.get(one.id, _EMPTY)
            pool = pool if len(one.history) else pool[np.argsort(log.ranks[pool], kind="stable")]
            found.append(whole(without(one.barred, pool, len(pool))))
        return found

    return retrieve


def _by_user(users: pl.Series, codes: Codes) -> dict[str, Codes]:
    grouped = pl.DataFrame({"user": users, "code": codes}).group_by("user", maintain_order=True).agg("code")
    return {user: np.asarray(items, np.int32) for user, items in grouped.iter_rows()}
