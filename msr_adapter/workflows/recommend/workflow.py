"""`msr recommend`: the model brought up to date, candidates retrieved, reranked by it, and written as ranked lists."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.output_paths import Output, Protected, output_problems, protected_by, sweep_beside
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.generation import Backend
from msr_adapter.generation.dry_run import DryRunBackend, DryRunCache
from msr_adapter.pipeline.checks import check
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import RECOMMENDING, run_checked, use_trained
from msr_adapter.pipeline.stage_context import Context, prompts_of
from msr_adapter.pipeline.stage_functions import bounded_share, make_scorer
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Client, Job
from msr_adapter.workflows.recommend.content import retriever_problems
from msr_adapter.workflows.recommend.finding import CandidateFinder, RecommendWork, open_finder
from msr_adapter.workflows.recommend.hybrid_ranking import HybridRanker, hybrid_problems
from msr_adapter.workflows.recommend.in_parts import recommend_in_parts
from msr_adapter.workflows.recommend.new_items import told, write_data
from msr_adapter.workflows.recommend.output import SUFFIXES, writing
from msr_adapter.workflows.recommend.part_folder import folder_of_parts_problems, is_folder_of_parts
from msr_adapter.workflows.recommend.ranking import Weigh, rank_shard
from msr_adapter.workflows.recommend.request import RecommendRequest, request_problems
from msr_adapter.workflows.recommend.resolve_request import RequestFiles, ResolvedRequest, resolve_request
from msr_adapter.workflows.recommend.user_shards import cut_shards, read_items, write_shard
from msr_adapter.workflows.recommend.user_summaries import Calls, UserSummaries, shown_history
from msr_adapter.workflows.trained_run import bring_to_scoring

_LABEL = "scoring candidates"
_COSTLY = 100_000
"""Model calls from which on ranking the whole catalogue deserves a warning."""


def recommend(
    loaded: LoadedPipeline, wanted: RecommendRequest, reporter: Reporter, *, train: bool = False
) -> dict[str, Any]:
    """Write the ranked lists that are ``wanted``; return counts.

    Data and user summaries are brought up to date first. The trained model is taken as it is, whatever changed; it is
    made where there is none, and brought up to date with ``train``. Answers go through the completion cache, so that a
    killed command resumes. `UserError` with every problem of the request before a model is loaded or trained.
    """
    from msr_adapter.data.id_list_files import id_file_problems

    named = {"--users": wanted.users, "--interactions": wanted.interactions, "--candidates": Path(wanted.candidates)}
    named["--items"] = wanted.items
    read = {option: path for option, path in named.items() if path and path.is_file()}
    asked = [
        *_output_problems(wanted, protected_by(loaded, read)),
        *request_problems(wanted, id_file_problems),
        *_retriever_problems(loaded, wanted),
        *_ranker_problems(loaded, wanted),
    ]
    if problems := [*asked, *check(loaded)]:
        raise UserError(problems)
    sweep_beside(wanted.out)
    loaded = resolve_models(loaded, download=True)
    started = time.monotonic()
    files = _read(loaded, wanted, reporter)
    run_checked(loaded, ("data",), reporter=reporter)
    folder = RunFolder(loaded.run_dir)
    request = resolve_request(wanted, files, folder.stage("data"), keep_repeats=loaded.pipeline.data.repeats == "keep")
    as_it_is = bring_to_scoring(loaded, reporter, train=train)
    with folder.locked():
        reporter = reporter.with_log(folder.root / "run.log")
        if as_it_is:
            use_trained(loaded, folder, reporter)
        work = folder.begin(RECOMMENDING)
        prompts = prompts_of(loaded.pipeline)
        request = replace(request, asked=replace(request.asked, shown=shown_history(loaded.pipeline, prompts)))
        context = Context(loaded.pipeline, loaded.resolved, folder, prompts, work, reporter)
        try:
            if request.items is not None and request.items.new.height:
                context = replace(context, data=write_data(context, request.items))
            counts = _carry_out(context, wanted, request)
        finally:
            folder.discard(RECOMMENDING)
    return counts | {"seconds": round(time.monotonic() - started, 2)}


def _output_problems(wanted: RecommendRequest, protected: Protected) -> list[Problem]:
    if is_folder_of_parts(wanted.out):
        return folder_of_parts_problems(wanted.out, protected, overwrite=wanted.overwrite)
    return output_problems(Output(wanted.out, wanted.overwrite, SUFFIXES), protected)


def _read(loaded: LoadedPipeline, wanted: RecommendRequest, reporter: Reporter) -> RequestFiles:
    """Read the files of the request. `UserError` with the problems of all of them."""
    from msr_adapter.data.audit.report import Audit
    from msr_adapter.data.id_list_files import read_item_ids, read_later_interactions, read_user_ids
    from msr_adapter.data.new_items import read_new_items
    from msr_adapter.errors import collecting, raise_if_any

    problems: list[Problem] = []
    lists = Audit()
    users = candidates = later = items = None
    with collecting(problems):
        users = read_user_ids(wanted.users, "--users", lists) if wanted.users else None
    with collecting(problems):
        candidates = read_item_ids(wanted.retrieval.path, "--candidates", lists) if wanted.retrieval.path else None
    with collecting(problems):
        if wanted.interactions:
            source = loaded.pipeline.data.source
            later, audit = read_later_interactions(wanted.interactions, "--interactions", source)
            for finding in audit.findings:
                reporter.note(finding["text"])
    with collecting(problems):
        if wanted.items:
            items, audit = read_new_items(wanted.items, "--items", loaded.pipeline.data)
            for finding in audit.findings:
                reporter.note(finding["text"])
    raise_if_any(problems)
    for finding in lists.findings:
        reporter.note(finding["text"])
    return RequestFiles(users, candidates, later, items)


@dataclass(frozen=True)
class _Shard:
    """Users whose candidates are scored together."""

    group: int
    folder: Path
    scored: int
    """Candidates that the model is asked about."""


def _carry_out(context: Context, wanted: RecommendRequest, request: ResolvedRequest) -> dict[str, Any]:
    """Retrieve, summarise, score and write the lists; return the counts of all of it."""
    items = read_items(context.dirs.data)
    work = RecommendWork(context, wanted, request, items)
    if is_folder_of_parts(wanted.out):
        counts, found = recommend_in_parts(work)
        if found:
            _tell_request(context.reporter, wanted, request, found, again=work.again)
        return found | counts
    weigh = _weigher(work)  # first of all: without a hybrid, nothing is asked for
    summaries = UserSummaries(context, request, context.out)
    calls = summaries.estimate()
    written: dict[str, Any] = {}
    if work.by_content:  # whom it looks for is told by their summaries
        _tell_summaries(context.reporter, calls)
        written = summaries.write()
    with open_finder(work, summaries) as finding:
        shards, counts = _retrieve(work, finding)
    _tell_request(context.reporter, wanted, request, counts, again=work.again)
    _tell_calls(context.reporter, wanted, calls, counts["scored"])
    written = written or summaries.write()
    with make_scorer(context) as scorer:
        cached = _count_cached(context, summaries, shards, scorer.identity)
        left = counts["scored"] - cached
        context.reporter.note(f"recommend: {left:,} of {counts['scored']:,} scores are not cached yet")
        rows, scores = _rank_all(work, summaries, shards, scorer, weigh)
    return {
        "file": str(wanted.out), "candidates_from": str(wanted.retrieval), "top": wanted.top, "rows": rows, **counts,
        "item_summaries": written["items"], "user_summaries": written["users"], "scores": scores,
    }  # fmt: skip


def _retriever_problems(loaded: LoadedPipeline, wanted: RecommendRequest) -> list[Problem]:
    """Return what the retriever needs and lacks; what the request says wrongly is told elsewhere."""
    try:
        kind = wanted.retrieval.kind
    except UserError:
        return []
    return retriever_problems(loaded, kind)


def _ranker_problems(loaded: LoadedPipeline, wanted: RecommendRequest) -> list[Problem]:
    if wanted.rank_by == "model":
        return []
    return hybrid_problems(loaded, in_parts=is_folder_of_parts(wanted.out), new_items=wanted.items is not None)


def _weigher(work: RecommendWork) -> Weigh | None:
    """Return what makes the hybrid's scores of the model's, where the hybrid is asked for."""
    if work.wanted.rank_by == "model":
        return None
    asked, ranker = work.request.asked, HybridRanker(work.context, work.request.asked.histories)
    return lambda lists, model: ranker.log_odds(lists, asked.places[lists["number"].to_numpy()], model)


def _retrieve(work: RecommendWork, finding: CandidateFinder) -> tuple[list[_Shard], dict[str, int]]:
    """Retrieve everybody's candidates and write them as shards; return these and counts."""
    context, asked = work.context, work.request.asked
    shards: list[_Shard] = []
    retrieved = np.zeros(len(asked.histories.items), dtype=bool)
    with context.reporter.track("retrieving candidates", len(asked.ids)) as advance:
        for group, numbers in enumerate(asked.groups()):
            found = finding.find(asked, group, numbers)
            for one in found:
                retrieved[one.items] = True
            for part in cut_shards(numbers, found):
                folder = context.out / f"group-{group:05}" / f"shard-{part.start:05}"
                scored = write_shard(context.dirs.data, folder, work.items, asked, numbers[part], found[part])
                shards.append(_Shard(group, folder, scored))
            advance(len(numbers))
    new = 0 if work.request.items is None else work.request.items.new.height
    counts = {"scored": sum(shard.scored for shard in shards)}
    counts["new_items_retrieved"] = int(retrieved[len(retrieved) - new :].sum())
    return shards, finding.counts | counts


