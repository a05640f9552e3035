"""Pairs of users and candidates to log-odds: the prompts of the score stage, through the same cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from msr_adapter.candidate_requests import ask
from msr_adapter.candidate_rows import CandidateRow
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import Answer, Completion, Failure, Request
from msr_adapter.generation.request import IMAGE_PLACEHOLDER, Remote
from msr_adapter.progress import Reporter
from msr_adapter.score import scores_of
from msr_adapter.score.scoring_counts import compare_sample
from msr_adapter.stage_arguments import Client
from msr_adapter.workflows.serve.prompt_fields import PromptFields
from msr_adapter.workflows.serve.work import Candidate, LiveSummary, ScoredUser, UserWork

_COMPARED = 8
"""Prompts of the first batch that a server's are compared with."""


@dataclass(frozen=True)
class ShownUser:
    """One user with what is told of this user."""

    work: UserWork
    summary: LiveSummary
    shown: str
    """What prompts hold."""


class LiveScores:
    """Scores users of several requests in calls of one model. One thread uses it."""

    def __init__(
        self, train: TrainConfig, client: Client, fields: PromptFields, reporter: Reporter, pairs: int
    ) -> None:
        """``pairs`` are scored in one call."""
        self._train, self._client, self._reporter, self._pairs = train, client, reporter, pairs
        self._fields = fields
        self._compared = False

    def request(self, text: str, candidate: Candidate, user_id: str = "") -> Request:
        """Return the request that scores one candidate of a user of whom ``text`` is told."""
        images = candidate.images if self._train.images else ()
        item, user = self._fields.as_candidate(candidate.place, candidate.title), self._fields.asker(user_id)
        prompt = self._client.prompts.recommend(text, candidate.title, len(images), item, user)
        row = CandidateRow(0, "", 0, prompt, images[: prompt.count(IMAGE_PLACEHOLDER)])
        return ask(row, self._train, self._client.model().identity)

    def answers(self, users: Sequence[Sequence[Request]], still: Callable[[int], bool]) -> dict[str, Answer]:
        """Return answers by key to the requests of each user; ``still`` says whether anybody waits for a user's.

        They are asked in the order in which neighbours share most, in calls of about so many as were chosen. Each
        answer is that of the cache: the first one that anybody stored stands.
        """
        owned = [(request, number) for number, requests in enumerate(users) for request in requests]
        # Whatever a template begins with, user or item, prompts that begin alike stand side by side in this order.
        owned.sort(key=lambda one: (one[0].prompt, one[0].key))
        found: dict[str, Answer] = {}
        for begin in range(0, len(owned), self._pairs):
            part = [request for request, number in owned[begin : begin + self._pairs] if still(number)]
            self._compare(part)
            found |= {answer.key: answer for answer in self._client.cache.attempt(self._client.model(), part)}
        return found

    def _compare(self, requests: Sequence[Request]) -> None:
        backend = self._client.model()
        if isinstance(backend, Remote) and not self._compared and requests:
            compare_sample(requests[:_COMPARED], backend, self._client.cache, self._reporter)
            self._compared = True


def scored(user: ShownUser, requests: Sequence[Request], answers: dict[str, Answer]) -> ScoredUser:
    """Return a user's scores. Raises `StageError` where a candidate has no answer."""
    if not user.work.has_user:
        nothing = np.full(len(user.work.candidates), np.nan)
        return ScoredUser(user.summary, user.shown, nothing, nothing, [False] * len(nothing))
    mine = [answers[request.key] for request in requests]
    lost = [answer for answer in mine if isinstance(answer, Failure)]
    if lost:
        what = f"{len(lost)} of {len(mine)} candidates have no answer, first: {lost[0].reason}"
        raise StageError(what, next_step="ask again; if files of the run are gone, start the server again")
    told = [answer for answer in mine if isinstance(answer, Completion)]
    logprobs = np.array([answer.choice_logprobs for answer in told], np.float64).reshape(-1, 2)
    scores, logits = scores_of(logprobs)
    bounded = [len(answer.bounded) > 0 for answer in told]
    return ScoredUser(user.summary, user.shown, scores, logits, bounded)
