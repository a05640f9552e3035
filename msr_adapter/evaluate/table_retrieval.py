"""What the retrievers of `msr recommend` find for the test users, from what training may know: their recall."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats, Integers, Rows, Vectors, contains
from msr_adapter.config.schema import EmbeddingConfig, FullConfig, FusionConfig
from msr_adapter.embedding import read_vectors
from msr_adapter.evaluate.baselines.catalogue import BASELINES
from msr_adapter.evaluate.baselines.training_log import BaselineInputs, repeats_are_kept
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.catalogue_ranking import CatalogueChoices
from msr_adapter.retrieval import (
    RETRIEVER_NAMES,
    ContentVectors,
    KnownLog,
    RetrievalUser,
    RetrieverInputs,
    members,
    needs_content,
)
from msr_adapter.retrieval.retrievers import row_of
from msr_adapter.schema import RETRIEVER_RECALLS, read_table, write_table

ITEMS, USERS = "items.parquet", "users.parquet"
"""The embed stage's tables: EMBEDDINGS of the catalogue, and of the test examples by their ids."""
RECALLS = "recalls.parquet"


@dataclass(frozen=True)
class RetrievalSettings:
    """How the retrievers of the table are set up."""

    embedding: EmbeddingConfig
    fusion: FusionConfig
    embedded: Path
    """Folder of the embed stage; read where a retriever needs it."""


def is_of_the_table(full: FullConfig) -> bool:
    """Return whether what retrieves is no baseline, but retrieves as `msr recommend` does."""
    return full.retriever not in {row.name for row in BASELINES}


def compared(full: FullConfig | None, fusion: FusionConfig) -> tuple[str, ...]:
    """Return the retrievers whose recall is told, in the order of their table."""
    if full is None:
        return ()
    asked = {"popular", *full.compare, *([full.retriever] if is_of_the_table(full) else [])}
    fused = {row.name for row in members("fused", fusion)} if "fused" in asked else set()
    return tuple(name for name in RETRIEVER_NAMES if name in asked | fused)


def embeds(full: FullConfig | None, fusion: FusionConfig) -> bool:
    """Return whether one of them needs vectors."""
    return any(needs_content(name, fusion) for name in compared(full, fusion))


class TableRetrieval:
    """The retrievers of the table, for the test users."""

    def __init__(self, inputs: BaselineInputs, choices: CatalogueChoices, settings: RetrievalSettings) -> None:
        """Read what they need; the vectors are those of the embed stage."""
        self._inputs, self._choices, self._settings = inputs, choices, settings
        log = inputs.log
        bounds = np.searchsorted(log.user, np.arange(log.users + 1))
        self._log = KnownLog(bounds, log.item, log.items, log.popularity())
        self._again = repeats_are_kept(inputs.data_dir)
        self._content: ContentVectors | None = None

    def lists(self, name: str, top: int) -> tuple[Rows, Integers]:
        """Return what ``name`` retrieves for each test user: offsets (users + 1,) and rows of ITEMS, best first."""
        fusion = self._settings.fusion
        content = self._vectors() if needs_content(name, fusion) else None
        retrieve = row_of(name).make(RetrieverInputs(self._log, content, fusion, self._again), top)
        found: list[Integers] = [np.empty(0, np.int64)]
        sizes: list[int] = []
        users, step = self._choices.users, self._choices.step
        for first in range(0, users, step):
            lists = retrieve([self._user(number) for number in range(first, min(first + step, users))])
            found += [one.items.astype(np.int64) for one in lists]
            sizes += [len(one.items) for one in lists]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), np.concatenate(found)

    def _user(self, number: int) -> RetrievalUser:
        """Return a test user: the history before the target, and all that is no choice there."""
        queries, choices = self._inputs.queries, self._choices
        history = queries.history[queries.history_offsets[number] : queries.history_offsets[number + 1]]
        barred = choices.hidden[choices.hidden_offsets[number] : choices.hidden_offsets[number + 1]]
        if choices.first is not None and choices.times is not None:
            barred = np.concatenate([barred, np.flatnonzero(choices.first > choices.times[number])])
        return RetrievalUser(str(self._inputs.held_out.example_ids[number]), history, barred)

    def _vectors(self) -> ContentVectors:
        if self._content is None:
            folder, config = self._settings.embedded, self._settings.embedding
            items = read_vectors(folder / ITEMS, "item", self._inputs.items["item_id"].to_pylist())
            ids = [str(example) for example in self._inputs.held_out.example_ids.tolist()]
            summaries = read_vectors(folder / USERS, "user", ids)
            places = {example: place for place, example in enumerate(ids)}

            def of_users(users: Sequence[RetrievalUser]) -> Vectors:
                return summaries[[places[one.id] for one in users]]

            self._content = ContentVectors(items, of_users, config.users, config.search)
        return self._content


def hits_of(choices: CatalogueChoices, lists: tuple[Rows, Integers]) -> Integers:
    """Return how many targets of each user are on the user's list (users,)."""
    offsets, found = lists
    owner = np.repeat(np.arange(choices.users), np.diff(offsets))
    own = np.sort(choices.owners * choices.items + choices.targets)
    hit = contains(own, owner * choices.items + found)
    return np.bincount(owner[hit], minlength=choices.users).astype(np.int64)


def write_recalls(held_out: HeldOut, choices: CatalogueChoices, hits: Mapping[str, Integers], path: Path) -> None:
    """Write RETRIEVER_RECALLS: of every retriever, how many targets of each user it found."""
    targets = np.diff(choices.target_offsets)
    tables = [
        pa.table({"example_id": held_out.example_ids, "retriever": [name] * len(found), "found": found,
                  "targets": targets})
        for name, found in hits.items()
    ]  # fmt: skip
    write_table(pa.concat_tables(tables), RETRIEVER_RECALLS, path)


def read_recalls(folder: Path) -> dict[str, Floats]:
    """Return the recall of each user (users,), by retriever, in the order written."""
    table = read_table(folder / RECALLS, RETRIEVER_RECALLS)
    names = np.asarray(table["retriever"].to_pylist())
    recall = table["found"].to_numpy() / table["targets"].to_numpy()
    return {str(name): recall[names == name] for name in dict.fromkeys(names.tolist())}
