"""`msr embed`: the catalogue and the users as vectors, in one table."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msr_adapter.arrays import Vectors
from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.output_paths import Output, output_problems, protected_by, sweep_beside
from msr_adapter.embedding import Catalogue, EmbeddedRows, Embedder, embed_catalogue, user_text, write_embeddings
from msr_adapter.errors import UserError
from msr_adapter.pipeline.checks import check
from msr_adapter.pipeline.embedding_stage import check_embedding, open_embedder
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import RECOMMENDING, run_checked, use_trained
from msr_adapter.pipeline.stage_context import Context, prompts_of
from msr_adapter.progress import Reporter
from msr_adapter.retrieval import ContentVectors, RetrievalUser
from msr_adapter.retrieval.by_content import query_vectors
from msr_adapter.summarize import read_summaries
from msr_adapter.workflows.recommend.request import ALL, RecommendRequest
from msr_adapter.workflows.recommend.resolve_request import RequestFiles, resolve_request
from msr_adapter.workflows.recommend.user_shards import read_items
from msr_adapter.workflows.recommend.user_summaries import UserSummaries
from msr_adapter.workflows.trained_run import bring_to_scoring

Kinds = Literal["items", "users", "all"]
_SUFFIXES = (".parquet",)


@dataclass(frozen=True)
class EmbedRequest:
    """What `msr embed` is asked for."""

    out: Path
    kinds: Kinds = "all"
    overwrite: bool = False
    """Whether ``out`` may exist."""


def embed(loaded: LoadedPipeline, wanted: EmbedRequest, reporter: Reporter, *, train: bool = False) -> dict[str, Any]:
    """Write EMBEDDINGS of the catalogue, of every user with a history, or of both; return counts.

    Data and summaries are brought up to date first; of the run's own model, the trained one is taken as it is, as
    `msr recommend` takes it. What is embedded already comes from the cache, so that a killed command resumes.
    """
    output = Output(wanted.out, wanted.overwrite, _SUFFIXES)
    asked = [*output_problems(output, protected_by(loaded)), *check_embedding(loaded)]
    if problems := [*asked, *check(loaded)]:
        raise UserError(problems)
    sweep_beside(wanted.out)
    loaded = resolve_models(loaded, download=True)
    started = time.monotonic()
    as_it_is = False
    if loaded.pipeline.embedding.own:
        as_it_is = bring_to_scoring(loaded, reporter, train=train)
    else:
        run_checked(loaded, ("items",), reporter=reporter)
    folder = RunFolder(loaded.run_dir)
    with folder.locked():
        reporter = reporter.with_log(folder.root / "run.log")
        if as_it_is:
            use_trained(loaded, folder, reporter)
        work = folder.begin(RECOMMENDING)
        context = Context(loaded.pipeline, loaded.resolved, folder, prompts_of(loaded.pipeline), work, reporter)
        try:
            counts = _write(context, wanted)
        finally:
            folder.discard(RECOMMENDING)
    return counts | {"seconds": round(time.monotonic() - started, 2)}


def _write(context: Context, wanted: EmbedRequest) -> dict[str, Any]:
    items, users = read_items(context.dirs.data), None
    if wanted.kinds != "items":
        users = _Users.summarised(context)
    described = users.summaries.of_items() if users else read_summaries(context.dirs.items)
    counts: dict[str, Any] = {"items": 0, "users": 0}
    with open_embedder(context) as embedder:
        catalogue = embed_catalogue(context.pipeline.embedding, embedder, Catalogue(items, described, Path()))
        embedder.say("items")

        def rows() -> Iterator[EmbeddedRows]:
            if wanted.kinds != "users":
                counts["items"] = catalogue.present
                yield catalogue
            for group in users.rows(context, embedder, catalogue.vectors) if users else ():
                counts["users"] += group.present
                yield group
            if users:
                embedder.say("user summaries")

        write_embeddings(wanted.out, rows(), (embedder.label, embedder.digest))
    told = {"items_in_catalogue": len(items), "dimension": int(catalogue.vectors.shape[1])}
    if users:
        told |= {"users_asked": len(users.request.asked.ids), **users.queries}
    return {"file": str(wanted.out), "model": embedder.label, "model_digest": embedder.digest, **told, **counts}


class _Users:
    """All users with a history, and their summaries."""

    def __init__(self, context: Context) -> None:
        everybody = RecommendRequest(None, ALL, 1, Path())
        repeats = context.pipeline.data.repeats == "keep"
        files = RequestFiles(None, None, None)
        self.request = resolve_request(everybody, files, context.dirs.data, keep_repeats=repeats)
        self.summaries = UserSummaries(context, self.request, context.out)
        self.queries = {"by_summary": 0, "by_history": 0}

    @classmethod
    def summarised(cls, context: Context) -> "_Users":
        """Return them with all summaries written; how often a model is asked for that is said first."""
        made = cls(context)
        items, users = made.summaries.estimate()
        context.reporter.note(
            f"embed: model calls at most: {items.requests:,} item summaries ({items.cached:,} cached), "
            f"{users.requests:,} steps of user summaries ({users.cached:,} cached)"
        )
        made.summaries.write()
        return made

    def rows(self, context: Context, embedder: Embedder, items: Vectors) -> Iterator[EmbeddedRows]:
        """Yield the vectors of each group of users."""
        config, asked = context.pipeline.embedding, self.request.asked

        def of_users(users: Sequence[RetrievalUser]) -> Vectors:
            return embedder.embed("user summaries", [user_text(config, one.summary) for one in users])

        content = ContentVectors(items, of_users, config.users)
        for group, numbers in enumerate(asked.groups()):
            told = self.summaries.of_group(group)
            users = [
                RetrievalUser(asked.ids[one], asked.history(one), asked.history(one)[:0], told.get(one, ""))
                for one in numbers
            ]
            vectors, queries = query_vectors(content, users)
            for query in ("summary", "history"):
                self.queries[f"by_{query}"] += queries.count(query)
            yield EmbeddedRows("user", [one.id for one in users], queries, vectors)
