"""Every test candidate -> p(yes) / (p(yes) + p(no)) of the first answer token."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Floats
from msr_adapter.candidate_requests import ask
from msr_adapter.candidate_rows import CandidateFolders, CandidateRow, CandidateRows, candidate_blocks, count_rows
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem, StageError, UserError
from msr_adapter.generation import Request
from msr_adapter.generation.request import Remote, engine_facts
from msr_adapter.progress import Advance, Reporter
from msr_adapter.score.answer_stream import answers_in_order
from msr_adapter.score.likelihood_ratios import RatioScorer
from msr_adapter.score.scoring_counts import (
    Bounds,
    Counts,
    compare_sample,
    exactness_of,
    reasons_of,
    sample_rows,
    spent_by,
    tell,
)
from msr_adapter.score.scoring_order import Leading, choose_order
from msr_adapter.stage_arguments import Client, Job, StageDirs

_BLOCK = 65_536
"""Candidates that are put in order together, and whose scores are written together."""


def score(
    train: TrainConfig, dirs: StageDirs, client: Client, job: Job, bounded_share: float = 0.0, split: str = "test"
) -> dict[str, Any]:
    """Write `scores.parquet` for all candidates of a ``split``, in the order of CANDIDATES; return counts.

    It holds SCORES, or RATIOS where a text answers the question.
    They are asked about in the order in which neighbours share most. Answers come through the cache, shard by shard, so
    that a killed run resumes. Raises `StageError` if any candidate has no answer, or a server kept back one answer of
    more than the ``bounded_share`` of candidates; `UserError` if there is nothing to score. Memory does not grow with
    the number of users.
    """
    total = count_rows(dirs.data, split, dirs.candidates)
    if not total:
        step = f"Give more users or a larger {split} share"
        raise UserError(Problem("", "split", f"there are no {split} candidates", "at least one example", step))
    reporter, backend, cache = job.reporter, client.model(), client.cache
    before, spent = cache.stats, spent_by(backend)
    with reporter.track("scoring", total) as advance:
        scoring = scorer_of(train, client, advance, reporter)
        folders = CandidateFolders(dirs.data, dirs.user_summaries, dirs.candidates, dirs.items)
        blocks = candidate_blocks(folders, client.prompts, split, images=train.images, size=_BLOCK)
        table = schema.RATIOS if train.asks_text else schema.SCORES
        schema.write_chunks(map(scoring.block, blocks), table, job.out / "scores.parquet")
    counts = scoring.settle(bounded_share)
    counts |= {"computed": cache.stats.computed - before.computed, "cached": cache.stats.hits - before.hits}
    counts |= {name: value - spent.get(name, 0) for name, value in spent_by(backend).items()}
    counts |= engine_facts(backend)
    counts |= {"unshared_because": "; ".join(why)} if (why := reasons_of(backend)) else {}
    scoring.tell(counts)
    return counts


def scorer_of(train: TrainConfig, client: Client, advance: Advance, reporter: Reporter) -> "BlockScorer | RatioScorer":
    """Return what scores blocks of candidates under the question that is asked."""
    return (RatioScorer if train.asks_text else BlockScorer)(train, client, advance, reporter)


class BlockScorer:
    """Scores candidates block by block and keeps the running counts of all of them."""

    def __init__(self, train: TrainConfig, client: Client, advance: Advance, reporter: Reporter) -> None:
        self.counts, self.bounds = Counts(), Bounds()
        self.compared: dict[str, str] = {}
        """What is known of a server's prompts."""
        self.leading: Leading | None = None
        self._train, self._client, self._backend, self._advance = train, client, client.model(), advance
        self._reporter = reporter

    def block(self, rows: CandidateRows) -> pa.Table:
        """Return SCORES of a block, in the order of its rows."""
        if isinstance(self._backend, Remote) and not self.compared:
            sample = self._requests(sample_rows(rows))
            self.compared = compare_sample(sample, self._backend, self._client.cache, self._reporter)
        order = choose_order(rows, self.leading)
        self.leading = order.leading
        logprobs, lengths = np.full((len(rows), 2), np.nan), np.zeros(len(rows), np.int64)
        items, kept_back = np.empty(len(rows), object), np.zeros(len(rows), np.int64)
        missing = len(rows)
        for places, part, answers in answers_in_order(self._client, rows, order.places, self._requests, self._advance):
            answered = [len(answer.choice_logprobs) == 2 for answer in answers]
            missing -= sum(answered)
            # With one unanswered they make no array; `_refuse` then ends the stage, with the count of all of them.
            if all(answered):
                logprobs[places] = [answer.choice_logprobs for answer in answers]
            lengths[places] = [answer.tokens_in for answer in answers]
            items[places] = [row.item_id for row in part]
            kept_back[places] = [len(answer.bounded) for answer in answers]
        _refuse(missing, logprobs)
        self.bounds.add(kept_back)
        score, logit = scores_of(logprobs)
        mass = np.exp(logprobs).sum(axis=1)
        self.counts.add(len(np.unique(rows.examples)), mass, lengths, self._train.cutoff_len)
        columns = [rows.examples, items, score, logit, mass, kept_back > 0]
        return pa.table(dict(zip(schema.SCORES.names, columns, strict=True)), schema=schema.SCORES)

    def _requests(self, rows: Sequence[CandidateRow]) -> list[Request]:
        return [ask(row, self._train, self._backend.identity) for row in rows]

    def settle(self, bounded_share: float) -> dict[str, Any]:
        """Return the counts of all blocks. Raises `StageError` where more than the ``bounded_share`` are bounds."""
        counts = self.counts.summary() | {"order": self.leading} | self.compared | exactness_of(self._backend)
        return counts | self.bounds.settle(bounded_share, self._reporter)

    def tell(self, counts: dict[str, Any]) -> None:
        """Say what a reader should know or doubt of the stage's ``counts``."""
        tell(counts, " and ".join(self._train.answers.trained), self._train.cutoff_len, self._reporter)


def scores_of(logprobs: Floats) -> tuple[Floats, Floats]:
    """Return p(yes) / (p(yes) + p(no)) and its log-odds, of log-probabilities of yes and no (candidates, 2)."""
    logit = logprobs[:, 0] - logprobs[:, 1]
    # sigmoid(x) = (1 + tanh(x / 2)) / 2: exp(-x) would overflow for a very unlikely yes.
    return (1 + np.tanh(logit / 2)) / 2, logit


def _refuse(missing: int, logprobs: Floats) -> None:
    if missing:
        raise StageError(f"{missing} of {len(logprobs)} candidates were not answered", "the backend is at fault")
    if broken := int((~np.isfinite(logprobs)).any(axis=1).sum()):
        raise StageError(
            f"{broken} of {len(logprobs)} candidates have no finite score", "training diverged, or float16 overflows",
            "look at the training loss; lower train.learning_rate or set train.model.dtype",
        )  # fmt: skip
