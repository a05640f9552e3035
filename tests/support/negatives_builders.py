"""Candidates of small logs under any negatives, split and chunk, as sets of names."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

from msr_adapter.arrays import Rows
from msr_adapter.config.schema import NegativesConfig, ProtocolConfig, SplitConfig, TrainNegativesConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import Examples, make_examples
from msr_adapter.data.interaction_log import Log, degree
from msr_adapter.data.negatives.candidates import CHUNK, MOST_ROWS, Candidates, DrawInputs, draw_candidates
from msr_adapter.data.negatives.pools import ItemStatistics
from msr_adapter.data.negatives.sampler import ROUNDS
from msr_adapter.data.negatives.spec import Shortages, make_list_specs
from msr_adapter.data.splits import known_to_training
from msr_adapter.schema import candidates_digest
from tests.support.data_builders import Row, log_of

LAST_OUT = SplitConfig(kind="leave-last-out")

Groups = dict[tuple[str, str], list[tuple[str, int]]]
"""(user, target) -> [(item, label), ...] in order."""


def digest_of(log: Log, drawn: Candidates) -> str:
    """Identify the lists of all splits, training too."""
    items = log.items.gather(drawn.item).to_arrow().cast(pa.string())
    columns = {"example_id": pa.array(drawn.example), "label": pa.array(drawn.label), "item_id": items}
    return candidates_digest(lambda name: [columns[name]])


@dataclass(frozen=True)
class Drawn:
    """What a draw was given and gave."""

    log: Log
    examples: Examples
    popularity: Rows
    candidates: Candidates
    shortages: Shortages
    audit: Audit

    @property
    def digest(self) -> str:
        return digest_of(self.log, self.candidates)

    def groups(self, split: int | None = None) -> Groups:
        names, items = self.log.users.to_list(), self.log.items.to_list()
        table: Groups = {}
        rows = zip(self.candidates.example, self.candidates.item, self.candidates.label, strict=True)
        for example, item, label in rows:
            if split in (None, self.examples.split[example]):
                key = names[self.examples.user[example]], items[self.log.item[self.examples.target[example]]]
                table.setdefault(key, []).append((items[item], int(label)))
        return table

    def negatives(self, split: int | None = None) -> dict[tuple[str, str], list[str]]:
        return {key: [item for item, label in group if not label] for key, group in self.groups(split).items()}

    def popularity_of(self) -> dict[str, int]:
        return dict(zip(self.log.items.to_list(), self.popularity.tolist(), strict=True))


def draw(
    rows: Sequence[Row] | Log,
    test: NegativesConfig,
    train: TrainNegativesConfig | None = None,
    *,
    seed: int = 0,
    split: SplitConfig = LAST_OUT,
    chunk: int = CHUNK,
    categories: dict[str, str] | None = None,
    target: str = "last",
    popularity: Rows | None = None,
    rounds: int = ROUNDS,
    most_rows: int = MOST_ROWS,
    mined: Path | None = None,
) -> Drawn:
    log = rows if isinstance(rows, Log) else log_of(rows)
    examples = make_examples(log, split, seed, target)
    if popularity is None:
        popularity = degree(log.item[known_to_training(log, split, examples.held_out, seed)], len(log.items))
    category = pl.Series([(categories or {}).get(item) for item in log.items], dtype=pl.String)
    protocol, audit, shortages = ProtocolConfig(name="test", negatives=test), Audit(), Shortages()
    known = ItemStatistics(log.items, popularity, category)
    specs = make_list_specs(protocol, train or TrainNegativesConfig(count=1), log, known, audit, mined)
    inputs = DrawInputs(log, examples, specs, seed, rounds=rounds, most_rows=most_rows)
    drawn = draw_candidates(inputs, shortages, chunk)
    return Drawn(log, examples, popularity, drawn, shortages, audit)


def skewed_rows(users: int, items: int, length: int, seed: int = 0, skew: float = 1.0) -> list[Row]:
    """Return distinct items for every user, low numbers more popular; all times distinct."""
    rng = np.random.default_rng(seed)
    weight = np.arange(1.0, items + 1) ** -skew
    chosen = [
        (f"u{u:03}", f"i{i:03}")
        for u in range(users)
        for i in rng.choice(items, length, replace=False, p=weight / weight.sum())
    ]
    return [(user, item, 1_000 + row) for row, (user, item) in enumerate(chosen)]
