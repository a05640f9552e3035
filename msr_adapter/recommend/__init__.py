"""Ranked lists for users: candidates retrieved, then reranked by the trained recommender."""

from msr_adapter.recommend.order import Given, Order, settle_order
from msr_adapter.recommend.output import SUFFIXES, writing
from msr_adapter.recommend.ranking import rank_shard
from msr_adapter.recommend.retrieval import make_retriever
from msr_adapter.recommend.wanted import Wanted, order_problems

__all__ = [
    "SUFFIXES",
    "Given",
    "Order",
    "Wanted",
    "make_retriever",
    "order_problems",
    "rank_shard",
    "settle_order",
    "writing",
]
