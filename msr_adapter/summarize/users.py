"""Move 2: a user's history becomes a user summary, block by block like a recurrent network over text."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Mask
from msr_adapter.config.schema import UserSummariesConfig
from msr_adapter.progress import Reporter
from msr_adapter.prompts import NOBODY, HistoryItem, Prompts, UserFields
from msr_adapter.prompts.attributes import UsedFields
from msr_adapter.prompts.stage_tables import ItemTable, UserTable, looks_further, with_events, words_of_events
from msr_adapter.prompts.vectorized_history import ListedEvents, tell_histories
from msr_adapter.schema import (
    EXAMPLES,
    ITEM_SUMMARIES,
    ITEMS,
    USER_STEPS,
    USER_SUMMARIES,
    read_chunks,
    read_table,
    write_chunks,
    write_table,
)
from msr_adapter.stage_arguments import Client, Job, StageDirs
from msr_adapter.summarize.cost_estimate import estimate_cost
from msr_adapter.summarize.summary_answers import Asking, SummaryAnswers
from msr_adapter.summarize.summary_chains import UserChain, UserStep, blocks_of
from msr_adapter.summarize.summary_faults import LastAnswer, sampled

_LABEL = "user summaries"
_LISTED = 32_768
"""Histories that are listed and written at a time."""


def summarize_users(config: UserSummariesConfig, dirs: StageDirs, client: Client, job: Job) -> dict[str, Any]:
    """Write ``out/users.parquet``: the user summary of every example, by example_id; return counts.

    `steps.parquet` beside it holds the text after every block, for the test examples alone: the report shows them.
    """
    prompts, out = client.prompts, job.out
    examples = read_table(dirs.examples / "examples.parquet", EXAMPLES).sort_by("example_id")
    examples = with_events(examples, dirs.examples, prompts.fields("user_summary", "history"))
    counts: dict[str, Any] = {"mode": config.mode, "examples": len(examples)}
    if config.mode == "none":
        path = out / "users.parquet"
        write_chunks(_list_histories(examples, dirs, prompts), USER_SUMMARIES, path)
        empty = sum(chunk["summary"].to_pylist().count("") for chunk in read_chunks(path, USER_SUMMARIES))
        return counts | {"without_summary": empty}
    items = ItemTexts(read_summaries(dirs.items))
    histories, starts = plan_users(config, examples, dirs.data, items, prompts, client.model().identity)
    estimate = estimate_cost(starts, client.cache.lookup, config.model, config.max_new_tokens)
    estimate.tell(job.reporter, _LABEL)
    counts |= {"estimate": estimate.as_dict()}
    answers = SummaryAnswers(client, config.max_new_tokens)
    tested, ids = pc.equal(examples["split"], "test").to_numpy(), examples["example_id"].to_pylist()
    recurrence = _Recurrence(answers, starts, tested)
    texts = recurrence.run(ids, job.reporter)
    answers.apply_policy(config.on_failure, out, job.reporter, _LABEL)
    if config.on_failure == "title":
        texts = [prompts.history(histories[i], starts[i].user) if i in recurrence.failed else text
                 for i, text in enumerate(texts)]  # fmt: skip
    _write_steps(recurrence, ids, out)
    counts |= answers.counts() | {"steps": recurrence.steps}
    counts |= answers.review(job.reporter, _LABEL, *recurrence.last(texts), recurrence.ends)
    answers.warn(job.reporter, _LABEL)
    table = pa.table({"example_id": examples["example_id"], "summary": pa.array(texts, pa.string())})
    write_table(table, USER_SUMMARIES, out / "users.parquet")
    return counts | {"without_summary": texts.count("")}


def _list_histories(examples: pa.Table, dirs: StageDirs, prompts: Prompts) -> Iterator[pa.Table]:
    """Yield USER_SUMMARIES of listed histories, `_LISTED` examples at a time: their number sets the memory."""
    items = read_table(dirs.data / "items.parquet", ITEMS, ["item_id", "title"])
    known = read_table(dirs.items / "items.parquet", ITEM_SUMMARIES).join(items, "item_id", join_type="inner")
    titles, summaries = (pl.Series(known[name], dtype=pl.String) for name in ("title", "summary"))
    fields = prompts.fields("history")
    described = read_summaries(dirs.items) if looks_further(fields, dirs.data) else None
    for start in range(0, len(examples), _LISTED):
        part = examples.slice(start, _LISTED)
        histories = part["history"].combine_chunks()
        place = pc.index_in(histories.flatten(), value_set=known["item_id"].combine_chunks())
        # An item that the item summariser skipped has no row.
        has_row, example = place.is_valid().to_numpy(zero_copy_only=False), pc.list_parent_indices(histories).to_numpy()
        lengths = np.bincount(example[has_row], minlength=len(part))
        if described is None:
            events = _listed_events(part, has_row, dirs.data)
            texts = tell_histories(prompts, titles, summaries, place.drop_null().to_numpy(), lengths, events)
        else:
            told = read_histories(part, dirs.data, described, fields)
            users = map(UserTable(dirs.data, fields).of, part["user_id"].to_pylist())
            texts = pl.Series([prompts.history(*one) if one[0] else "" for one in zip(told, users, strict=True)],
                              dtype=pl.String)  # fmt: skip
        yield pa.table({"example_id": part["example_id"], "summary": texts.to_arrow().cast(pa.string())})


def _listed_events(examples: pa.Table, has_row: Mask, data_dir: Path) -> ListedEvents | None:
    """Return what was done with those items of the histories that have a row; None where no template says it."""
    words = words_of_events(data_dir) if "events" in examples.column_names else None
    if words is None:
        return None
    return ListedEvents(words, examples["events"].combine_chunks().flatten().to_numpy()[has_row])


@dataclass(frozen=True)
class ItemTexts:
    """What histories say of items. An item without a summary is left out of them, as the item summariser skipped it."""

    summaries: Mapping[str, str]
    """`TO_COME` for one that is not written yet."""
    tokens_to_come: int = 0
    """Tokens that a summary may have which is not written yet."""


def plan_users(
    config: UserSummariesConfig, examples: pa.Table, data_dir: Path, items: ItemTexts, prompts: Prompts, model: str
) -> tuple[list[list[HistoryItem]], list[UserChain]]:
    """Return each example's history and the chain that reads it; ``model`` identifies what will be asked."""
    used = prompts.fields("user_summary", "history")
    histories, users = read_histories(examples, data_dir, items.summaries, used), UserTable(data_dir, used)
    told = map(users.of, examples["user_id"].to_pylist())
    return histories, [
        user_chain(config, prompts, model, history, items.tokens_to_come, user)
        for history, user in zip(histories, told, strict=True)
    ]


