"""The validation users on whose candidates a hybrid weighs the trained model: drawn, and written as candidates."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.candidate_rows import read_examples
from msr_adapter.errors import Problem, UserError
from msr_adapter.seeded_random import draw


def write_weighing_candidates(data_dir: Path, out: Path, wanted: int, seed: int) -> int:
    """Write CANDIDATES of at most ``wanted`` validation users into ``out``; return how many users these are.

    Whoever wants more gets the same users and others, so that their answers are known. Raises `UserError` without any.
    Memory: their rows.
    """
    drawn = draw(np.asarray(read_examples(data_dir, "validation"), np.int64), wanted, seed)
    if not len(drawn):
        found, step = "the split has no validation users", "Give it a validation part, or set evaluate.hybrid: null"
        raise UserError(Problem("", "evaluate.hybrid", found, "its weights are fitted on validation users", step))
    chunks = schema.read_chunks(data_dir / "candidates.parquet", schema.CANDIDATES)
    kept = pa.concat_tables(chunk.filter(pc.is_in(chunk["example_id"], value_set=pa.array(drawn))) for chunk in chunks)
    schema.write_table(kept, schema.CANDIDATES, out / "candidates.parquet")
    return len(drawn)
