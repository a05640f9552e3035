"""`msr summarize --dry-run` and `--preview`: what the summarisers would ask and what it costs, before they run.

Nothing is marked as done. What a preview does ask goes through the cache, so that the stage will not ask it again.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict

import pyarrow as pa

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import ExecutionConfig, ModelConfig
from msr_adapter.distributed import open_backend
from msr_adapter.generation import Answer, Backend, Completion, CompletionCache, Image, Request
from msr_adapter.generation.request_chains import Chains
from msr_adapter.pipeline.peak_memory import release
from msr_adapter.pipeline.planning import plan
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import run
from msr_adapter.pipeline.stage_context import cache_path, prompts_of, stage_dirs
from msr_adapter.progress import Reporter
from msr_adapter.schema import EXAMPLES, ITEMS, read_table
from msr_adapter.summarize import ItemTexts, plan_items, plan_users, read_summaries
from msr_adapter.summarize.cost_estimate import Counter, PlannedChain, estimate_cost, spaced
from msr_adapter.summarize.summary_chains import TO_COME, FusionChain, ItemChain, ItemResult, UserChain

LABELS = {"items": "item summaries", "users": "user summaries"}


class PreviewedRequest(TypedDict, total=False):
    """One request to a model, with its answer or failure if it was asked."""

    prompt: str
    text_tokens: int
    image_tokens: int | None
    """None: cannot be counted for this model."""
    tokens_to_come: int
    """At most, of the answers that the prompt is still waiting for."""
    image: str | None
    """The first of ``images``."""
    images: list[str]
    """Files, in the order of the prompt's placeholders."""
    counted: str
    """How tokens were counted."""
    answer: str
    answer_tokens: int
    cut: bool
    """The answer reached the limit of its tokens."""
    failed: str
    """Why there is no answer."""


class PreviewedSummary(TypedDict):
    """An item or a user, and the requests that its summary takes."""

    id: str
    requests: list[PreviewedRequest]


def estimate_summaries(loaded: LoadedPipeline, stages: Sequence[str], reporter: Reporter) -> dict[str, dict[str, Any]]:
    """Return stage -> its estimated cost, and one ``line`` that says it.

    The data stage is brought up to date; no model is loaded. A stage in mode `none` asks nothing. Before the item
    summaries are written, users are counted with the longest ones possible.
    """
    with _summarizers(loaded, reporter) as summarizers:
        return {stage: summarizers.estimate(stage) for stage in stages}


def preview_summaries(
    loaded: LoadedPipeline, stages: Sequence[str], number: int, ask: bool, reporter: Reporter
) -> dict[str, list[PreviewedSummary]]:
    """Return stage -> ``number`` of its items or users, evenly spaced, each with the requests that it takes.

    With ``ask``, the model is asked, and requests have their answers.
    """
    with _summarizers(loaded, reporter) as summarizers:
        preview = {"items": summarizers.preview_items, "users": summarizers.preview_users}
        return {stage: preview[stage](number, ask) for stage in stages}


@contextmanager
def _summarizers(loaded: LoadedPipeline, reporter: Reporter) -> "Iterator[_Summarizers]":
    run(loaded, ("data",), reporter=reporter)
    loaded = resolve_models(loaded, download=True)  # as the stages do: a request's key includes its chat template
    folder = RunFolder(loaded.run_dir)
    with folder.locked(), CompletionCache(cache_path(loaded.pipeline, folder)) as cache, ExitStack() as held:
        yield _Summarizers(loaded, folder, cache, _Backends(folder, reporter, held))


@dataclass(frozen=True)
class _Backends:
    """Opens backends, each of which is held until the preview ends."""

    folder: RunFolder
    reporter: Reporter
    held: ExitStack
    stages: dict[str, ExitStack] = field(default_factory=dict)

    def open(self, stage: str, model: ModelConfig) -> Backend:
        """Return the backend of ``model`` for a stage: in this process, or where it is hosted."""
        self.stages[stage] = self.held.enter_context(ExitStack())
        logs, note = self.folder.root / "logs", self.reporter.note
        return self.stages[stage].enter_context(open_backend(ExecutionConfig(), model, logs, note))

    def release(self, stage: str) -> None:
        """End the backend of a stage: two models need not be in memory at once."""
        self.stages.pop(stage).close()
        release()


