"""The user summary of everybody who gets a list: the summarisers' own functions, over whole histories."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.backends import make_backend
from msr_adapter.config.schema import ItemSummariesConfig, PipelineConfig, UserSummariesConfig
from msr_adapter.generation.dry_run import DryRunBackend, DryRunCache
from msr_adapter.history_window import HistoryWindow
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.pipeline.stage_context import Context, is_truncating
from msr_adapter.pipeline.stage_functions import summarizer
from msr_adapter.progress import Reporter
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.prompts.stage_tables import with_events
from msr_adapter.stage_arguments import Client, Job
from msr_adapter.summarize import read_histories, read_summaries, summarize_items, summarize_users
from msr_adapter.train import UserTexts, truncate_summaries
from msr_adapter.workflows.recommend.resolve_request import ResolvedRequest
from msr_adapter.workflows.recommend.user_shards import ShownHistory, write_histories, write_items_to_describe

_LABEL = "user summaries"
_SUMMED = ("requests", "computed", "failed", "tokens_in", "tokens_out", "without_summary")
_LENIENT = {"on_failure": "title"}
"""While calls are counted, every request without an answer counts as a failure, which must end nothing."""
_QUIET = Reporter(quiet=True)

AnyConfig = ItemSummariesConfig | UserSummariesConfig


@dataclass(frozen=True)
class Calls:
    """How often a model will be asked."""

    requests: int
    """At most: equal requests are asked once."""
    cached: int
    """At least so many are answered already."""


class UserSummaries:
    """Writes the item summaries that the run lacks, then user summaries, group by group, into the folder ``work``."""

    def __init__(self, context: Context, request: ResolvedRequest, work: Path) -> None:
        self._context, self._asked, self._work = context, request.asked, work
        self._items, self._users = context.pipeline.summarize.items, context.pipeline.summarize.users
        self._dirs = replace(context.dirs, items=work / "items")
        """The run's, but that its item summaries are joined by new ones."""
        self._new = self._undescribed()
        self._steps = self._count_steps()
        self._encoder: Encoder | None = None

    @property
    def items_dir(self) -> Path:
        """Folder of the item summaries: the run's and the new ones; the run's until these are written."""
        return self._dirs.items if (self._dirs.items / "items.parquet").exists() else self._context.dirs.items

    def user_ids(self, numbers: Sequence[int]) -> list[str]:
        """Return the ids of the users of these numbers."""
        return [self._asked.ids[number] for number in numbers]

    def estimate(self) -> tuple[Calls, Calls]:
        """Count the calls for items and for users without asking a model; as far as earlier answers reach."""
        items = self._describe(self._counting, _QUIET, _LENIENT)
        users = self._summarize(self._counting, _QUIET, _LENIENT)
        return Calls(len(self._new), _answered(items)), Calls(self._steps, _answered(users))

    def write(self) -> dict[str, Any]:
        """Write all summaries through the completion cache; return counts. The models are let go of afterwards."""
        reporter = self._context.reporter
        asking = partial(summarizer, self._context)
        items = self._describe(asking, reporter, {})
        with reporter.track(_LABEL, self._steps) as advance:
            users = self._summarize(asking, reporter.within(advance), {})
        return {"items": items, "users": users}

    def shown(self, group: int, shard: Path) -> Path:
        """Return the folder of the USER_SUMMARIES that a shard's prompts show: truncated as the training rows' are."""
        if not is_truncating(self._context.pipeline):
            return self._users_dir(group)
        out = shard / "truncate"
        if not (out / "users.parquet").exists():
            out.mkdir(exist_ok=True)
            train = self._context.pipeline.train
            self._encoder = self._encoder or Encoder(train.model)
            dirs = replace(self._dirs, data=shard, examples=shard, users=self._users_dir(group), items=self.items_dir)
            texts = UserTexts(self._context.prompts, self._read_histories(group))
            job = Job(out, self._context.reporter)
            truncate_summaries(train, dirs, texts, job, splits=("test",), encoder=self._encoder)
        return out

    def of_group(self, group: int) -> dict[int, str]:
        """Return the summary of each user of a group who has one, whole, by number."""
        path = self._users_dir(group) / "users.parquet"
        if not path.exists():
            return {}
        table = schema.read_table(path, schema.USER_SUMMARIES)
        return dict(zip(table["example_id"].to_pylist(), table["summary"].to_pylist(), strict=True))

    def of_items(self) -> dict[str, str]:
        """Return the summary of each item that has one, by id."""
        return read_summaries(self._dirs.items)

    def _read_histories(self, group: int) -> Callable[[pa.Table], Sequence[Sequence[HistoryItem]]]:
        def read(examples: pa.Table) -> Sequence[Sequence[HistoryItem]]:
            known = schema.read_table(self._histories_dir(group) / "examples.parquet", schema.EXAMPLES)
            place = pc.index_in(examples["example_id"], value_set=known["example_id"].combine_chunks())
            used = self._context.prompts.fields("history")
            rows = with_events(known.take(place), self._histories_dir(group), used)
            return read_histories(rows, self._dirs.data, read_summaries(self._dirs.items), used)

        return read

    def _users_dir(self, group: int) -> Path:
        """Folder with the USER_SUMMARIES of a group; an example is the number of a user in the request."""
        return self._work / f"group-{group:05}" / "users"

    def _histories_dir(self, group: int) -> Path:
        return self._work / f"group-{group:05}" / "histories"

    @contextmanager
    def _counting(self, config: AnyConfig) -> Iterator[Client]:
        """Yield what answers from the cache alone, and keeps nothing."""
        asked = None if config.mode == "none" else DryRunBackend(make_backend(config.model).identity)
        with DryRunCache(self._context.cache_path) as cache:
            yield Client(self._context.prompts, asked, cache)

    def _describe(self, client_of: "_ClientOf", reporter: Reporter, changes: Mapping[str, str]) -> dict[str, Any]:
        """Write the item summaries of the run and the new ones into one table; return the counts of the latter."""
        known = schema.read_table(self._context.dirs.items / "items.parquet", schema.ITEM_SUMMARIES)
        counts: dict[str, Any] = {}
        if self._new:
            folder, out = self._work / "new-items", self._work / "described"
            out.mkdir(exist_ok=True)
            write_items_to_describe(folder, self._new)
            config = self._items.model_copy(update=changes)
            with client_of(config) as client:
                dirs = replace(self._context.dirs, examples=folder)
                counts = summarize_items(config, dirs, client, Job(out, reporter))
            found = schema.read_table(out / "items.parquet", schema.ITEM_SUMMARIES)
            kept = pl.DataFrame(known).filter(~pl.col("item_id").is_in(self._new))
            added = pl.DataFrame(found).filter(pl.col("item_id").is_in(self._new))
            known = pl.concat([kept, added]).sort("item_id").to_arrow()
        self._dirs.items.mkdir(exist_ok=True)
        schema.write_table(known, schema.ITEM_SUMMARIES, self._dirs.items / "items.parquet")
        return counts

    def _summarize(self, client_of: "_ClientOf", reporter: Reporter, changes: Mapping[str, str]) -> dict[str, Any]:
        """Write the user summaries of every group; return counts, summed over the groups."""
        totals: dict[str, Any] = {}
        config = self._users.model_copy(update=changes)
        window = window_of(self._context.pipeline)
        with client_of(config) as client:
            for group, numbers in enumerate(self._asked.groups()):
                folder, out = self._histories_dir(group), self._users_dir(group)
                out.mkdir(parents=True, exist_ok=True)
                if not write_histories(folder, self._asked, numbers, window):
                    continue
                counts = summarize_users(config, replace(self._dirs, examples=folder), client, Job(out, reporter))
                for name in _SUMMED:
                    totals[name] = totals.get(name, 0) + counts.get(name, 0)
        return totals

    def _count_steps(self) -> int:
        """Return how many requests all user summaries take, before any is found in the cache."""
        lengths, window = self._asked.lengths(), window_of(self._context.pipeline)
        lengths = lengths if window is None else lengths - window.left_out(lengths)
        if self._users.mode == "recurrent":
            return int((-(-lengths // self._users.block)).sum())
        return int((lengths > 0).sum()) if self._users.mode == "direct" else 0

    def _undescribed(self) -> list[str]:
        """Return the items that somebody has and no history of the splits holds: no stage described them.

        Where none is ever described, those that have no row among the empty summaries: no list of the run has them.
        """
        items = self._asked.histories.items
        needed = self._asked.items()
        data = self._context.dirs.data
        none = self._items.mode == "none"
        described = read_listed_ids(data) if none else read_described(data)
        ids = pl.Series(items.to_pylist(), dtype=pl.String)
        return sorted(ids.filter(pl.Series(needed) & ~ids.is_in(described.to_list())).to_list())


def shown_history(pipeline: PipelineConfig, prompts: Prompts) -> ShownHistory | None:
    """Return the latest items of a history whose images the recommender's prompt shows; None = it shows none."""
    if not prompts.shows_recent:
        return None
    return ShownHistory(HistoryWindow(pipeline.split.max_history, pipeline.history_step), prompts.recent)


def window_of(pipeline: PipelineConfig) -> HistoryWindow | None:
    """Return what of a history is read; None = all of it.

    Read in blocks, a history may have any length; else one prompt holds what training's prompts held. A window that
    moves by blocks is training's in any case: its blocks are in the cache.
    """
    if pipeline.summarize.users.mode == "recurrent" and pipeline.split.history_window == "items":
        return None
    return HistoryWindow(pipeline.split.max_history, pipeline.history_step)


def read_listed_ids(data_dir: Path) -> pl.Series:
    """Return the ids of the items that every stage of the run knows."""
    return pl.Series(schema.read_listed(data_dir / "items.parquet", ["item_id"])["item_id"], dtype=pl.String)


def read_described(data_dir: Path) -> pl.Series:
    """Return the ids of the items that the item summariser has described: those in histories of the splits."""
    read = pl.scan_parquet(data_dir / "examples.parquet", glob=False).select(pl.col("history").explode())
    return read.unique().collect()["history"].drop_nulls()


_ClientOf = Callable[[AnyConfig], AbstractContextManager[Client]]
"""Opens what a summariser with this config asks."""


def _answered(counts: Mapping[str, Any]) -> int:
    return int(counts.get("requests", 0) - counts.get("failed", 0))
