"""`msr recommend`: ranked lists for users."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from msr_adapter.cli.common import (
    Json,
    Overwrite,
    PipelineArgument,
    Quiet,
    Retraining,
    RunDir,
    Sets,
    emit,
    exit_codes,
    interruptible,
)
from msr_adapter.errors import plural


class UnknownUsers(StrEnum):
    """What `msr recommend --unknown-users` takes."""

    ERROR = "error"
    FALLBACK = "fallback"


class RankBy(StrEnum):
    """What `msr recommend --rank-by` takes."""

    MODEL = "model"
    HYBRID = "hybrid"


def recommend(
    pipeline: PipelineArgument,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE|FOLDER", show_default=False,
                     help="Ends in .parquet, .csv or .jsonl; without a suffix, a folder of parts (millions of users)."),
    ],
    users: Annotated[
        str, typer.Option("--users", metavar="FILE|all", help="Ids in a column or one a line; `all` of the log.")
    ] = "all",
    candidates: Annotated[
        str,
        typer.Option("--candidates", metavar="FILE|RETRIEVER:N|all",
                     help="What is reranked: what a retriever finds (popular, item-knn, embedding, fused), the "
                     "catalogue, or a file of items (for everybody) or of user,item pairs."),
    ] = "popular:200",
    top: Annotated[int, typer.Option("--top", min=1, help="Items per user.")] = 10,
    interactions: Annotated[
        Path | None,
        typer.Option("--interactions", metavar="FILE", help="A log (user, item, timestamp) of what happened later."),
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option("--items", metavar="FILE", help="A table of items added after the training, like the source's."),
    ] = None,
    include_seen: Annotated[
        bool | None,
        typer.Option("--include-seen/--exclude-seen", show_default=False, help="Whether items that a user has already "
                     "seen may be recommended. Default: no; with data.repeats: keep, yes."),
    ] = None,
    unknown_users: Annotated[
        UnknownUsers, typer.Option("--unknown-users", help="For users not in the log: stop, or popular items.")
    ] = UnknownUsers.ERROR,
    rank_by: Annotated[
        RankBy, typer.Option("--rank-by", help="The trained model, or the hybrid that `msr evaluate` froze.")
    ] = RankBy.MODEL,
    train: Retraining = False, overwrite: Overwrite = False, sets: Sets = None, run_dir: RunDir = None,
    quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Write top-k lists: candidates are retrieved, then reranked by the trained model.

    The model is used as it is, whatever changed in the log or the settings since; --train brings it up to date.

    Example: [bold]msr recommend demo --users all --candidates item-knn:50 --top 10 --out recs.parquet[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.progress import Reporter
        from msr_adapter.workflows.recommend import RecommendRequest
        from msr_adapter.workflows.recommend.workflow import recommend as carry_out

        loaded = load_pipeline(pipeline, sets or (), run_dir)
        # A file that is called `all` is a file.
        path = None if users == "all" and not Path(users).exists() else Path(users)
        wanted = RecommendRequest(
            path, candidates, top, out, include_seen, unknown_users.value, interactions, items, overwrite, rank_by.value
        )
        with interruptible(loaded.run_dir):
            result = carry_out(loaded, wanted, Reporter(quiet=quiet), train=train)
        emit({"pipeline": loaded.pipeline.name, "run_dir": str(loaded.run_dir), **result}, _text(out, result), as_json)


def _text(out: Path, counts: Mapping[str, int]) -> str:
    served = counts["users"] - counts["users_without_candidates"]
    return f"{out}: {plural(counts['rows'], 'row')} for {plural(served, 'user')}"
