"""Which users the report shows, and of each the head of the ranked candidate list."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msr_adapter.arrays import Floats, Integers
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.metrics import GroupMetrics
from msr_adapter.report.report_context import PageLimits, ReportContext
from msr_adapter.report.user_texts import ShownTexts, read_user_texts

_PER_KIND = 2
"""Best, typical and worst cases, of each."""
_CHUNK = 2**21
"""Candidates ranked at a time: their number sets the memory."""


@dataclass(frozen=True)
class Ranking:
    """The shown candidates of the shown users, flat, best first within each user."""

    users: Integers
    """Indices into the held-out users, ascending."""
    counts: Integers
    """Shown candidates of each user (users,)."""
    rows: Integers
    """Their rows in CANDIDATES (n,)."""
    places: Integers
    """1 = best (n,); tied candidates stand in the order of the table."""


PROBABILITY, RATIO = "p(yes)", "log-likelihood ratio"
"""What the scores of models are."""


@dataclass(frozen=True)
class Scored:
    """The test candidates and what the trained model made of them."""

    held_out: HeldOut
    result: GroupMetrics
    scores: Floats
    """What is shown of each candidate (n,)."""
    measure: str = PROBABILITY
    """What that is; any other is no share of anything, and gets no bar."""


@dataclass(frozen=True)
class ShownUsers:
    """The users on the page, their ranked candidates, and the texts that models read of them."""

    scored: Scored
    cases: Sequence[tuple[str, int]]
    """(kind, user index) of the best, typical and worst cases; all of them are in ``ranking``."""
    ranking: Ranking
    texts: ShownTexts

    @property
    def kinds(self) -> Mapping[int, str]:
        """User index -> kind, for the cases."""
        return {user: kind for kind, user in self.cases}


def sample_users(scored: Scored, seed: int, data_dir: Path, context: ReportContext) -> ShownUsers:
    """Choose users within the page's limits, rank their candidates and read their texts; the cases always stay."""
    held_out, limits = scored.held_out, context.limits
    cases = pick_cases(scored.result)
    always = [user for _, user in cases]
    users = choose_users(scored.result, always, limits.users, seed)
    ranking = rank_candidates(users, scored, limits.candidates)
    candidates = held_out.items.take(ranking.rows).unique().to_pylist()
    texts = read_user_texts(held_out.example_ids[users].tolist(), candidates, data_dir, context)
    kept = _within_texts(users, always, texts, scored.held_out, limits, seed)
    if len(kept) < len(users):
        ranking = rank_candidates(kept, scored, limits.candidates)
    return ShownUsers(scored, cases, ranking, texts)


def pick_cases(result: GroupMetrics) -> list[tuple[str, int]]:
    """Choose (kind, user index) of the best, the typical and the worst cases by rank, then by the target's lead."""
    groups = result.groups
    scores = groups.scores.astype(np.float64)
    negatives = scores.copy()
    negatives[groups.positives] = -np.inf
    with np.errstate(invalid="ignore"):  # infinite scores have no lead
        lead = scores[groups.best] - np.maximum.reduceat(negatives, groups.offsets[:-1])
    order = np.lexsort((-lead, result.ranks))
    middle = max(0, (len(order) - _PER_KIND) // 2)
    kinds = {
        "Best": order[:_PER_KIND],
        "Typical": order[middle : middle + _PER_KIND],
        "Worst": order[::-1][:_PER_KIND],
    }
    # Of few users one may be of several kinds: the last one written here wins.
    chosen = {int(user): kind for kind in ("Typical", "Worst", "Best") for user in kinds[kind]}
    return [(kind, int(user)) for kind, users in kinds.items() for user in users if chosen[int(user)] == kind]


def choose_users(result: GroupMetrics, always: Sequence[int], limit: int, seed: int) -> Integers:
    """Return at most ``limit`` user indices, ascending: all users, or ``always`` and a seeded sample of the others."""
    users = np.arange(len(result.ranks))
    if len(users) <= limit:
        return users
    # 2 here, 3 below: draws of the same seed that have nothing to do with each other.
    others = np.random.default_rng((seed, 2)).permutation(np.setdiff1d(users, always))
    return np.sort(np.concatenate([always, others[: max(0, limit - len(always))]]).astype(np.int64))


def _within_texts(
    users: Integers, always: Sequence[int], texts: ShownTexts, held_out: HeldOut, limits: PageLimits, seed: int
) -> Integers:
    """Drop users, those of ``always`` last, until their summaries keep within the limit."""
    steps = (texts.steps.get(int(held_out.example_ids[user]), ()) for user in users)
    sizes = np.array([sum(len(step.text.encode()) for step in grown) for grown in steps])
    if sizes.sum() <= limits.text_bytes:
        return users
    order = np.random.default_rng((seed, 3)).permutation(len(users))
    order = order[np.argsort(~np.isin(users[order], always), kind="stable")]
    return np.sort(users[order[np.cumsum(sizes[order]) <= limits.text_bytes]])


def rank_candidates(users: Integers, scored: Scored, shown: int) -> Ranking:
    """Order the candidates of ``users`` by score, ties as they stand; of long lists the first ``shown`` and targets.

    O(n log n) for n candidates of these users; memory is a chunk of them and the result.
    """
    held_out, scores = scored.held_out, scored.result.groups.scores
    sizes, labels = np.diff(held_out.offsets)[users], held_out.labels
    counts, rows, places = [], [], []
    for first, last in _chunks(sizes):
        owner = np.repeat(np.arange(last - first), sizes[first:last])
        inside = np.arange(len(owner)) - (np.cumsum(sizes[first:last]) - sizes[first:last])[owner]
        row = held_out.offsets[users[first:last]][owner] + inside
        row = row[np.lexsort((-scores[row], owner))]
        kept = (inside < shown) | (labels[row] > 0)
        counts.append(np.bincount(owner[kept], minlength=last - first))
        rows.append(row[kept])
        places.append(inside[kept] + 1)
    return Ranking(users, np.concatenate(counts), np.concatenate(rows), np.concatenate(places))


def _chunks(sizes: Integers) -> Iterator[tuple[int, int]]:
    """Yield ranges of users with about `_CHUNK` candidates each."""
    ends, first = np.cumsum(sizes), 0
    while first < len(sizes):
        begun = ends[first] - sizes[first]
        last = max(first + 1, int(np.searchsorted(ends, begun + _CHUNK, side="right")))
        yield first, last
        first = last
