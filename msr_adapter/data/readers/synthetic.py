"""The synthetic dataset as a source: its log, its titles, and the dataset itself for images and true preferences."""

import polars as pl
import pyarrow as pa

from msr_adapter.config.schema import SyntheticSourceConfig
from msr_adapter.data.audit.recognition import Recognition
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.errors import Problem, UserError
from msr_adapter.synthetic import Shopping, generate


def read_synthetic(source: SyntheticSourceConfig, context: ReadContext) -> Corpus:
    """Generate the dataset from the seed; `UserError` when its numbers do not go together."""
    try:
        sizes = source.users, source.items, source.interactions_per_user
        dataset = generate(*sizes, source.noise, context.seed, Shopping(source.drift, source.offered))
    except ValueError as error:
        next_step = "Lower interactions_per_user or raise items"
        raise UserError(Problem("", "data.source.interactions_per_user", str(error), "", next_step)) from error
    names = {"user": "user_id", "item": "item_id", "timestamp": "timestamp"}
    context.audit.recognise(Recognition("the synthetic log", names, dataset.interactions.num_rows, "drawn"))
    return Corpus(_frame(dataset.interactions).lazy(), _frame(dataset.items), dataset)


def check_synthetic(source: SyntheticSourceConfig) -> list[Problem]:
    """Return nothing: there are no files, and generating is the only check of the numbers."""
    return []


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
