"""Moves 1 and 2: items to text, histories to preference summaries."""

from msr_adapter.summarize.items import summarize_items
from msr_adapter.summarize.users import summarize_users

__all__ = ["summarize_items", "summarize_users"]
