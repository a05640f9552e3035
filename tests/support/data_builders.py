"""Small logs for the tests of the data stage, written to files and built whole."""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from hypothesis import strategies as st

from msr_adapter import event_schemas, schema
from msr_adapter.config.schema import (
    DataConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
    TrainNegativesConfig,
)
from msr_adapter.data import BuildInputs, build
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.build import DataFacts
from msr_adapter.data.interaction_log import Log, encode
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job

Row = tuple[str, str, int]


@dataclass(frozen=True)
class Built:
    """What a build left behind."""

    out: Path
    result: DataFacts

    def rows(self, name: str) -> list[dict[str, Any]]:
        known = getattr(schema, name.upper(), None) or getattr(event_schemas, name.upper())
        return schema.read_table(self.out / f"{name}.parquet", known).to_pylist()

    @property
    def audit(self) -> dict[str, Any]:
        return json.loads((self.out / "audit.json").read_text(encoding="utf-8"))

    @property
    def counts(self) -> dict[str, int]:
        return self.result["counts"]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def log_of(rows: Sequence[Row]) -> Log:
    return encode(corpus_of(rows), Audit())


def corpus_of(rows: Sequence[Row], titles: dict[str, str] | None = None) -> Corpus:
    columns = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    table = None
    if titles is not None:
        table = pl.DataFrame({"item_id": list(titles), "title": list(titles.values())})
    return Corpus(pl.DataFrame(list(rows), schema=columns, orient="row").lazy(), table)


def pairs_of(log: Log) -> list[tuple[str, str]]:
    users, items = log.users.to_list(), log.items.to_list()
    return [(users[u], items[i]) for u, i in zip(log.user, log.item, strict=True)]


def random_rows(users: int, items: int, length: int, seed: int = 0) -> list[Row]:
    """Return ``length`` distinct items for every user, all times distinct."""
    rng = np.random.default_rng(seed)
    chosen = [(f"u{u:03}", f"i{i:03}") for u in range(users) for i in rng.permutation(items)[:length]]
    return [(user, item, 1_000_000 + row) for row, (user, item) in enumerate(chosen)]


def table_data(folder: Path, rows: Sequence[Row], titles: dict[str, str] | None = None, **settings: Any) -> DataConfig:
    """Write rows (and titles) as csv and return the config that reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    log = write_csv(folder / "log.csv", ["user", "item", "timestamp"], rows)
    items = None if titles is None else write_csv(folder / "items.csv", ["item", "title"], titles.items())
    return DataConfig(source=TableSourceConfig(kind="table", interactions=log, items=items), **settings)


def build_in(
    folder: Path, data: DataConfig, split: SplitConfig | None = None, negatives: int | ProtocolConfig = 3, *,
    seed: int = 0, reporter: Reporter | None = None, image_cache: Path | None = None,
    train: TrainNegativesConfig | None = None,
) -> Built:  # fmt: skip
    out = folder / "out"
    out.mkdir(parents=True)
    given = isinstance(negatives, ProtocolConfig)
    protocol = negatives if given else ProtocolConfig(name="test", negatives=NegativesConfig(count=negatives))
    inputs = BuildInputs(data, split or SplitConfig(), protocol, train or TrainNegativesConfig(count=1))
    return Built(out, build(inputs, Job(out, reporter or Reporter(quiet=True), seed), image_cache))


@st.composite
def logs(draw: st.DrawFn, max_users: int = 8, max_items: int = 10, max_rows: int = 60) -> list[Row]:
    """Draw a log with repeated pairs, single interactions and distinct times."""
    pair = st.tuples(st.integers(0, max_users - 1), st.integers(0, max_items - 1))
    pairs = draw(st.lists(pair, min_size=1, max_size=max_rows))
    times = draw(st.permutations(range(len(pairs))))
    return [(f"u{u}", f"i{i}", 10 * time) for (u, i), time in zip(pairs, times, strict=True)]
