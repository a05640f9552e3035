"""Ranked lists for users: candidates retrieved, then reranked by the trained recommender.

- `workflow`: the command from end to end; `request`: what is asked for; `resolve_request`: that against the data
- `histories`: what every user has interacted with; `user_summaries`: the texts about them
- `retrieval`: candidates per user; `content`: items and users as vectors, for that
- `user_shards`: users in parts, as tables that the stages read
- `ranking`: scores to lists; `output`: lists to a file
"""

from msr_adapter.workflows.recommend.request import RecommendRequest

__all__ = ["RecommendRequest"]
