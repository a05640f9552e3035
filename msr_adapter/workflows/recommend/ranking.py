"""Scores to ranked lists: by the model's logit, ties by the order of retrieval."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.arrays import Floats, Rows
from msr_adapter.errors import StageError
from msr_adapter.model_scores import ranking_scores, read_model_scores, shown_scores
from msr_adapter.workflows.recommend.request import RecommendRequest
from msr_adapter.workflows.recommend.user_shards import LISTS

Weigh = Callable[[pa.Table, Floats], Floats]
"""(rows of LISTS of users with a history, what the model says of them) -> a hybrid's log-odds."""


def rank_shard(
    folder: Path, scores_dir: Path | None, items: pa.Table, wanted: RecommendRequest, weigh: Weigh | None = None
) -> pa.Table:
    """Return RECOMMENDATIONS of a shard's users: the first ``wanted.top`` of each.

    The order is the model's logit, or log-likelihood ratio, falling, or what ``weigh`` makes of it, whose log-odds are
    shown then; of equal ones, what was retrieved sooner comes first. Users without a history keep the order of
    retrieval, which is by popularity, and have no score. ``scores_dir`` holds the SCORES of the shard, None where
    nobody has a history. Raises `StageError` when they are not those of its candidates.
    """
    lists = schema.read_table(folder / "lists.parquet", LISTS)
    number, retrieval = lists["number"].to_numpy(), lists["retrieval_rank"].to_numpy()
    scored = lists["history_items"].to_numpy() > 0
    score, logit, ranks = np.full((3, len(lists)), np.nan)
    bounded = np.zeros(len(lists), dtype=bool)
    if scores_dir is not None:
        found = _scores(folder, scores_dir)
        ranks[scored] = ranking_scores(found)
        score[scored], logit[scored], bounds = shown_scores(found)
        bounded[scored] = bounds > 0
        if weigh:
            ranks[scored] = logit[scored] = odds = weigh(lists.filter(pa.array(scored)), ranks[scored])
            score[scored] = (1 + np.tanh(odds / 2)) / 2
    order = ranked(np.where(scored, ranks, 0.0), retrieval, number)
    first = np.flatnonzero(np.diff(number[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order))) + 1
    kept, rank = order[rank <= wanted.top], rank[rank <= wanted.top]
    rows, known = lists.take(pa.array(kept)), pa.array(scored[kept])
    columns = {
        "user_id": rows["user_id"],
        "rank": rank,
        "item_id": items["item_id"].take(rows["item"]),
        "title": items["title"].take(rows["item"]),
        "score": pc.if_else(known, pa.array(score[kept]), None),
        "logit": pa.array(logit[kept], from_pandas=True),
        "bounded": bounded[kept],
        "ranked_by": pc.if_else(known, "hybrid" if weigh else "model", "popularity"),
        "retrieved_by": pc.if_else(
            rows["own"], "history", pc.if_else(rows["filled"], "popular", wanted.retrieval.kind)
        ),
        "retrieval_rank": rows["retrieval_rank"],
        "history_items": rows["history_items"],
    }
    return pa.table(columns).cast(schema.RECOMMENDATIONS)


def ranked(scores: Floats, retrieval: Rows, number: Rows) -> Rows:
    """Return the places of candidates: by user, then by falling scores, then in the order of retrieval; all (n,)."""
    order: Rows = np.lexsort((retrieval, -scores, number))  # the last key counts first
    return order


def _scores(folder: Path, scores_dir: Path) -> pa.Table:
    wanted = schema.read_table(folder / "candidates.parquet", schema.CANDIDATES)
    found = read_model_scores(scores_dir / "scores.parquet")
    keys = ("example_id", "item_id")
    if len(found) != len(wanted) or not all(found[key].equals(wanted[key]) for key in keys):
        raise StageError("the scores are not those of the candidates", "two commands wrote into one run folder")
    return found
