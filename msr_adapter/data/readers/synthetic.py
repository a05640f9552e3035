"""The synthetic dataset as a source: its log, its titles, and the dataset itself for images and true preferences."""

import polars as pl
import pyarrow as pa

from msr_adapter.config.schema import SyntheticSourceConfig
from msr_adapter.data.audit.recognition import Recognition
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.attribute_values import ATTRIBUTE
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.errors import Problem, UserError
from msr_adapter.synthetic import Shopping, SyntheticDataset, generate


def read_synthetic(source: SyntheticSourceConfig, context: ReadContext) -> Corpus:
    """Generate the dataset from the seed; `UserError` when its numbers do not go together."""
    try:
        sizes = source.users, source.items, source.interactions_per_user
        shopping = Shopping(source.drift, source.offered, source.attributes, source.second_image)
        dataset = generate(*sizes, source.noise, context.seed, shopping)
    except ValueError as error:
        next_step = "Lower interactions_per_user or raise items"
        raise UserError(Problem("", "data.source.interactions_per_user", str(error), "", next_step)) from error
    names = {"user": "user_id", "item": "item_id", "timestamp": "timestamp"}
    context.audit.recognise(Recognition("the synthetic log", names, dataset.interactions.num_rows, "drawn"))
    return Corpus(_frame(dataset.interactions).lazy(), _items(dataset, context.audit), dataset)


def check_synthetic(source: SyntheticSourceConfig) -> list[Problem]:
    """Return nothing: there are no files, and generating is the only check of the numbers."""
    return []


def _items(dataset: SyntheticDataset, audit: Audit) -> pl.DataFrame:
    """Return the items with the columns that templates may say, as other readers do."""
    frame = _frame(dataset.items)
    if audit.attributes:
        known = [name for name in frame.columns if name not in ("item_id", "title")]
        lacking = sorted(set(audit.attributes.values()) - set(known))
        if lacking:
            found = f"{', '.join(lacking)}: synthetic items have {' and '.join(known) or 'a title and an image alone'}"
            step = "" if known else "Set data.source.attributes: true"
            raise UserError(Problem("", "data.items.attributes", found, "price, brand", step))
    made = [pl.col(column).alias(f"{ATTRIBUTE}{name}") for name, column in audit.attributes.items()]
    return frame.select("item_id", "title", *made)


def _frame(table: pa.Table) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame
