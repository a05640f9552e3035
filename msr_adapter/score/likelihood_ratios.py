"""Every test candidate -> how much likelier the evidence makes a text: the ratio of two likelihoods, as a logarithm.

`next-item-text`: log p(candidate's title | user's text) - log p(candidate's title | no user). `user-text`: log p(user's
text | candidate) - log p(user's text | no candidate). The second term takes away what makes a text likely by itself:
its length, its common words. It is asked once for each different text, and found again by the key of its request.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Floats
from msr_adapter.candidate_requests import ask, ask_text
from msr_adapter.candidate_rows import CandidateRow, CandidateRows
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import Request
from msr_adapter.generation.request import Remote
from msr_adapter.progress import Advance, Reporter
from msr_adapter.score.alone_weights import Terms
from msr_adapter.score.answer_stream import answers_in_order
from msr_adapter.score.scoring_counts import RatioCounts, compare_sample, exactness_of, sample_rows, tell_ratios
from msr_adapter.score.scoring_order import Leading, choose_order
from msr_adapter.stage_arguments import Client


class RatioScorer:
    """Scores candidates block by block and keeps the running counts of all of them."""

    def __init__(self, train: TrainConfig, client: Client, advance: Advance, reporter: Reporter) -> None:
        self.leading: Leading | None = None
        self.compared: dict[str, str] = {}
        """What is known of a server's prompts."""
        self._counts = RatioCounts()
        self._train, self._client, self._advance, self._reporter = train, client, advance, reporter

    def block(self, rows: CandidateRows) -> pa.Table:
        """Return RATIOS of a block, in the order of its rows. Raises `StageError` for a number that is none."""
        backend = self._client.model()
        if isinstance(backend, Remote) and not self.compared:
            sample = self._requests(sample_rows(rows))
            self.compared = compare_sample(sample, backend, self._client.cache, self._reporter)
        order = choose_order(rows, self.leading)
        self.leading = order.leading
        texts = rows.answer_texts
        assert texts is not None, "a word answers this question"
        given, tokens = np.full(len(rows), np.nan), np.zeros(len(rows), np.int64)
        items, lengths = np.empty(len(rows), object), np.zeros(len(rows), np.int64)
        for places, part, answers in answers_in_order(self._client, rows, order.places, self._requests, self._advance):
            given[places] = [answer.choice_logprobs[0] for answer in answers]
            tokens[places] = [answer.tokens_out for answer in answers]
            lengths[places] = [answer.tokens_in + answer.tokens_out for answer in answers]
            items[places] = [row.item_id for row in part]
        # Asked after the others: an engine is tried with what is asked first, and only those may show images.
        without = self._alone(texts.to_list())[rows.answer_codes]
        settings = self._train.text_answer
        ratio = Terms(given, without, tokens).scores(settings.length, settings.alone_weight)
        if broken := int((~np.isfinite(ratio)).sum()):
            raise StageError(
                f"{broken} of {len(ratio)} candidates have no finite score",
                "training diverged, or float16 overflows",
                "look at the training loss; lower train.learning_rate or set train.model.dtype",
            )
        self._counts.add(len(np.unique(rows.examples)), tokens, lengths, given - without, self._train.cutoff_len)
        columns = [rows.examples, items, ratio, given, without, tokens]
        return pa.table(dict(zip(schema.RATIOS.names, columns, strict=True)), schema=schema.RATIOS)

    def settle(self, _: float) -> dict[str, Any]:
        """Return the counts of all blocks; nothing here is a bound."""
        exactness = exactness_of(self._client.model(), "log_likelihoods")
        return self._counts.summary() | {"order": self.leading} | self.compared | exactness

    def tell(self, counts: dict[str, Any]) -> None:
        """Say what a reader should know or doubt of the stage's ``counts``."""
        tell_ratios(counts, self._train, self._reporter)

    def _alone(self, texts: Sequence[str]) -> Floats:
        """Return the log-probability of each text without evidence, (texts,)."""
        prompt, identity = self._client.prompts.without_evidence, self._client.model().identity
        requests = [ask_text(prompt, (), text, self._train, identity) for text in texts]
        answers = self._client.cache.complete(self._client.model(), requests)
        return np.array([answer.choice_logprobs[0] for answer in answers])

    def _requests(self, rows: Sequence[CandidateRow]) -> list[Request]:
        return [ask(row, self._train, self._client.model().identity) for row in rows]
