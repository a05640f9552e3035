"""Candidates found for the users of a request, group by group, and who of them gets a list in an unusual way."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from msr_adapter.pipeline.stage_context import Context
from msr_adapter.retrieval import Found, Retrieve, RetrieverInputs
from msr_adapter.workflows.recommend.content import goes_by_content, open_content
from msr_adapter.workflows.recommend.request import RecommendRequest
from msr_adapter.workflows.recommend.resolve_request import ResolvedRequest
from msr_adapter.workflows.recommend.retrieval import RetrievalUser, known_log, make_retriever
from msr_adapter.workflows.recommend.user_shards import AskedUsers
from msr_adapter.workflows.recommend.user_summaries import UserSummaries


@dataclass(frozen=True)
class RecommendWork:
    """What is asked for, of which run, and of which items."""

    context: Context
    wanted: RecommendRequest
    request: ResolvedRequest
    items: pa.Table
    """ITEMS, as `read_items` gives them."""

    @property
    def again(self) -> bool:
        """Whether what users had is recommended again."""
        return self.context.pipeline.data.repeats == "keep" and self.wanted.include_seen is not False

    @property
    def by_content(self) -> bool:
        """Whether candidates are found by the user summaries, which have to be there first."""
        return goes_by_content(self.wanted.retrieval.kind, self.context.pipeline.fusion)


class CandidateFinder:
    """Finds the candidates of users and counts."""

    def __init__(self, work: RecommendWork, retrieve: Retrieve, summaries: UserSummaries) -> None:
        self._work, self._retrieve, self._summaries = work, retrieve, summaries
        asked = work.request.asked
        self.counts = {
            "users": len(asked.ids), "users_without_history": 0, "users_without_candidates": 0, "short_lists": 0,
            "unknown_users": work.request.unknown_users, "users_only_seen": int(asked.only_seen().sum()),
        }  # fmt: skip

    def find(self, asked: AskedUsers, group: int, numbers: range) -> list[Found]:
        """Return the candidates of a group of the users that summaries were written for."""
        told = self._summaries.of_group(group) if self._work.by_content else {}
        users = [replace(self._user(asked, one), summary=told.get(one, "")) for one in numbers]
        found = self._retrieve(users)
        lengths, counts = np.array([len(one.items) for one in found]), self.counts
        counts["users_without_history"] += sum(not len(user.history) for user in users)
        counts["users_without_candidates"] += int((lengths == 0).sum())
        counts["short_lists"] += int((lengths < self._work.wanted.top).sum())
        if self._work.by_content:
            for query in ("summary", "history"):
                name = f"found_by_{query}"
                counts[name] = counts.get(name, 0) + sum(one.query == query for one in found)
        return found

    def _user(self, asked: AskedUsers, number: int) -> RetrievalUser:
        """Return a user with what is not recommended: nothing, what a filter dropped, or all that was seen."""
        history, beside = asked.history(number), asked.beside.of(number)
        barred = np.concatenate([history, beside])
        if self._work.wanted.include_seen or self._work.again:
            barred = beside[:0] if self._work.wanted.include_seen else beside
        return RetrievalUser(asked.ids[number], history, barred)


@contextmanager
def open_finder(work: RecommendWork, summaries: UserSummaries) -> Iterator[CandidateFinder]:
    """Yield what finds candidates; a model that it goes by is let go of with the block."""
    context, histories = work.context, work.request.asked.histories
    inputs = RetrieverInputs(known_log(histories), None, context.pipeline.fusion, work.again)
    with open_content(context, summaries, work.items) if work.by_content else nullcontext() as content:
        retrieve = make_retriever(
            work.wanted.retrieval, histories, work.request.candidates, replace(inputs, content=content)
        )
        yield CandidateFinder(work, retrieve, summaries)
