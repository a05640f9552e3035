"""User summaries of histories as requests bring them: the summarisers' own chains, through the same cache.

A history that goes on asks only about its new blocks: what earlier blocks said is in the cache, whoever wrote it.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from msr_adapter.arrays import Codes
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.errors import StageError
from msr_adapter.generation import Answer, Completion, Failure, Request
from msr_adapter.generation.request_chains import Start
from msr_adapter.prompts import HistoryItem, UserFields
from msr_adapter.stage_arguments import Client, StageDirs
from msr_adapter.summarize import item_chain, read_summaries, user_chain
from msr_adapter.summarize.summary_answers import Asking
from msr_adapter.summarize.summary_chains import ItemResult, UserStep
from msr_adapter.workflows.recommend.user_summaries import read_described, window_of
from msr_adapter.workflows.serve.prompt_fields import PromptFields
from msr_adapter.workflows.serve.served_data import ServedItems
from msr_adapter.workflows.serve.work import LiveStep, LiveSummary, UserWork

R = TypeVar("R")

_REMEMBERED = 10_000
"""Histories whose summaries are in memory."""

TextOrError = LiveSummary | StageError


class _Reading(NamedTuple):
    """What a user summary depends on."""

    history: bytes
    user: UserFields


class _Told(NamedTuple):
    """What the user summariser is told."""

    items: Sequence[HistoryItem]
    user: UserFields


class LiveSummaries:
    """What the summarisers of a pipeline say of items and users. One thread uses it."""

    def __init__(self, pipeline: PipelineConfig, dirs: StageDirs, items: ServedItems, fields: PromptFields) -> None:
        """Read what is said of items already. Memory: these texts."""
        self._fields = fields
        self._items_config, self._users_config = pipeline.summarize.items, pipeline.summarize.users
        self._window = window_of(pipeline)
        self._items = items
        self._known = self._read_known(dirs)
        self._remembered: OrderedDict[_Reading, LiveSummary] = OrderedDict()
        self.steps_computed = 0
        """Answers about users that were not in the cache, so far."""

    def write(self, work: Sequence[UserWork], items: Client, users: Client) -> list[TextOrError]:
        """Return the summary of each user's history, or why there is none; ``items`` and ``users`` answer and remember.

        Memory of texts: `_REMEMBERED` histories.
        """
        histories = [one.history for one in work]
        kept = histories if self._window is None else list(map(self._window.of, histories))
        keys = [
            _Reading(one.tobytes(), self._fields.reader(user.user_id)) for one, user in zip(kept, work, strict=True)
        ]
        new = {key: history for key, history in zip(keys, kept, strict=True) if key not in self._remembered}
        readers = [key.user for key in new]
        written = dict(zip(new, self._write(list(new.values()), readers, items, users), strict=True)) if new else {}
        found = [self._remembered[key] if key in self._remembered else written[key] for key in keys]
        self._remember(keys, found)
        return found

    def example(self, place: int, users: Client) -> Request:
        """Return a request such as the user summariser is asked, about an item of the catalogue if there is one."""
        item = self._fields.in_history(place, "A summary") if len(self._items) else HistoryItem("A title", "A summary")
        user = self._fields.reader(self._fields.somebody)
        chain = user_chain(self._users_config, users.prompts, users.model().identity, [item], user=user)
        return next(chain())

    def told(self, history: Codes) -> list[HistoryItem]:
        """Return what was said of the items of a history, as far as it is read, when it was summarised."""
        return self._told(history if self._window is None else self._window.of(history))

    def _told(self, history: Codes) -> list[HistoryItem]:
        return [known for code in history if (known := self._known.get(int(code)))]

    def _remember(self, keys: "Iterable[_Reading]", found: Iterable[TextOrError]) -> None:
        for key, one in zip(keys, found, strict=True):
            if isinstance(one, LiveSummary):
                self._remembered[key] = one
                self._remembered.move_to_end(key)
        while len(self._remembered) > _REMEMBERED:
            self._remembered.popitem(last=False)

    def _write(
        self, histories: Sequence[Codes], readers: Sequence[UserFields], items: Client, users: Client
    ) -> list[TextOrError]:
        """Return what `write` does, of distinct histories and whose they are."""
        failed = self._describe(histories, items)
        told = [self._told(history) for history in histories]
        config = self._users_config
        if config.mode == "none":
            both = zip(told, readers, strict=True)
            texts: list[TextOrError] = [LiveSummary(users.prompts.history(items, user)) for items, user in both]
        else:
            before = users.cache.stats.computed
            model = users.model().identity
            both = zip(told, readers, strict=True)
            starts = [user_chain(config, users.prompts, model, items, user=user) for items, user in both]
            families = [(user, *items[: config.block]) for items, user in zip(told, readers, strict=True)]
            chains = _run(users, starts, families)
            texts = [self._text(_Told(items, readers[place]), chains[place], users) for place, items in enumerate(told)]
            self.steps_computed += users.cache.stats.computed - before
        return [self._blamed(history, failed) or text for history, text in zip(histories, texts, strict=True)]

    def _text(self, told: "_Told", steps: Sequence[UserStep], users: Client) -> TextOrError:
        """Return the text after the last step of a chain, as the stage writes it."""
        config, items = self._users_config, told.items
        size = config.block if config.mode == "recurrent" else max(1, len(items))
        failures = [step.answer for step in steps if isinstance(step.answer, Failure)]
        if failures and config.on_failure == "error":
            return _unanswered("the user's history", failures[0])
        if failures and config.on_failure == "title":
            return LiveSummary(users.prompts.history(items, told.user))
        read = [min(size * number, len(items)) for number in range(1, len(steps) + 1)]
        after = zip(read, steps, strict=True)
        path = tuple(LiveStep(count, step.text) for count, step in after if isinstance(step.answer, Completion))
        return LiveSummary(steps[-1].text if steps else "", path)

    def _describe(self, histories: Sequence[Codes], items: Client) -> Mapping[int, StageError]:
        """Have the items of histories described that no stage has described; return those that failed."""
        if self._items_config.mode == "none":
            return {}
        unknown = np.setdiff1d(np.concatenate([np.empty(0, np.int32), *histories]), list(self._known)).tolist()
        rows = {code: row for code in unknown if code not in self._skipped for row in [self._items.row(code)]}
        bare = {code for code, row in rows.items() if not (row["image"] or row["title"] or row["text"])}
        self._known |= {code: self._fields.in_history(code, "") for code in bare}
        asked = [code for code in rows if code not in bare]
        if not asked:
            return {}
        config = self._items_config
        asking = Asking(items.model().identity, config.max_new_tokens)
        folder = self._items.folder
        told = map(self._fields.to_describe, asked)
        starts = [item_chain(config, items.prompts, asking, rows[code], folder, about)
                  for code, about in zip(asked, told, strict=True)]  # fmt: skip
        failed: dict[int, StageError] = {}
        for code, result in zip(asked, _items_of(items, starts), strict=True):
            if result.summary is None and config.on_failure == "error":
                failed[code] = _unanswered(f"item {rows[code]['item_id']}", result.steps[-1][1])
            elif result.summary is not None or config.on_failure == "title":
                self._known[code] = self._fields.in_history(code, result.summary or "")
        return failed

    def _blamed(self, history: Codes, failed: Mapping[int, StageError]) -> StageError | None:
        return next((failed[int(code)] for code in history if int(code) in failed), None) if failed else None

    def _read_known(self, dirs: StageDirs) -> dict[int, HistoryItem]:
        """Return what histories say of the items that are described, by row of ITEMS."""
        described = set(read_described(dirs.data).to_list())
        texts = read_summaries(dirs.items)
        ids, told = self._items.ids.to_list(), self._fields.in_history
        self._skipped = {code for code, item in enumerate(ids) if item in described and item not in texts}
        """Described without success, under `on_failure: skip`: histories leave them out."""
        if self._items_config.mode == "none":  # no item has a summary, those included that no list of the run has
            return {code: told(code, texts.get(item, "")) for code, item in enumerate(ids)}
        return {code: told(code, texts[item]) for code, item in enumerate(ids) if item in texts and item in described}


def _run(client: Client, starts: "Sequence[Start[R]]", families: Sequence[object]) -> dict[int, R]:
    return dict(client.cache.run_chains(client.model(), starts, families=families))


def _items_of(client: Client, starts: "Sequence[Start[ItemResult]]") -> list[ItemResult]:
    found = _run(client, starts, range(len(starts)))
    return [found[place] for place in range(len(starts))]


def _unanswered(whom: str, answer: Answer) -> StageError:
    reason = answer.reason if isinstance(answer, Failure) else "no answer"
    return StageError(f"the summariser gave no answer about {whom} ({reason})", next_step="ask again")
