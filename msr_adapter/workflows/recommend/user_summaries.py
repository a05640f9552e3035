"""The preference text of every user who gets a list: the summarisers' own functions, over all that a user ever took."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.backends import make_backend
from msr_adapter.config.schema import ItemSummariesConfig, UserSummariesConfig
from msr_adapter.generation import Backend, CompletionCache
from msr_adapter.generation.estimate import DryRunBackend, DryRunCache
from msr_adapter.jobs import Job
from msr_adapter.llamafactory.encoder import Encoder
from msr_adapter.pipeline.context import Context
from msr_adapter.progress import Reporter
from msr_adapter.prompts import HistoryItem
from msr_adapter.summarize import read_histories, read_summaries, summarize_items, summarize_users
from msr_adapter.train import UserTexts, truncate_summaries
from msr_adapter.workflows.recommend.resolve_request import ResolvedRequest
from msr_adapter.workflows.recommend.shards import write_histories, write_items_to_describe

_LABEL = "user summaries"
_SUMMED = ("requests", "computed", "failed", "tokens_in", "tokens_out", "without_summary")
_LENIENT = {"on_failure": "title"}
"""A rehearsal ends a chain at its first request without an answer."""

_Role = ItemSummariesConfig | UserSummariesConfig


@dataclass(frozen=True)
class Calls:
    """What a role's model is asked."""

    requests: int
    cached: int
    """At least so many are answered already."""

    @property
    def missing(self) -> int:
        """Calls to come, at most: equal requests are asked once."""
        return self.requests - self.cached


