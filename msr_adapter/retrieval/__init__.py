"""Candidates per user, best first: one table of retrievers for `msr recommend`, `evaluate.full` and `msr serve`.

- `retrievers`: the table, `RETRIEVERS`; `asked_users`: for whom they retrieve, from what, and what they return
- `popular`: what most users have; `item_knn`: what the users of the history's items have; `by_content`: what is like
  the user's summary, or the items of the history; `fusion`: several of them in one list, by reciprocal ranks
- `vector_search`: the nearest of many vectors, exactly or through faiss
"""

from msr_adapter.retrieval.asked_users import ContentVectors, Found, KnownLog, RetrievalUser, Retrieve, RetrieverInputs
from msr_adapter.retrieval.retrievers import RETRIEVER_NAMES, RETRIEVERS, Retriever, members, needs_content

__all__ = [
    "RETRIEVERS",
    "RETRIEVER_NAMES",
    "ContentVectors",
    "Found",
    "KnownLog",
    "RetrievalUser",
    "Retrieve",
    "Retriever",
    "RetrieverInputs",
    "members",
    "needs_content",
]
