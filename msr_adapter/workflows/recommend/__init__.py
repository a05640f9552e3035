"""Ranked lists for users: candidates retrieved, then reranked by the trained recommender."""

from msr_adapter.workflows.recommend.output import SUFFIXES, writing
from msr_adapter.workflows.recommend.ranking import rank_shard
from msr_adapter.workflows.recommend.request import RecommendRequest, order_problems
from msr_adapter.workflows.recommend.resolve_request import Given, ResolvedRequest, resolve_request
from msr_adapter.workflows.recommend.retrieval import make_retriever

__all__ = [
    "SUFFIXES",
    "Given",
    "RecommendRequest",
    "ResolvedRequest",
    "make_retriever",
    "order_problems",
    "rank_shard",
    "resolve_request",
    "writing",
]
