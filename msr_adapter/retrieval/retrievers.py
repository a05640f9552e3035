"""The table of retrievers: what may be named as `--candidates NAME:N`, and what `evaluate.full` measures."""

from collections.abc import Callable
from dataclasses import dataclass

from msr_adapter.config.schema import FusionConfig
from msr_adapter.retrieval.asked_users import Retrieve, RetrieverInputs
from msr_adapter.retrieval.by_content import make_by_content
from msr_adapter.retrieval.fusion import make_fused
from msr_adapter.retrieval.item_knn import make_item_knn
from msr_adapter.retrieval.popular import make_popular


@dataclass(frozen=True)
class Retriever:
    """One row."""

    name: str
    label: str
    """What findings call it, in a sentence."""
    description: str
    """What it retrieves, for the help and the report's reader."""
    make: Callable[[RetrieverInputs, int], Retrieve]
    """Returns what retrieves so many items for each user. O(log) time, once."""
    libraries: tuple[str, ...] = ()
    """Modules that it needs beside those that msr needs itself."""
    content: bool = False
    """Whether it needs vectors of items and users: `RetrieverInputs.content`."""
    fuses: bool = False
    """Whether it needs what the members of `fusion.retrievers` need."""


def _make_fused(inputs: RetrieverInputs, count: int) -> Retrieve:
    return make_fused(inputs, count, [row_of(name).make(inputs, count) for name in inputs.fusion.retrievers])


RETRIEVERS: tuple[Retriever, ...] = (
    Retriever("popular", "popularity", "the most popular items", make_popular),
    Retriever(
        "item-knn", "item-kNN", "items nearest to the user's, by the users whom they share", make_item_knn,
        libraries=("implicit",),
    ),
    Retriever(
        "embedding", "content", "items whose title, image and summary are nearest to the user's summary, or to the "
        "items that the user has", make_by_content, content=True,
    ),
    Retriever(
        "fused", "fusion", "what several of them find, by reciprocal ranks (`fusion`)", _make_fused, fuses=True
    ),
)  # fmt: skip

RETRIEVER_NAMES: tuple[str, ...] = tuple(row.name for row in RETRIEVERS)


def row_of(name: str) -> Retriever:
    """Return the row called ``name``."""
    return next(row for row in RETRIEVERS if row.name == name)


def members(name: str, fusion: FusionConfig) -> tuple[Retriever, ...]:
    """Return the rows that retrieve where ``name`` is asked for: itself, or those that it fuses."""
    row = row_of(name)
    return tuple(map(row_of, fusion.retrievers)) if row.fuses else (row,)


def needs_content(name: str, fusion: FusionConfig) -> bool:
    """Return whether vectors of items and users are needed where ``name`` is asked for."""
    return any(row.content for row in members(name, fusion))
