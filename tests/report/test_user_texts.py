"""What the report shows of a user summary: how it grew, and at the end the text that prompts had."""

from pathlib import Path

import pyarrow as pa
import pytest

from msr_adapter import schema
from msr_adapter.report.report_context import ReportContext
from msr_adapter.report.user_texts import SummaryStep, read_user_texts
from tests.support.tiny_run import write_upstream


def write(folder: Path, name: str, rows: list[dict[str, object]], kind: pa.Schema) -> None:
    folder.mkdir(exist_ok=True)
    schema.write_table(pa.Table.from_pylist(rows, kind), kind, folder / name)


@pytest.mark.parametrize(("truncated", "last"), [(False, "all of it"), (True, "all")])
def test_the_last_text_is_the_one_that_the_model_read(tmp_path: Path, truncated: bool, last: str) -> None:
    made = write_upstream(tmp_path)
    steps = [("part", 1), ("all of it", 2)]
    rows: list[dict[str, object]] = [{"example_id": 0, "step": number, "items_read": read, "summary": text}
            for number, (text, read) in enumerate(steps, 1)]  # fmt: skip
    write(made.users, "steps.parquet", rows, schema.USER_STEPS)
    cut: list[dict[str, object]] = [{"example_id": 0, "summary": "all"}, {"example_id": 1, "summary": "short"}]
    write(tmp_path / "truncate", "users.parquet", cut, schema.USER_SUMMARIES)
    context = ReportContext("x", users_dir=made.users, user_summaries_dir=tmp_path / "truncate" if truncated else None)
    found = read_user_texts([0, 1], [], made.data, context).steps
    assert found[0] == [SummaryStep(1, "part"), SummaryStep(2, last)]
    [only] = found[1]
    assert (only.text == "short") == truncated
