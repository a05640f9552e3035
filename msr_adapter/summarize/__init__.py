"""Moves 1 and 2: items to text, histories to preference summaries."""

from msr_adapter.summarize.items import plan_items, summarize_items
from msr_adapter.summarize.users import plan_users, read_histories, read_summaries, summarize_users

__all__ = ["plan_items", "plan_users", "read_histories", "read_summaries", "summarize_items", "summarize_users"]
