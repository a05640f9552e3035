"""Scores that do not fit the candidates one to one stop the stage, with counts; no score ever becomes a zero."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from msr_adapter import schema
from msr_adapter.errors import StageError
from msr_adapter.evaluate.candidates import read_held_out
from tests.support.judged_run import SIZE, Run, make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path, users=6)


def _scores(run: Run) -> pa.Table:
    return schema.read_table(run.trained / "scores.parquet", schema.SCORES)


def _replace(run: Run, table: pa.Table) -> None:
    schema.write_table(table, schema.SCORES, run.trained / "scores.parquet")


def _edit_candidates(run: Run, keep: pa.ChunkedArray | pa.Array) -> None:
    table = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES).filter(keep)
    schema.write_table(table, schema.CANDIDATES, run.data / "candidates.parquet")


def _fails(run: Run, *words: str) -> None:
    with pytest.raises(StageError) as caught:
        run.evaluate()
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_missing_scores_are_counted(run: Run) -> None:
    _replace(run, _scores(run).slice(2))
    _fails(run, "'trained'", "2 missing", "--force score")


def test_a_missing_row_in_the_middle_shifts_nothing(run: Run) -> None:
    table = _scores(run)
    _replace(run, pa.concat_tables([table.slice(0, 5), table.slice(6)]))
    _fails(run, "1 missing")


def test_unexpected_and_repeated_scores_are_counted(run: Run) -> None:
    table = _scores(run)
    strange = table.slice(0, 3).set_column(1, schema.SCORES.field("item_id"), pa.array(["x", "y", "z"]))
    _replace(run, pa.concat_tables([table, strange, table.slice(0, 1)]))
    _fails(run, "3 unexpected, 1 repeated")


def test_scores_out_of_order_are_refused(run: Run) -> None:
    table = _scores(run)
    order = np.arange(table.num_rows)
    order[[0, 1]] = [1, 0]
    _replace(run, table.take(pa.array(order)))
    _fails(run, "2 out of order")


@pytest.mark.parametrize("column", ["score", "logit", "answer_mass"])
def test_nan_scores_are_counted(run: Run, column: str) -> None:
    table = _scores(run)
    values = table[column].to_numpy().copy()
    values[[1, 4, 9]] = np.nan
    index = table.schema.get_field_index(column)
    _replace(run, table.set_column(index, schema.SCORES.field(column), pa.array(values)))
    _fails(run, f"NaN among the {6 * SIZE} scores of 'trained': 3 {column}")


def test_an_example_without_a_positive_is_refused(run: Run) -> None:
    table = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES)
    labels = table["label"].to_numpy().copy()
    labels[-SIZE:] = 0
    table = table.set_column(2, schema.CANDIDATES.field("label"), pa.array(labels))
    schema.write_table(table, schema.CANDIDATES, run.data / "candidates.parquet")
    _fails(run, "1 of 6 groups have no positive")


def test_an_example_without_candidates_is_refused(run: Run) -> None:
    table = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES)
    _edit_candidates(run, pc.not_equal(table["example_id"], 7))
    _fails(run, "1 of 6 test examples have no candidates")


def test_an_empty_test_split_is_refused(run: Run) -> None:
    table = schema.read_table(run.data / "examples.parquet", schema.EXAMPLES).slice(0, 5)
    schema.write_table(table, schema.EXAMPLES, run.data / "examples.parquet")
    _fails(run, "the test split is empty")


def test_missing_truth_is_counted(run: Run) -> None:
    table = schema.read_table(run.data / "truth.parquet", schema.TRUTH)
    schema.write_table(table.slice(4), schema.TRUTH, run.data / "truth.parquet")
    _fails(run, "4 candidates have no true score")


def test_an_empty_truth_is_counted(run: Run) -> None:
    schema.write_table(schema.TRUTH.empty_table(), schema.TRUTH, run.data / "truth.parquet")
    _fails(run, f"{6 * SIZE} candidates have no true score")


def test_candidates_that_are_no_item_are_counted(run: Run) -> None:
    table = schema.read_table(run.data / "items.parquet", schema.ITEMS)
    used = _scores(run)["item_id"]
    rows = table.filter(pc.not_equal(table["item_id"], used[0]))
    schema.write_table(rows, schema.ITEMS, run.data / "items.parquet")
    _fails(run, f"{used.to_pylist().count(used[0].as_py())} id", "not in the table of items")


def test_a_baseline_without_scores_is_refused(run: Run) -> None:
    with pytest.raises(StageError, match="no scores of base"):
        run.evaluate(score_dirs={"trained": run.trained})


def test_the_digest_follows_content_and_order(run: Run) -> None:
    first = read_held_out(run.data).digest
    table = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES)
    schema.write_table(
        pa.concat_tables([table.slice(0, 40), table.slice(40)]), schema.CANDIDATES, run.data / "candidates.parquet"
    )
    assert read_held_out(run.data).digest == first
    items = table["item_id"].to_pylist()
    items[-1], items[-2] = items[-2], items[-1]
    table = table.set_column(1, schema.CANDIDATES.field("item_id"), pa.array(items))
    schema.write_table(table, schema.CANDIDATES, run.data / "candidates.parquet")
    assert read_held_out(run.data).digest != first