def user_chain(
    config: UserSummariesConfig, prompts: Prompts, model: str, history: Sequence[HistoryItem], tokens_to_come: int = 0,
    user: UserFields = NOBODY,
) -> UserChain:  # fmt: skip
    """Return the chain that reads ``history``, in blocks or at once; see `ItemTexts` for ``tokens_to_come``.

    ``user`` is what templates call so.
    """
    size = config.block if config.mode == "recurrent" else max(1, len(history))
    asking = Asking(model, config.max_new_tokens)
    return UserChain(prompts, asking, blocks_of(history, size), config.on_failure == "skip", tokens_to_come, user)


def read_histories(
    examples: pa.Table, data_dir: Path, described: Mapping[str, str], used: UsedFields
) -> list[list[HistoryItem]]:
    """Return each example's history, oldest first, as titles with their summaries; items without one are left out.

    ``used`` says what else of an item the templates look at; what was done with it is told where ``examples`` have the
    column of `with_events`.
    """
    items = ItemTable(data_dir, used)
    known = {item: items.of(item, summary) for item, summary in described.items()}
    words = words_of_events(data_dir) if "events" in examples.column_names else None
    histories = examples["history"].to_pylist()
    if words is None:
        return [[known[item] for item in history if item in known] for history in histories]

    @cache
    def told(item: str, event: int) -> HistoryItem:
        return replace(known[item], event=words[event])

    events = examples["events"].to_pylist()
    return [
        [told(item, event) for item, event in zip(history, done, strict=True) if item in known]
        for history, done in zip(histories, events, strict=True)
    ]


