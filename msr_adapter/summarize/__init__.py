"""Moves 1 and 2: items to text, histories to user summaries.

- `items`, `users`: the two stages; `summary_chains`: the requests of one item, and of one history block by block
- `summary_answers`: model answers on their way into a table; `cleaning`: what models say around a summary;
  `summary_faults`: how many repeat their prompt, are cut, or forget what was known
- `cost_estimate`: what a stage is about to ask
"""

from msr_adapter.summarize.items import item_chain, plan_items, summarize_items
from msr_adapter.summarize.users import (
    ItemTexts,
    plan_users,
    read_histories,
    read_summaries,
    summarize_users,
    user_chain,
)

__all__ = [
    "ItemTexts",
    "item_chain",
    "plan_items",
    "plan_users",
    "read_histories",
    "read_summaries",
    "summarize_items",
    "summarize_users",
    "user_chain",
]