class Preferences:
    """Item summaries that the run lacks, then user summaries, group by group, in the folder ``work``."""

    def __init__(self, context: Context, order: ResolvedRequest, work: Path) -> None:
        self._context, self._order, self._work = context, order, work
        self._items, self._users = context.pipeline.summarize.items, context.pipeline.summarize.users
        self._new = self._undescribed()
        self._steps = self._count_steps()
        self._encoder: Encoder | None = None

    def users_dir(self, group: int) -> Path:
        """Folder with the USER_SUMMARIES of a group; an example is the number of a user in the order."""
        return self._work / f"group-{group:05}" / "users"

    def shown(self, group: int, shard: Path) -> Path:
        """Folder with the USER_SUMMARIES that a shard's prompts show: shortened like those of the training rows."""
        if self._context.pipeline.train.too_long != "truncate":
            return self.users_dir(group)
        out = shard / "truncate"
        if not (out / "users.parquet").exists():
            out.mkdir(exist_ok=True)
            self._encoder = self._encoder or Encoder(self._context.pipeline.train.model)
            dirs = replace(self._context.dirs, data=shard, users=self.users_dir(group))
            texts = UserTexts(self._context.prompts, self._histories(group))
            job = Job(out, self._context.reporter)
            truncate_summaries(self._context.pipeline.train, dirs, texts, job, splits=("test",), encoder=self._encoder)
        return out

    def _histories(self, group: int) -> Callable[[pa.Table], Sequence[Sequence[HistoryItem]]]:
        folder = self._work / f"group-{group:05}" / "histories"

        def read(examples: pa.Table) -> Sequence[Sequence[HistoryItem]]:
            known = schema.read_table(folder / "examples.parquet", schema.EXAMPLES)
            place = pc.index_in(examples["example_id"], value_set=known["example_id"].combine_chunks())
            return read_histories(known.take(place), folder, read_summaries(self._work / "items"))

        return read

    def rehearse(self) -> tuple[Calls, Calls]:
        """Count the calls for items and for users without asking a model; as far as earlier answers reach."""
        silent = Reporter(quiet=True)
        with DryRunCache(self._context.cache_path) as cache:
            items = self._describe(cache, silent, rehearsing=True)
            users = self._summarise(cache, silent, rehearsing=True)
        return Calls(len(self._new), _answered(items)), Calls(self._steps, _answered(users))

    def write(self) -> dict[str, Any]:
        """Write all summaries through the completion cache; return counts. The models are let go of afterwards."""
        with self._context.cache() as cache:
            items = self._describe(cache, self._context.reporter, rehearsing=False)
            with self._context.reporter.track(_LABEL, self._steps) as advance:
                users = self._summarise(cache, self._context.reporter.within(advance), rehearsing=False)
        return {"items": items, "users": users}

    def _describe(self, cache: CompletionCache, reporter: Reporter, *, rehearsing: bool) -> dict[str, Any]:
        data, described = self._context.dir("data"), self._work / "items"
        known = schema.read_table(self._context.dir("items") / "items.parquet", schema.ITEM_SUMMARIES)
        counts: dict[str, Any] = {}
        if self._new:
            folder, out = self._work / "new-items", self._work / "described"
            out.mkdir(exist_ok=True)
            write_items_to_describe(folder, data, self._new)
            config = self._items.model_copy(update=_LENIENT) if rehearsing else self._items
            with self._backend(self._items, rehearsing) as backend:
                counts = summarize_items(config, folder, self._context.prompts, backend, cache, out, reporter)
            found = schema.read_table(out / "items.parquet", schema.ITEM_SUMMARIES)
            known = _merged(known, found, self._new)
        schema.write_table(known, schema.ITEM_SUMMARIES, described / "items.parquet")
        return counts

    def _summarise(self, cache: CompletionCache, reporter: Reporter, *, rehearsing: bool) -> dict[str, Any]:
        totals: dict[str, Any] = {}
        config = self._users.model_copy(update=_LENIENT) if rehearsing else self._users
        with self._backend(self._users, rehearsing) as backend:
            for group, numbers in enumerate(self._order.asked.groups()):
                folder, out = self._work / f"group-{group:05}" / "histories", self.users_dir(group)
                out.mkdir(parents=True, exist_ok=True)
                histories, longest, data = self._order.histories, self._longest(), self._context.dir("data")
                if not write_histories(folder, data, self._order.asked, numbers, histories, longest):
                    continue
                counts = summarize_users(
                    config, folder, self._work / "items", self._context.prompts, backend, cache, out, reporter
                )
                for name in _SUMMED:
                    totals[name] = totals.get(name, 0) + counts.get(name, 0)
        return totals

    def _backend(
        self, config: ItemSummariesConfig | UserSummariesConfig, rehearsing: bool
    ) -> AbstractContextManager[Backend | None]:
        """Return what is asked for ``config``, where `execution` says; nothing where no model is."""
        if config.mode == "none":
            return nullcontext()
        if rehearsing:
            return nullcontext(DryRunBackend(make_backend(config.model).identity))
        return self._context.backend(config.model)

    def _longest(self) -> int | None:
        """Latest items that are read: all where they are read in blocks, else what one prompt may hold."""
        return None if self._users.mode == "recurrent" else self._context.pipeline.split.max_history

    def _count_steps(self) -> int:
        lengths = np.array([len(self._order.histories.of(place)) for place in self._order.asked.places.tolist()])
        if self._users.mode == "recurrent":
            return int((-(-lengths // self._users.block)).sum())
        return int((lengths > 0).sum()) if self._users.mode == "direct" else 0

    def _undescribed(self) -> list[str]:
        """Return the items that somebody has and no history of the splits holds: no stage described them."""
        if self._items.mode == "none":
            return []
        histories = self._order.histories
        needed = np.zeros(len(histories.items), dtype=bool)
        for place in self._order.asked.places.tolist():
            needed[histories.of(place)] = True
        taken = pl.scan_parquet(self._context.dir("data") / "examples.parquet").select(pl.col("history").explode())
        told = taken.unique().collect()["history"].drop_nulls()
        ids = pl.Series(histories.items.to_pylist(), dtype=pl.String)
        return sorted(ids.filter(pl.Series(needed) & ~ids.is_in(told.to_list())).to_list())


def _answered(counts: Mapping[str, Any]) -> int:
    return int(counts.get("requests", 0) - counts.get("failed", 0))


def _merged(known: pa.Table, found: pa.Table, new: list[str]) -> pa.Table:
    one, other = pl.DataFrame(known), pl.DataFrame(found)
    kept = one.filter(~pl.col("item_id").is_in(new))
    return pl.concat([kept, other.filter(pl.col("item_id").is_in(new))]).sort("item_id").to_arrow()
