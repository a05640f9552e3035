"""Item-based nearest neighbours."""

from msr_adapter.arrays import Floats
from msr_adapter.evaluate.baselines.training_log import Queries, TrainingLog, gather
from msr_adapter.heuristics.item_similarity import item_similarity


def item_knn_scores(log: TrainingLog, queries: Queries) -> Floats:
    """Score candidates (n,) by the sum of their cosines with the history's items, over training users.

    An item that training never saw scores 0.
    """
    similarity = item_similarity(log.user, log.item, log.users, log.items)
    seen = queries.histories(log.items)
    return gather(queries, log.items, lambda first, last: (seen[first:last] @ similarity).toarray())