def _count_cached(context: Context, summaries: UserSummaries, shards: list[_Shard], identity: str) -> int:
    """Return how many scores are answered already."""
    with DryRunCache(context.cache_path) as cache:
        client = Client(context.prompts, DryRunBackend(identity), cache)
        for shard in shards:
            if shard.scored:
                _score(context, summaries, shard, client, Reporter(quiet=True))
        missing = cache.stats.failed
    return sum(shard.scored for shard in shards) - missing


def _rank_all(
    work: RecommendWork, summaries: UserSummaries, shards: list[_Shard], scorer: Backend, weigh: Weigh | None
) -> tuple[int, dict[str, int]]:
    """Score every shard and write its lists; return the number of rows and counts of the scoring."""
    context, wanted = work.context, work.wanted
    rows, totals = 0, dict.fromkeys(("computed", "cached", "tokens_in", "prompts_over_cutoff", "bounded"), 0)
    with (
        context.cache() as cache,
        context.reporter.track(_LABEL, sum(shard.scored for shard in shards)) as advance,
        writing(wanted.out) as write,
    ):
        reporter, client = context.reporter.within(advance), Client(context.prompts, scorer, cache)
        for shard in shards:
            if shard.scored:
                found = _score(context, summaries, shard, client, reporter)
                totals = {name: total + found.get(name, 0) for name, total in totals.items()}
            lists = rank_shard(shard.folder, shard.folder if shard.scored else None, work.items, wanted, weigh)
            write(lists)
            rows += len(lists)
            shutil.rmtree(shard.folder)
    return rows, totals


