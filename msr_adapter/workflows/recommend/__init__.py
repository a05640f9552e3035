"""Ranked lists for users: candidates retrieved, then reranked by the trained recommender.

- `workflow`: the command from end to end; `request`: what is asked for; `resolve_request`: that against the data
- `new_items`: items that came after the training
- `histories`: what every user has interacted with; `user_summaries`: the texts about them
- `retrieval`: candidates per user; `content`: items and users as vectors, for that
- `finding`: candidates of a request's users, group by group
- `user_shards`: users in parts, as tables that the stages read
- `in_parts`: a folder of lists, of any number of users; `part_folder`: on disk; `ranked_shard`: a worker's share
- `hybrid_ranking`: lists by the hybrid that the evaluation froze
- `ranking`: scores to lists; `output`: lists to a file
"""

from msr_adapter.workflows.recommend.request import RecommendRequest

__all__ = ["RecommendRequest"]