def read_summaries(items_dir: Path) -> dict[str, str]:
    """Return the summary of every item that the item summariser did not skip."""
    table = read_table(items_dir / "items.parquet", ITEM_SUMMARIES)
    return dict(zip(table["item_id"].to_pylist(), table["summary"].to_pylist(), strict=True))


def _write_steps(recurrence: "_Recurrence", ids: Sequence[int], out: Path) -> None:
    """Write ``steps.parquet`` (USER_STEPS): the text after each step of the examples that `_Recurrence` kept."""
    rows = [
        (ids[index], step, read, text)
        for index, path in recurrence.paths.items()
        for step, (read, text) in enumerate(path, start=1)
    ]
    columns = dict(zip(USER_STEPS.names, zip(*rows, strict=True), strict=True)) if rows else {}
    arrays = [pa.array(columns.get(field.name, ()), field.type) for field in USER_STEPS]
    write_table(pa.table(arrays, schema=USER_STEPS), USER_STEPS, out / "steps.parquet")


class _Recurrence:
    """Summarises all examples at once: each is a chain of steps, and all chains run together."""

    def __init__(self, answers: SummaryAnswers, starts: Sequence[UserChain], kept: Iterable[bool]) -> None:
        self.answers, self.starts, self.blocks = answers, starts, [start.blocks for start in starts]
        self.paths: dict[int, list[tuple[int, str]]] = {index: [] for index, keep in enumerate(kept) if keep}
        """Of the examples to be ``kept``: items read and the text, after each step."""
        self.steps = max(map(len, self.blocks), default=0)
        self.failed: set[int] = set()
        self._texts = [""] * len(starts)
        self._keys = [""] * len(starts)
        self._looked_at = sampled(len(starts))
        self.ends: list[LastAnswer] = []
        """Some chains' last answers, for `SummaryAnswers.review`."""

    def run(self, ids: Sequence[int], reporter: Reporter) -> list[str]:
        """Run all steps and return each example's text. Examples with equal blocks so far share their requests.

        A failed step leaves the text as it was and puts its example into ``failed``. ``ids`` name the examples in the
        list of failures.
        """
        families = [(*start.blocks[0], start.user) if start.blocks else () for start in self.starts]
        with reporter.track(_LABEL, sum(map(len, self.blocks)), self.answers.meter) as advance:
            for index, steps in self.answers.run_chains(self.starts, families, advance):
                self._keep(index, f"example {ids[index]}", steps)
        self.answers.sort_failures([f"example {number}" for number in ids])
        return self._texts

    def last(self, texts: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the key of each example's last request and its text; examples without history have none."""
        told = [(key, text) for key, text in zip(self._keys, texts, strict=True) if key]
        return [key for key, _ in told], [text for _, text in told]

    def _keep(self, index: int, owner: str, steps: Sequence[UserStep]) -> None:
        """Count the answers of one example's chain; keep its text, its last key and, if wanted, each step's text."""
        items = 0
        for block, step in zip(self.blocks[index], steps, strict=False):
            items += len(block)
            self._texts[index] = step.text
            if self.answers.accept(owner, step.request, step.answer) is None:
                self.failed.add(index)
                continue
            self._keys[index] = step.request.key
            if index in self.paths:
                self.paths[index].append((items, step.text))
        if index in self._looked_at and index not in self.failed and steps:
            known = steps[-2].text if len(steps) > 1 else ""
            self.ends.append(self.answers.last_answer(steps[-1].request, steps[-1].text, known))