def _score(
    context: Context, summaries: UserSummaries, shard: _Shard, client: Client, reporter: Reporter
) -> dict[str, Any]:
    """Score a shard by the stage's own function; its scores are written beside its candidates."""
    from msr_adapter.score import score

    shown = summaries.shown(shard.group, shard.folder)
    dirs = replace(
        context.dirs, data=shard.folder, examples=shard.folder, items=summaries.items_dir, user_summaries=shown
    )
    job = Job(shard.folder, reporter, context.pipeline.seed)
    return score(context.pipeline.train, dirs, client, job, bounded_share(context.pipeline))


def _tell_request(
    reporter: Reporter, wanted: RecommendRequest, request: ResolvedRequest, counts: Mapping[str, int], *, again: bool
) -> None:
    """Say who gets a list in an unusual way, and what of the input is left out."""
    if request.items is not None:
        reporter.note(told(wanted.items, request.items, counts.get("new_items_retrieved")))
    if request.later is not None:
        later = request.later
        reporter.note(
            f"{wanted.interactions}: {later.added:,} of {later.rows:,} interactions are new, of {later.users:,} users, "
            f"{later.new_users:,} of them new; {later.repeated:,} were known, "
            + (f"{later.filtered.height:,} are only seen (a filter drops them), " if later.filtered.height else "")
            + f"{later.unknown_rows:,} left out"
            + (f" (items not in the catalogue: {', '.join(later.unknown[:5])})" if later.unknown else "")
        )
        if later.before:
            reporter.note(
                f"  {later.before:,} of them are older than what their users had already; they are sorted in, so these "
                "users' summaries are written anew from there"
            )
    if counts["users_without_history"]:
        only_seen = counts["users_only_seen"]
        why = f" ({only_seen:,} of them have rows that a filter drops: those items count as seen)" if only_seen else ""
        reporter.note(
            f"{plural(counts['users_without_history'], 'user has', 'users have')} no history{why}; without one, the "
            "most popular candidates are recommended"
        )
    if "found_by_summary" in counts:
        reporter.note(
            f"  by content: {plural(counts['found_by_summary'], 'user')} by the user summary, "
            f"{counts['found_by_history']:,} by the mean of the history's items"
        )
    if request.ignored_pairs:
        reporter.note(f"{plural(request.ignored_pairs, 'candidate pair')} of users who were not asked for: left out")
    if counts["short_lists"]:
        why = f"{wanted.retrieval.path or 'the catalogue'} has no more"
        if not (wanted.include_seen or again):
            why += "; what they already have is not recommended (--include-seen)"
        reporter.note(
            f"{plural(counts['short_lists'], 'user has', 'users have')} fewer than {wanted.top} candidates, "
            f"{counts['users_without_candidates']:,} of them none: {why}"
        )


def _tell_summaries(reporter: Reporter, calls: tuple[Calls, Calls]) -> None:
    """Say how often the summarisers will be asked, before it is known what is to be scored."""
    items, users = calls
    reporter.note(
        f"recommend: summaries first, by which candidates are retrieved: {items.requests:,} item summaries "
        f"({items.cached:,} cached), {users.requests:,} steps of user summaries ({users.cached:,} cached)"
    )


def _tell_calls(reporter: Reporter, wanted: RecommendRequest, calls: tuple[Calls, Calls], scored: int) -> None:
    """Say how often the models will be asked, and what of it is cached."""
    items, users = calls
    reporter.note(
        f"recommend: model calls at most: {items.requests:,} item summaries ({items.cached:,} cached), "
        f"{users.requests:,} steps of user summaries ({users.cached:,} cached), {scored:,} scores"
    )
    if wanted.retrieval.kind == "all" and scored >= _COSTLY:
        reporter.note(
            "  the whole catalogue is ranked for every user; --candidates item-knn:200 takes far fewer model calls"
        )
