"""`msr score`: the rows of a table looked up, their users summarised, their pairs scored, and the table written."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.output_paths import Output, output_problems, protected_by, sweep_beside
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.new_items import beside
from msr_adapter.data.pairs_file import PairsFile, nested_columns, open_pairs, write_columns, write_roles
from msr_adapter.errors import Problem, StageError, UserError, collecting, plural, raise_if_any
from msr_adapter.files import working_folder
from msr_adapter.model_scores import read_model_scores, shown_scores
from msr_adapter.pipeline.checks import check
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import run_checked, use_trained
from msr_adapter.pipeline.stage_context import Context, is_truncating, prompts_of
from msr_adapter.pipeline.stage_functions import bounded_share, make_scorer
from msr_adapter.progress import Reporter
from msr_adapter.prompts.stage_tables import copy_attributes, users_of_examples
from msr_adapter.stage_arguments import Client, Job
from msr_adapter.workflows.recommend.new_items import changed_problems, told, write_data
from msr_adapter.workflows.recommend.resolve_request import ResolvedRequest
from msr_adapter.workflows.recommend.user_shards import GROUP, PAIRS, read_items, write_pairs
from msr_adapter.workflows.recommend.user_summaries import UserSummaries
from msr_adapter.workflows.score_pairs.inline_items import ImagePlaces, inline_rows
from msr_adapter.workflows.score_pairs.pair_codes import PART, Buckets, CodedRows, cut_at_users, fill_buckets
from msr_adapter.workflows.score_pairs.request import (
    BOUNDED,
    LOGIT,
    SCORE,
    SUFFIXES,
    WHY,
    PairsRequest,
    nested_problems,
)
from msr_adapter.workflows.score_pairs.resolve_pairs import (
    REASONS,
    Faults,
    KnownItems,
    KnownUsers,
    code_part,
    items_of,
    known_ids,
    users_of,
)
from msr_adapter.workflows.score_pairs.scored_table import is_spliced, write_scored
from msr_adapter.workflows.trained_run import bring_to_scoring

_SUMMED = ("computed", "cached", "tokens_in", "prompts_over_cutoff", "bounded")
_OPTION = "PAIRS"


def score_table(
    loaded: LoadedPipeline, wanted: PairsRequest, reporter: Reporter, *, train: bool = False
) -> dict[str, Any]:
    """Write the table that is ``wanted`` with a score for every row; return counts.

    Data and user summaries are brought up to date first; the trained model is taken as it is, made where there is none,
    and brought up to date with ``train``. Answers go through the completion cache, so that a killed command resumes.
    `UserError` with every problem of the request and its rows before a model is loaded. Memory grows with the users,
    items and the log, not with the pairs.
    """
    started = time.monotonic()
    served = loaded.pipeline.evaluate.scorer is not None
    output = Output(wanted.out, wanted.overwrite, SUFFIXES)
    read = {_OPTION: wanted.pairs} | ({"--items": wanted.items} if wanted.items is not None else {})
    problems = output_problems(output, protected_by(loaded, read))
    pairs = items = None
    with collecting(problems):
        items = _read_items(loaded, wanted, reporter)
    with collecting(problems):
        pairs = open_pairs(wanted.pairs, _OPTION, wanted.columns, wanted.added(served=served))
        problems += nested_problems(wanted, nested_columns(pairs))
    if prompts_of(loaded.pipeline).shows_recent:
        found, step = "prompts with images of the history are not scored for tables yet", "Use `msr recommend`"
        problems.append(Problem(loaded.where("train.history_images"), "train.history_images", found, "0", step))
    raise_if_any([*problems, *check(loaded)])
    assert pairs is not None
    sweep_beside(wanted.out)
    loaded = resolve_models(loaded, download=True)
    run_checked(loaded, ("data",), reporter=reporter)
    folder = RunFolder(loaded.run_dir)
    with working_folder(folder.root / "score-pairs") as work:
        logged = reporter.with_log(folder.root / "run.log")
        context = Context(loaded.pipeline, loaded.resolved, folder, prompts_of(loaded.pipeline), work, logged)
        if items is not None:
            context = _with_items(context, items, wanted)
        rows = _look_up(context, pairs, wanted)  # before anything is trained for them
        as_it_is = bring_to_scoring(loaded, reporter, train=train)
        if wanted.histories == "test" and is_truncating(loaded.pipeline):
            run_checked(loaded, ("truncate",), reporter=Reporter(quiet=True))
        with folder.locked():
            if as_it_is:
                use_trained(loaded, folder, logged)
            counts = _carry_out(context, pairs, wanted, rows)
    return counts | {"seconds": round(time.monotonic() - started, 2)}


def _read_items(loaded: LoadedPipeline, wanted: PairsRequest, reporter: Reporter) -> pl.DataFrame | None:
    """Return the items that came after the training, as a corpus has them; None where there is no table of them."""
    from msr_adapter.data.new_items import read_new_items

    if wanted.items is None:
        return None
    items, audit = read_new_items(wanted.items, "--items", loaded.pipeline.data)
    for finding in audit.findings:
        reporter.note(finding["text"])
    return items


def _with_items(context: Context, items: pl.DataFrame, wanted: PairsRequest) -> Context:
    """Return the context with what ``items`` has beside the catalogue; `UserError` where it says something else."""
    assert wanted.items is not None
    found = beside(items, context.dirs.data, wanted.items)
    raise_if_any(changed_problems(wanted.items, found))
    context.reporter.note(told(wanted.items, found))
    return replace(context, data=write_data(context, found)) if found.new.height else context


@dataclass(frozen=True)
class _CodedTable:
    """The rows of the table, looked up."""

    users: KnownUsers
    items: KnownItems
    coded: CodedRows
    faults: Faults


def _look_up(context: Context, pairs: PairsFile, wanted: PairsRequest) -> _CodedTable:
    """Read the table and look up its rows. `UserError` with the rows that cannot be scored, unless they are skipped."""
    roles, audit = context.out / "roles.parquet", Audit()
    write_roles(pairs, roles, audit)
    for finding in audit.findings:
        context.reporter.note(finding["text"])
    users = users_of(roles, context.dirs.data, wanted)
    items = items_of(roles, context.dirs.data, by_title="title" in pairs.columns)
    coded, faults = CodedRows(context.out / "codes"), Faults()
    named = pl.scan_parquet(roles, glob=False)
    for begin in range(0, _height(named), PART):
        part = named.slice(begin, PART).collect()
        found = code_part(part, users, items)
        faults.add(part, found)
        coded.append(found)
    if faults.rows and wanted.unknown == "error":
        raise UserError(faults.problems(pairs, known_ids(users, items, context.dirs.data)))
    return _CodedTable(users, items, coded, faults)


def _height(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect().item())


def _carry_out(context: Context, pairs: PairsFile, wanted: PairsRequest, rows: _CodedTable) -> dict[str, Any]:
    """Summarise the users, score the pairs and write the table; return the counts of all of it."""
    items = _items(context, pairs, rows.items)
    shape = (rows.users.most, len(items))
    buckets = fill_buckets(rows.coded, context.out / "buckets", shape, GROUP)
    distinct = sum(len(buckets.pairs(bucket)[0]) for bucket in range(len(buckets)))
    unscored = {REASONS[reason]: count for reason, count in sorted(rows.faults.unscored.items())}
    counts: dict[str, Any] = {
        "file": str(wanted.out), "rows": rows.coded.rows, "pairs": distinct, "histories": wanted.histories,
        "users": int((rows.users.numbers["number"] >= 0).sum()), "inline_items": rows.items.inline.height,
        "not_scored": unscored,
    }  # fmt: skip
    _tell(context.reporter, counts)
    summaries = None
    if rows.users.asked is not None and rows.users.asked.ids:
        summaries = UserSummaries(context, ResolvedRequest(rows.users.asked, None, None, 0, 0), context.out)
        counts |= _written(summaries)
    counts["scores"] = dict.fromkeys(_SUMMED, 0)
    if distinct:
        with make_scorer(context) as scorer, context.cache() as cache:
            scoring = _Scoring(context, Client(context.prompts, scorer, cache), summaries, items)
            counts["scores"] = scoring.all(buckets, distinct)
    columns = context.out / "columns.parquet"
    if not is_spliced(pairs, wanted.out):
        write_columns(pairs, columns)
    served = context.pipeline.evaluate.scorer is not None
    write_scored(pairs, columns, _added(rows.coded, buckets, wanted.added(served=served)), wanted.out)
    return counts


def _written(summaries: UserSummaries) -> dict[str, Any]:
    written = summaries.write()
    return {"item_summaries": written["items"], "user_summaries": written["users"]}


def _items(context: Context, pairs: PairsFile, known: KnownItems) -> pa.Table:
    """Return ITEMS of the catalogue, and behind them those that the table describes; paths of images are absolute."""
    items = read_items(context.dirs.data)
    if not known.inline.height:
        return items.combine_chunks()
    config = context.pipeline.data.images
    # Without a folder of the pipeline's, paths start where the table lies.
    config = config.model_copy(update={"folder": config.folder or pairs.table.path.absolute().parent})
    places = ImagePlaces(config, context.out / "inline", context.folder.root / "cache" / "images")
    places.out.mkdir()
    inline = known.inline if context.pipeline.train.images else known.inline.with_columns(image=None)
    rows = inline_rows(inline, items["item_id"], places, context.reporter)
    return pa.concat_tables([items, rows]).combine_chunks()


class _Scoring:
    """Scores buckets of pairs, shard by shard, by the score stage's own function."""

    def __init__(self, context: Context, client: Client, summaries: UserSummaries | None, items: pa.Table) -> None:
        self._context, self._client, self._summaries, self._items = context, client, summaries, items

    def all(self, buckets: Buckets, total: int) -> dict[str, int]:
        """Score every bucket and keep its scores there; return counts."""
        totals = dict.fromkeys(_SUMMED, 0)
        with self._context.reporter.track("scoring pairs", total) as advance:
            reporter = self._context.reporter.within(advance)
            for bucket in range(len(buckets)):
                numbers, codes = buckets.pairs(bucket)
                parts = [np.empty((3, 0))]
                for part in cut_at_users(numbers, PAIRS):
                    counts, scores = self._shard(numbers[part], codes[part], reporter)
                    totals = {name: value + counts.get(name, 0) for name, value in totals.items()}
                    parts.append(scores)
                buckets.keep_scores(bucket, list(np.concatenate(parts, axis=1)))
        return totals

    def _user_ids(self, numbers: Sequence[int]) -> list[str]:
        if self._summaries is not None:
            return self._summaries.user_ids(numbers)
        return users_of_examples(self._context.dirs.data, numbers)

    def _shard(
        self, numbers: np.ndarray[Any, Any], codes: np.ndarray[Any, Any], reporter: Reporter
    ) -> tuple[Mapping[str, Any], np.ndarray[Any, Any]]:
        from msr_adapter.score import score

        context, folder = self._context, self._context.out / "shard"
        users = self._user_ids(np.unique(numbers).tolist())
        write_pairs(folder, self._items, numbers, codes, users)
        shown_items = self._items["item_id"].take(pa.array(np.unique(codes)))
        copy_attributes(context.dirs.data, folder, shown_items.to_pylist(), users)
        shown = context.dirs.user_summaries
        if self._summaries is not None:
            shown = self._summaries.shown(int(numbers[0]) // GROUP, folder)
        items_dir = context.dirs.items if self._summaries is None else self._summaries.items_dir
        dirs = replace(context.dirs, data=folder, examples=folder, items=items_dir, user_summaries=shown)
        job = Job(folder, reporter, context.pipeline.seed)
        counts = score(context.pipeline.train, dirs, self._client, job, bounded_share(context.pipeline))
        found = read_model_scores(folder / "scores.parquet")
        asked = schema.read_table(folder / "candidates.parquet", schema.CANDIDATES)
        if not all(found[key].equals(asked[key]) for key in ("example_id", "item_id")):
            raise StageError("the scores are not those of the pairs", "two commands wrote into one run folder")
        shutil.rmtree(folder)
        return counts, np.stack(shown_scores(found))


def _added(coded: CodedRows, buckets: Buckets, names: tuple[str, ...]) -> Iterator[pl.DataFrame]:
    """Yield what the rows of the table get, part by part; null where a row has no score, with the reason."""
    for number, code, reason in coded.parts():
        scored = reason == 0
        found = np.full((3, len(reason)), np.nan)
        if scored.any():
            found[:, scored] = buckets.scores(number[scored], code[scored])
        known = pl.Series(scored)
        score, logit, bounded = (pl.Series(column).fill_nan(None) for column in found)
        added = pl.DataFrame({SCORE: score, LOGIT: logit, BOUNDED: bounded == 1.0, WHY: _reasons(reason)})
        told = [pl.when(known).then(pl.col(name)).alias(name) for name in (SCORE, LOGIT, BOUNDED)]
        yield added.with_columns(told).select(names)


def _reasons(reason: np.ndarray[Any, Any]) -> pl.Series:
    words = pl.Series([None, *REASONS[1:]], dtype=pl.String)
    return words.gather(pl.Series(reason.astype(np.uint32)))


def _tell(reporter: Reporter, counts: Mapping[str, Any]) -> None:
    """Say what is scored, and what is not."""
    again = counts["rows"] - counts["pairs"] - sum(counts["not_scored"].values())
    users = plural(counts["users"], "user")
    reporter.note(f"score: {plural(counts['rows'], 'row')}, {plural(counts['pairs'], 'pair')} of {users} to score"
                  + (f", {plural(again, 'row')} with a pair that stands before" if again > 0 else ""))  # fmt: skip
    if counts["inline_items"]:
        reporter.note(f"  {plural(counts['inline_items'], 'item')} in no catalogue, known by their titles")
    for reason, count in counts["not_scored"].items():
        reporter.note(f"  {plural(count, 'row')} without a score: {reason}")
