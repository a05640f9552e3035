"""The generated shop as a source: its log, its titles, and the shop itself for covers and true tastes."""

import polars as pl
import pyarrow as pa

from msr_adapter.config.schema import SyntheticSourceConfig
from msr_adapter.data.log import Corpus
from msr_adapter.errors import Problem, UserError
from msr_adapter.synthetic import generate


def read_synthetic(source: SyntheticSourceConfig, seed: int) -> Corpus:
    """Generate the shop; `UserError` when its numbers do not fit together."""
    try:
        shop = generate(source.users, source.items, source.interactions_per_user, source.noise, seed)
    except ValueError as error:
        next_step = "Lower interactions_per_user or raise items"
        raise UserError(Problem("", "data.source.interactions_per_user", str(error), "", next_step)) from error
    return Corpus(_frame(shop.interactions).lazy(), _frame(shop.items), shop)


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
