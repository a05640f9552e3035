"""The report's training section: key numbers, the curve of the checkpoints, and what older runs do not tell."""

from typing import Any

import pytest

from msr_adapter.report.figures import training_figures
from msr_adapter.report.training import TrainingCurves, checkpoint_findings, checkpoint_table, training_tiles
from tests.support.judged_run import SELECTION, TRAINED

LOG = TrainingCurves({step: 1 / step for step in range(1, 51)}, {}, {1: 1e-3, 50: 1e-5})


def shown(summary: Any) -> dict[str, tuple[str, str]]:
    return {tile.label: (tile.value, tile.note) for tile in training_tiles(summary)}


def test_the_last_step_is_kept_unless_a_checkpoint_was_chosen() -> None:
    assert shown({"steps": 1300, "first_loss": 0.7, "last_loss": 0.41}) == {
        "Steps": ("1,300", "the last checkpoint is kept"), "Training loss": ("0.410", "from 0.700"),
    }  # fmt: skip
    whole = TRAINED | {"steps": 60, "selection": SELECTION | {"stopped": None}}
    assert shown(whole)["Checkpoint kept"] == ("30", "of 60 steps: best AUC of 5")


def test_what_was_not_measured_is_left_out() -> None:
    assert training_tiles({}) == []
    measured = {"seconds": 5.0, "from_step": 0, "rows_per_second": 0.25, "tokens_per_second": None,
            "trainable_parameters": 7_600_000_000, "parameters": 7_600_000_000, "peak_bytes": 3 * 2**20}  # fmt: skip
    assert shown({"measured": measured}) == {
        "Rows per second": ("0.25", ""), "Parameters trained": ("7.6 billion", "all of them"),
        "Training time": ("5.0 s", "without loading data and model"),
        "Peak memory": ("3 MiB", "of the trainer's largest process"),
    }  # fmt: skip


def test_every_checkpoint_is_a_row_and_the_kept_one_is_marked() -> None:
    table = checkpoint_table(SELECTION)
    assert table is not None
    assert [row.step for row in table.rows] == ["untrained", "10", "20", "30", "40", "50"]
    assert [row.step for row in table.rows if row.kept] == ["30"]
    assert table.rows[3] == ("30", "0.780", ".720 – .830", "0.520", True)
    assert table.users == "30 validation users"
    alone = checkpoint_table(SELECTION | {"users": 1})
    assert alone is not None
    assert alone.users == "1 validation user"
    assert checkpoint_table(None) is None


def test_the_curves_show_the_kept_checkpoint_and_the_untrained_model() -> None:
    figures = {figure.title: str(figure.svg) for figure in training_figures(LOG, TRAINED)}
    assert list(figures) == ["Training loss", "AUC on validation users", "Validation loss", "Learning rate"]
    assert "kept: step 30" in figures["AUC on validation users"]
    assert "untrained" in figures["Validation loss"]
    assert "kept" in figures["Training loss"]


@pytest.mark.parametrize("summary", [{}, {"validation_loss": None}, {"validation_loss": 0.5}])
def test_without_a_choice_there_are_the_trainers_own_curves(summary: dict[str, Any]) -> None:
    figures = {figure.title: str(figure.svg) for figure in training_figures(LOG, summary)}
    assert list(figures) == ["Training loss", "Learning rate"]
    assert ("validation" in figures["Training loss"]) == (summary.get("validation_loss") is not None)


def test_a_choice_may_have_findings() -> None:
    found = [{"severity": "warning", "text": "Training did not help"}]
    assert checkpoint_findings({"selection": SELECTION | {"findings": found}}) == found
    assert checkpoint_findings({}) == []