class _Summarizers:
    """The two summarisers of one pipeline, with their chains planned and their backends made when first needed."""

    def __init__(self, loaded: LoadedPipeline, folder: RunFolder, cache: CompletionCache, backends: _Backends) -> None:
        self.loaded, self.cache, self._backends = loaded, cache, backends
        self.dirs = stage_dirs(loaded.pipeline, folder)
        self.items_config, self.users_config = loaded.pipeline.summarize.items, loaded.pipeline.summarize.users
        self.prompts = prompts_of(loaded.pipeline)
        self._items_backend: Backend | None = None
        self._users_backend: Backend | None = None

    def estimate(self, stage: str) -> dict[str, Any]:
        config = self.items_config if stage == "items" else self.users_config
        if config.mode == "none":
            return {"calls": 0, "line": f"{LABELS[stage]}: mode none, no model is asked"}
        chains: Sequence[PlannedChain] = self._items[1] if stage == "items" else self._user_chains(self._examples)
        found = estimate_cost(chains, self.cache.lookup, config.model, config.max_new_tokens)
        return {**found.as_dict(), "line": found.line(LABELS[stage])}

    def preview_items(self, number: int, ask: bool) -> list[PreviewedSummary]:
        """Return ``number`` items, evenly spaced, with their requests; with ``ask``, answered."""
        if self.items_config.mode == "none":
            return []
        items, chains = self._items
        places, counter = spaced(len(items), number), Counter(self.items_config.model)
        ids = {place: str(items[place]["item_id"]) for place in places}
        if not ask:
            return [{"id": name, "requests": _planned(chains[place], counter)} for place, name in ids.items()]
        self._ask_about(list(ids.values()))
        return [{"id": name, "requests": _asked(self._answered[name].steps, counter)} for name in ids.values()]

    def preview_users(self, number: int, ask: bool) -> list[PreviewedSummary]:
        """Return ``number`` users with a history, evenly spaced, with their requests; with ``ask``, answered.

        Their items are summarised first where that is still to be done.
        """
        if self.users_config.mode == "none":
            return []
        histories = self._examples["history"].to_pylist()
        kept = [place for place, history in enumerate(histories) if history]
        examples = self._examples.take([kept[at] for at in spaced(len(kept), number)])
        users, counter = examples["user_id"].to_pylist(), Counter(self.users_config.model)
        if not ask:
            chains = self._user_chains(examples)
            return [{"id": user, "requests": _planned(one, counter)} for user, one in zip(users, chains, strict=True)]
        if self.items_config.mode != "none" and not self._items_done:
            self._ask_about(sorted({item for history in examples["history"].to_pylist() for item in history}))
        chains = self._user_chains(examples)
        backend = self._for_users()
        if backend is not self._items_backend and self._items_backend is not None:
            self._items_backend = None  # what is known of items stays
            self._backends.release("items")
        answered = dict(self.cache.run_chains(backend, chains))
        return [
            {"id": user, "requests": _asked([(step.request, step.answer) for step in answered[place]], counter)}
            for place, user in enumerate(users)
        ]

    def _for_items(self) -> Backend:
        """Return the item summariser's backend, made when it is first needed."""
        if self._items_backend is None:
            self._items_backend = self._backends.open("items", self.items_config.model)
        return self._items_backend

    def _for_users(self) -> Backend:
        """Return the user summariser's backend: the item summariser's where one model does both, loaded once."""
        if self.items_config.mode != "none" and self.items_config.model == self.users_config.model:
            return self._for_items()
        if self._users_backend is None:
            self._users_backend = self._backends.open("users", self.users_config.model)
        return self._users_backend

    @cached_property
    def _examples(self) -> pa.Table:
        return read_table(self.dirs.data / "examples.parquet", EXAMPLES).sort_by("example_id")

    @cached_property
    def _items_done(self) -> bool:
        return plan(self.loaded)["items"] == "up to date"

    @cached_property
    def _items(self) -> tuple[list[dict[str, Any]], list[ItemChain | FusionChain]]:
        return plan_items(self.items_config, self.dirs, self.prompts, self._for_items().identity)

    @cached_property
    def _answered(self) -> dict[str, ItemResult]:
        """Item id -> what its chain was answered: at first what the cache knows, later what was asked too."""
        items, starts = self._items
        chains = Chains(starts)
        chains.feed(self.cache.lookup)
        return {items[place]["item_id"]: result for place, result in chains.results.items()}

    def _ask_about(self, ids: Sequence[str]) -> None:
        """Ask about the items ``ids`` that are not answered yet."""
        items, chains = self._items
        places = {item["item_id"]: place for place, item in enumerate(items)}
        new = [item for item in ids if item in places and item not in self._answered]
        for at, result in self.cache.run_chains(self._for_items(), [chains[places[item]] for item in new]):
            self._answered[new[at]] = result

    def _item_summaries(self) -> dict[str, str]:
        """Return the summary of every item; `TO_COME` for those that are not written yet."""
        if self._items_done:
            return read_summaries(self.dirs.items)
        everything = read_table(self.dirs.data / "items.parquet", ITEMS, ["item_id"])["item_id"].to_pylist()
        known: dict[str, str] = dict.fromkeys(everything, "")
        if self.items_config.mode != "none":
            known |= {item["item_id"]: TO_COME for item in self._items[0]}
            known |= {item: answered.summary or "" for item, answered in self._answered.items()}
        return known

    def _user_chains(self, examples: pa.Table) -> list[UserChain]:
        model, tokens = self._for_users().identity, self.items_config.max_new_tokens
        summaries = self._item_summaries()
        return plan_users(
            self.users_config, examples, self.dirs.data, ItemTexts(summaries, tokens), self.prompts, model
        )[1]


def _planned(chain: PlannedChain, counter: Counter) -> list[PreviewedRequest]:
    return [
        {"prompt": one.prompt, "text_tokens": counter.text(one.prompt), "image_tokens": counter.images(one.images),
         "tokens_to_come": one.to_come, "image": next(iter(_paths(one.images)), None), "images": _paths(one.images),
         "counted": counter.how}
        for one in chain.expected()
    ]  # fmt: skip


def _paths(images: Sequence[Image]) -> list[str]:
    return [str(image.path) for image in images]


def _asked(steps: Sequence[tuple[Request, Answer]], counter: Counter) -> list[PreviewedRequest]:
    """Return the requests of a chain with their answers or failures."""
    shown = []
    for request, answer in steps:
        row: PreviewedRequest = {
            "prompt": request.prompt, "text_tokens": counter.text(request.prompt), "tokens_to_come": 0,
            "image_tokens": counter.images(request.images), "image": next(iter(_paths(request.images)), None),
            "images": _paths(request.images), "counted": counter.how,
        }  # fmt: skip
        if isinstance(answer, Completion):
            row["answer"], row["answer_tokens"] = answer.text, answer.tokens_out
            row["cut"] = answer.finish_reason == "length"
        else:
            row["failed"] = answer.reason
        shown.append(row)
    return shown
