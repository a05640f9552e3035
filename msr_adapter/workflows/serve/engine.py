"""The thread that holds the models: takes requests from the queue, batch by batch, and answers them."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from msr_adapter.errors import MsrError, StageError
from msr_adapter.generation import Backend, Completion, CompletionCache, Request
from msr_adapter.generation.request import Remote
from msr_adapter.pipeline.stage_context import Context, is_truncating
from msr_adapter.pipeline.stage_functions import make_scorer
from msr_adapter.prompts import HistoryItem
from msr_adapter.stage_arguments import Client
from msr_adapter.workflows.recommend.user_summaries import AnyConfig
from msr_adapter.workflows.serve.live_scores import LiveScores, ShownUser, scored
from msr_adapter.workflows.serve.live_summaries import LiveSummaries
from msr_adapter.workflows.serve.live_truncation import LiveTruncation
from msr_adapter.workflows.serve.prompt_fields import PromptFields
from msr_adapter.workflows.serve.request_queue import RequestQueue, Ticket
from msr_adapter.workflows.serve.served_data import ServedItems
from msr_adapter.workflows.serve.settings import ServeSettings
from msr_adapter.workflows.serve.work import Candidate, LiveSummary, ScoredUser, UserWork

_NEW = 0.2
"""Weight of the latest batch in the mean time of a request."""


@dataclass(frozen=True)
class BatchFacts:
    """What one batch was, for the metrics."""

    requests: int
    pairs: int
    computed: int
    """Scores that were not in the cache."""
    summary_steps: int
    """Answers of the summarisers that were not in the cache."""
    summaries_s: float
    scores_s: float


class ServingEngine:
    """Models, cache and queue. Everything but `submit`, `drop` and `close` happens in a thread of its own."""

    def __init__(
        self, context: Context, items: ServedItems, settings: ServeSettings, watch: Callable[[BatchFacts], None]
    ) -> None:
        """Prepare; nothing is loaded before `start`. ``watch`` is told of each batch."""
        self.queue = RequestQueue(settings.limits.queue, settings.batching)
        self.label = ""
        """What scores, once it is loaded."""
        self.error: BaseException | None = None
        """Why the models could not be loaded, or why the thread ended."""
        self._context, self._items, self._settings, self._watch = context, items, settings, watch
        self._seconds_each = 0.0
        """Of a request, lately."""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="msr-engine", daemon=True)

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Say whether the models are loaded and the thread runs."""
        return self._ready.is_set() and self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Say whether the thread has ended by an error."""
        return self.error is not None

    @property
    def waiting_s(self) -> float:
        """Estimate how long what waits now will take."""
        return self._seconds_each * len(self.queue)

    def submit(self, work: Sequence[UserWork]) -> Ticket:
        """Let work wait for the model. Raises what `RequestQueue.put` raises."""
        ticket = Ticket(work)
        self.queue.put(ticket)
        return ticket

    def close(self, timeout_s: float | None = None) -> None:
        """Answer what waits, then end the thread."""
        self.queue.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                work = _Models(stack, self._context, self._items, self._settings.batching.pairs)
                self.label = work.label
                self._ready.set()
                while (tickets := self.queue.take()) is not None:
                    if live := [one for one in tickets if not one.gone]:
                        self._answer(work, live)
        except BaseException as error:
            self.error = error
            self.queue.close()
            for ticket in self.queue.left():
                ticket.fail(StageError("the model's thread has ended", str(error)))
            if not isinstance(error, MsrError):
                raise

    def _answer(self, work: "_Models", tickets: Sequence[Ticket]) -> None:
        """Answer a batch; where it fails as a whole, each of its requests alone, so that one harms no other."""
        try:
            found, facts = work.answer(tickets)
        except Exception as error:
            if len(tickets) == 1:
                tickets[0].fail(error)
                return
            for ticket in tickets:
                if not ticket.gone:
                    self._answer(work, [ticket])
            return
        seconds = (facts.summaries_s + facts.scores_s) / facts.requests
        self._seconds_each += _NEW * (seconds - self._seconds_each)
        self._watch(facts)
        for ticket, one in zip(tickets, found, strict=True):
            if isinstance(one, Exception):
                ticket.fail(one)
            else:
                ticket.answer(one)


class _Models:
    """The models of one pipeline, loaded, and what they are asked through."""

    def __init__(self, stack: ExitStack, context: Context, items: ServedItems, pairs: int) -> None:
        """Load the models; they are let go of with ``stack``."""
        self._context, pipeline = context, context.pipeline
        # A batch is one shard: whatever is scored together is put to the model in one call.
        cache = CompletionCache(context.cache_path, shard_requests=pairs, note=context.reporter.note)
        stack.enter_context(cache)
        fields = PromptFields(context.prompts, context.dirs, pipeline.summarize.items)
        self._summaries = LiveSummaries(pipeline, context.dirs, items, fields)
        scorer = stack.enter_context(make_scorer(context))
        configs: list[AnyConfig] = [pipeline.summarize.items, pipeline.summarize.users]
        # Both summarisers are mostly one model, which is loaded once.
        opened: dict[str, Backend] = {}
        backends: list[Backend | None] = []
        for config in configs:
            key = config.model.model_dump_json()
            if config.mode != "none" and key not in opened:
                opened[key] = stack.enter_context(context.backend(config.model))
            backends.append(opened.get(key) if config.mode != "none" else None)
        self._items, self._users = (Client(context.prompts, backend, cache) for backend in backends)
        self._scorer = Client(context.prompts, scorer, cache)
        self._scores = LiveScores(pipeline.train, self._scorer, fields, context.reporter, pairs)
        self._truncation = None
        if is_truncating(pipeline):
            self._truncation = LiveTruncation(pipeline.train, context.dirs, context.prompts, items)
        self.label = scorer.label
        self._warm(items, fields)

    def answer(self, tickets: Sequence[Ticket]) -> tuple[list[list[ScoredUser] | Exception], BatchFacts]:
        """Return what each request is answered, or why it is not, and what it took."""
        started = time.monotonic()
        steps = self._summaries.steps_computed
        work = [one for ticket in tickets for one in ticket.work]
        owner = [number for number, ticket in enumerate(tickets) for _ in ticket.work]
        texts = self._write([one for one in work if _is_read(one)])
        told = [next(texts) if _is_read(one) else LiveSummary(one.summary or "") for one in work]
        summarised = time.monotonic()
        broken = {number: text for number, text in zip(owner, told, strict=True) if isinstance(text, StageError)}
        users = self._shown(work, [LiveSummary("") if isinstance(text, StageError) else text for text in told])
        asked = [
            [self._scores.request(user.shown, one, user.work.user_id) for one in user.work.candidates]
            if user.work.has_user
            else []
            for user in users
        ]
        before = self._scorer.cache.stats.computed
        answers = self._scores.answers(
            asked, lambda place: owner[place] not in broken and not tickets[owner[place]].gone
        )
        computed = self._scorer.cache.stats.computed - before
        facts = BatchFacts(len(tickets), sum(map(len, asked)), computed, self._summaries.steps_computed - steps,
                           summarised - started, time.monotonic() - summarised)  # fmt: skip
        found: list[list[ScoredUser] | Exception] = []
        for number, ticket in enumerate(tickets):
            mine = [place for place, whose in enumerate(owner) if whose == number]
            try:
                if number in broken:
                    raise broken[number]
                found.append([] if ticket.gone else [scored(users[place], asked[place], answers) for place in mine])
            except (StageError, KeyError) as error:  # a key is missing where the client disconnected meanwhile
                found.append(error)
        return found, facts

    def _write(self, work: Sequence[UserWork]) -> Iterator[LiveSummary | StageError]:
        return iter(self._summaries.write(work, self._items, self._users) if work else [])

    def _shown(self, work: Sequence[UserWork], summaries: Sequence[LiveSummary]) -> list[ShownUser]:
        texts = [one.text for one in summaries]
        if self._truncation is not None:
            texts = self._truncation.shown(work, texts, [self._history(one) for one in work])
        return [ShownUser(*each) for each in zip(work, summaries, texts, strict=True)]

    def _history(self, one: UserWork) -> list[HistoryItem]:
        return self._summaries.told(one.history) if _is_read(one) else []

    def _warm(self, items: ServedItems, fields: PromptFields) -> None:
        """Load the weights, and run each model once: the first client does not wait for that."""
        place = int(np.argmax(items.popularity)) if len(items) else 0
        shown = items.candidate(place) if len(items) else Candidate("A title")
        requests: list[tuple[Client, Request]] = [
            (self._scorer, self._scores.request("A summary", shown, fields.somebody))
        ]
        if self._users.backend is not None:
            requests.append((self._users, self._summaries.example(place, self._users)))
        for client, request in requests:
            backend = client.model()
            if isinstance(backend, Remote):
                continue  # another process has loaded it
            [answer] = backend.complete([request])
            if not isinstance(answer, Completion):
                raise StageError(f"the model gave no answer to a first prompt ({answer.reason})")


def _is_read(one: UserWork) -> bool:
    """Say whether a user's history is to be summarised."""
    return one.summary is None and bool(len(one.history))
