"""What score stages wrote, whatever question was asked: log-odds of Yes, or log-likelihood ratios of texts.

And what is kept of it for training negatives.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.arrays import Floats
from msr_adapter.filesystem import require_file
from msr_adapter.schema import RATIOS, SCORES, read_table

MINED = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),  # log-odds of Yes, or a text's log-likelihood ratio
    ]
)
"""What an earlier run's model says of items that training users never interacted with, grouped by user: training
negatives are drawn among the highest."""


def read_model_scores(path: Path) -> pa.Table:
    """Read SCORES, or RATIOS where a text answered the question; `DamagedFileError` for anything else."""
    try:
        require_file(path)
        asked_text = "ratio" in pq.read_schema(path).names
    except (OSError, pa.ArrowException):
        asked_text = False  # what is wrong with the file is told by whoever reads all of it
    return read_table(path, RATIOS if asked_text else SCORES)


def ranking_scores(table: pa.Table) -> Floats:
    """Return what ranks the rows of `read_model_scores`, (rows,): log-odds of Yes, or log-likelihood ratios."""
    column = table["ratio" if "ratio" in table.column_names else "logit"]
    return np.asarray(column.to_numpy(), dtype=np.float64)


def shown_scores(table: pa.Table) -> tuple[Floats, Floats, Floats]:
    """Return what users are shown of rows of `read_model_scores`: score, log-odds, whether bounds; each (rows,).

    A log-likelihood ratio is a score without log-odds: NaN.
    """
    if "ratio" in table.column_names:
        ratio = ranking_scores(table)
        return ratio, np.full(len(ratio), np.nan), np.zeros(len(ratio))
    score, logit, bounded = (table[name].to_numpy().astype(np.float64) for name in ("score", "logit", "bounded"))
    return score, logit, bounded
