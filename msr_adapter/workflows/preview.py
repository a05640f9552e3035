"""What the summarisers would ask: what it costs, and some of the prompts, before a model is loaded."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import pyarrow as pa

from msr_adapter.backends import make_backend
from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.generation import Answer, Backend, Completion, CompletionCache, Request
from msr_adapter.generation.chains import Chains
from msr_adapter.pipeline.context import cache_path, prompts_of
from msr_adapter.pipeline.resolve import resolve_models
from msr_adapter.pipeline.resources import release
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import plan, run
from msr_adapter.progress import Reporter
from msr_adapter.schema import EXAMPLES, ITEMS, read_table
from msr_adapter.summarize import plan_items, plan_users, read_summaries
from msr_adapter.summarize.chains import TO_COME, Fusing, Once, Reading
from msr_adapter.summarize.cost_estimate import Counter, Planned, look_ahead, spaced

LABELS = {"items": "item summaries", "users": "user summaries"}


def estimate_summaries(loaded: LoadedPipeline, stages: Sequence[str], reporter: Reporter) -> dict[str, dict[str, Any]]:
    """Return stage -> its outlook and one ``line`` that says it; the data stage is brought up to date, no model loaded.

    A stage in mode `none` asks nothing. Before the item summaries are written, users are counted with the most that
    they may have.
    """
    with _looking(loaded, reporter) as view:
        return {stage: view.outlook(stage) for stage in stages}


def preview_summaries(
    loaded: LoadedPipeline, stages: Sequence[str], number: int, ask: bool, reporter: Reporter
) -> dict[str, list[dict[str, Any]]]:
    """Return stage -> ``number`` of its items or users, evenly spaced, each with the requests that it takes.

    A request has its prompt, text and image tokens, and the tokens of answers to come; with ``ask`` also the answer:
    the model is asked through the cache, so that the stage will not ask again. No stage is marked as done.
    """
    with _looking(loaded, reporter) as view:
        shown = {"items": view.items_shown, "users": view.users_shown}
        return {stage: shown[stage](number, ask) for stage in stages}


@contextmanager
def _looking(loaded: LoadedPipeline, reporter: Reporter) -> "Iterator[_View]":
    run(loaded, ("data",), reporter=reporter)
    loaded = resolve_models(loaded, download=True)  # as the stages do: a request is known by its template too
    folder = RunFolder(loaded.run_dir)
    with folder.locked(), CompletionCache(cache_path(loaded.pipeline, folder)) as cache:
        yield _View(loaded, folder, cache)


class _View:
    """One pipeline's summarisers, looked at from before they run."""

    def __init__(self, loaded: LoadedPipeline, folder: RunFolder, cache: CompletionCache) -> None:
        self.loaded, self.cache = loaded, cache
        self.data, self.items_dir = folder.stage("data"), folder.stage("items")
        self.items_config, self.users_config = loaded.pipeline.summarize.items, loaded.pipeline.summarize.users
        self.prompts = prompts_of(loaded.pipeline)

    def outlook(self, stage: str) -> dict[str, Any]:
        config = self.items_config if stage == "items" else self.users_config
        if config.mode == "none":
            return {"calls": 0, "line": f"{LABELS[stage]}: mode none, no model is asked"}
        starts: Sequence[Planned] = self._items[1] if stage == "items" else self._readings(self._examples)
        found = look_ahead(starts, self.cache.lookup, config.model, config.max_new_tokens)
        return {**found.as_dict(), "line": found.line(LABELS[stage])}

    def items_shown(self, number: int, ask: bool) -> list[dict[str, Any]]:
        if self.items_config.mode == "none":
            return []
        items, starts = self._items
        places = spaced(len(items), number)
        counter = Counter(self.items_config.model)
        if not ask:
            return [{"id": items[at]["item_id"], "requests": _ahead(starts[at], counter)} for at in places]
        self._describe([items[at]["item_id"] for at in places])
        return [
            {"id": items[at]["item_id"], "requests": _asked(self._told[items[at]["item_id"]].steps, counter)}
            for at in places
        ]

    def users_shown(self, number: int, ask: bool) -> list[dict[str, Any]]:
        if self.users_config.mode == "none":
            return []
        kept = [place for place, history in enumerate(self._examples["history"].to_pylist()) if history]
        examples = self._examples.take([kept[at] for at in spaced(len(kept), number)])
        users, counter = examples["user_id"].to_pylist(), Counter(self.users_config.model)
        if not ask:
            starts = self._readings(examples)
            return [{"id": user, "requests": _ahead(one, counter)} for user, one in zip(users, starts, strict=True)]
        if self.items_config.mode != "none" and not self._items_done:
            self._describe(sorted({item for history in examples["history"].to_pylist() for item in history}))
        starts = self._readings(examples)
        self._make_room()
        told = dict(self.cache.run_chains(self._users_backend, starts))
        return [
            {"id": user, "requests": _asked([(step.request, step.answer) for step in told[place]], counter)}
            for place, user in enumerate(users)
        ]

    @cached_property
    def _examples(self) -> pa.Table:
        return read_table(self.data / "examples.parquet", EXAMPLES).sort_by("example_id")

    @cached_property
    def _items_backend(self) -> Backend:
        return make_backend(self.items_config.model)

    @cached_property
    def _users_backend(self) -> Backend:
        """The items' own where one model does both: it is loaded once."""
        both = self.items_config.mode != "none" and self.items_config.model == self.users_config.model
        return self._items_backend if both else make_backend(self.users_config.model)

    @cached_property
    def _items_done(self) -> bool:
        return plan(self.loaded)["items"] == "up to date"

    @cached_property
    def _items(self) -> tuple[list[dict[str, Any]], list[Once | Fusing]]:
        return plan_items(self.items_config, self.data, self.prompts, self._items_backend.identity)

    @cached_property
    def _told(self) -> dict[str, Any]:
        """What is known of items: by the cache at first."""
        items, starts = self._items
        chains = Chains(starts)
        chains.feed(self.cache.lookup)
        return {items[place]["item_id"]: result for place, result in chains.results.items()}

    def _describe(self, ids: Sequence[str]) -> None:
        """Ask about the items ``ids`` that are not known yet."""
        items, starts = self._items
        places = {item["item_id"]: place for place, item in enumerate(items)}
        new = [item for item in ids if item in places and item not in self._told]
        for at, result in self.cache.run_chains(self._items_backend, [starts[places[item]] for item in new]):
            self._told[new[at]] = result

    def _make_room(self) -> None:
        """Let the items' model go before the users' loads; what is known of items stays."""
        if self.__dict__.get("_items_backend", self._users_backend) is not self._users_backend:
            del self._items_backend
            release()

    def _described(self) -> dict[str, str]:
        """Return the summary of every item; `TO_COME` for those that nobody wrote yet."""
        if self._items_done:
            return read_summaries(self.items_dir)
        everything = read_table(self.data / "items.parquet", ITEMS, ["item_id"])["item_id"].to_pylist()
        known: dict[str, str] = dict.fromkeys(everything, "")
        if self.items_config.mode != "none":
            known |= {item["item_id"]: TO_COME for item in self._items[0]}
            known |= {item: told.summary or "" for item, told in self._told.items()}
        return known

    def _readings(self, examples: pa.Table) -> list[Reading]:
        model, tokens = self._users_backend.identity, self.items_config.max_new_tokens
        return plan_users(self.users_config, examples, self.data, self._described(), self.prompts, model, tokens)[1]


def _ahead(start: Planned, counter: Counter) -> list[dict[str, Any]]:
    return [
        {"prompt": one.prompt, "text_tokens": counter.text(one.prompt), "image_tokens": counter.picture(one.image),
         "tokens_to_come": one.to_come, "image": one.image and str(one.image.path), "counted": counter.how}
        for one in start.ahead()
    ]  # fmt: skip


def _asked(steps: Sequence[tuple[Request, Answer]], counter: Counter) -> list[dict[str, Any]]:
    shown = []
    for request, answer in steps:
        image = request.images[0] if request.images else None
        row = {"prompt": request.prompt, "text_tokens": counter.text(request.prompt), "tokens_to_come": 0,
               "image_tokens": counter.picture(image), "image": image and str(image.path),
               "counted": counter.how}  # fmt: skip
        if isinstance(answer, Completion):
            row |= {"answer": answer.text, "answer_tokens": answer.tokens_out, "cut": answer.finish_reason == "length"}
        else:
            row |= {"failed": answer.reason}
        shown.append(row)
    return shown
