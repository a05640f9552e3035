"""What is like the user: the items whose vectors are nearest to that of the user summary, or to the history's mean."""

from collections.abc import Sequence

import numpy as np

from msr_adapter.arrays import Mask, Vectors
from msr_adapter.retrieval.asked_users import (
    ContentVectors,
    Found,
    Query,
    RetrievalUser,
    Retrieve,
    RetrieverInputs,
    filled,
)
from msr_adapter.retrieval.vector_search import make_index


def make_by_content(inputs: RetrieverInputs, count: int) -> Retrieve:
    """Take the items with the largest cosine to the user's vector; what is missing to ``count`` is popular items.

    Users without a summary and without a history have no vector: all that they get is popular items.
    """
    content, log = inputs.content, inputs.log
    if content is None:
        raise ValueError("a search by content needs vectors")
    index = make_index(content.items, log.ranks, content.search)

    def retrieve(users: Sequence[RetrievalUser]) -> list[Found]:
        vectors, queries = query_vectors(content, users)
        asked = [place for place, query in enumerate(queries) if query]
        nearest = index.search(vectors[asked], count, [users[place].barred for place in asked])
        best = dict(zip(asked, nearest, strict=True))
        nothing = np.empty(0, np.int32)
        return [filled(one, best.get(place, nothing), count, log, queries[place]) for place, one in enumerate(users)]

    return retrieve


def query_vectors(content: ContentVectors, users: Sequence[RetrievalUser]) -> tuple[Vectors, list[Query]]:
    """Return a vector of length 1 for each user (users, dimension), and what it is of; zeros and "" where it is none.

    One of the two, the summary and the history, stands in for the other where that is missing.
    """
    summaries = np.zeros((len(users), content.items.shape[1]), np.float32)
    histories = np.stack([history_mean(content.items, one) for one in users]) if users else summaries
    has_history: Mask = np.any(histories, axis=1)
    asked = [place for place in range(len(users)) if content.users == "summary" or not has_history[place]]
    if (found := content.summaries([users[place] for place in asked])).size:
        summaries[asked] = found
    has_summary: Mask = np.any(summaries, axis=1)
    first = has_summary & (~has_history | (content.users == "summary"))
    vectors = np.where(first[:, None], summaries, histories)
    said: list[Query] = [
        "summary" if summary else "history" if history else ""
        for summary, history in zip(first.tolist(), has_history.tolist(), strict=True)
    ]
    return vectors, said


def history_mean(items: Vectors, user: RetrievalUser) -> Vectors:
    """Return the mean of the vectors of a history's items, of length 1 (dimension,); zeros where there is none."""
    total = items[user.history].sum(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(total))
    return np.asarray(total / length if length > 0 else np.zeros_like(total), dtype=np.float32)
