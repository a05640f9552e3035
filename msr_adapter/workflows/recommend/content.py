"""The catalogue and the users as vectors, for retrievers that go by content."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Vectors
from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import FusionConfig
from msr_adapter.embedding import Catalogue, embed_catalogue, user_text
from msr_adapter.errors import Problem
from msr_adapter.pipeline.embedding_stage import check_retriever, open_embedder
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.progress import Reporter
from msr_adapter.retrieval import RETRIEVER_NAMES, ContentVectors, RetrievalUser, needs_content
from msr_adapter.summarize import read_summaries
from msr_adapter.workflows.recommend.user_summaries import UserSummaries


def goes_by_content(kind: str, fusion: FusionConfig) -> bool:
    """Return whether candidates of this kind (a retriever's name, all or file) depend on vectors of items and users."""
    return kind in RETRIEVER_NAMES and needs_content(kind, fusion)


def retriever_problems(loaded: LoadedPipeline, kind: str) -> list[Problem]:
    """Return what a retriever needs and lacks; a file and the whole catalogue need nothing."""
    return check_retriever(loaded, kind, ("", "--candidates")) if kind in RETRIEVER_NAMES else []


def content_by_history(context: Context, items: pa.Table) -> ContentVectors:
    """Return what a search by content knows where no summary is at hand: each user is the mean of the history."""
    config = context.pipeline.embedding
    with open_embedder(context) as embedder:
        rows = embed_catalogue(config, embedder, Catalogue(items, read_summaries(context.dirs.items), Path()))
        embedder.say("items")
    nothing = np.zeros((0, 0), np.float32)
    return ContentVectors(rows.vectors, lambda _: nothing, "history", config.search)


@contextmanager
def open_content(context: Context, summaries: UserSummaries, items: pa.Table) -> Iterator[ContentVectors]:
    """Yield what a search by content knows: ``items`` (ITEMS, absolute paths) embedded with their summaries, and what
    embeds the summaries of users. What is embedded already is taken from the cache."""
    config = context.pipeline.embedding
    with open_embedder(context) as embedder:
        rows = embed_catalogue(config, embedder, Catalogue(items, summaries.of_items(), Path()))
        embedder.say("items")
        quiet = replace(embedder, reporter=Reporter(quiet=True), counts=embedder.counts)

        def of_users(users: Sequence[RetrievalUser]) -> Vectors:
            return quiet.embed("user summaries", [user_text(config, one.summary) for one in users])

        yield ContentVectors(rows.vectors, of_users, config.users, config.search)
        embedder.say("user summaries")
