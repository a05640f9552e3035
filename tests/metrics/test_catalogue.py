"""The table of metrics: what the config allows are its rows, and every row can be computed."""

from typing import get_args

import numpy as np
import pytest

from msr_adapter.config.schema import ProtocolConfig
from msr_adapter.metrics import (
    METRICS,
    RANKING,
    ExposureMetric,
    MetricName,
    ProbabilityMetric,
    RankingMetric,
    calibrate,
    evaluate_groups,
    expose,
    label,
)

SCORES, LABELS, OFFSETS = [0.9, 0.4, 0.4, 0.7, 0.1], [1, 0, 0, 1, 0], [0, 3, 5]


def test_the_config_allows_exactly_the_rows() -> None:
    names = [row.name for row in METRICS]
    assert names == list(get_args(MetricName))
    assert ProtocolConfig(name="all", metrics=tuple(names)).ranking == RANKING
    assert set(ProtocolConfig(name="default").metrics) <= set(names)


def test_a_ranking_row_has_a_function_for_one_positive_and_for_several_or_a_pooled_one() -> None:
    rows = [row for row in METRICS if isinstance(row, RankingMetric)]
    assert tuple(row.name for row in rows) == RANKING
    for row in rows:
        assert (row.one is None) == (row.several is None) == (row.pooled is not None), row.name


@pytest.mark.parametrize("labels", [LABELS, [1, 0, 1, 1, 0]])
def test_every_ranking_row_is_computed_under_its_name(labels: list[int]) -> None:
    means = evaluate_groups(SCORES, labels, OFFSETS, k=(1, 2)).means()
    wanted = [[f"{row.name}@1", f"{row.name}@2"] if row.at_k else [row.name] for row in METRICS if row.name in RANKING]
    assert list(means) == [name for names in wanted for name in names]


def test_metrics_that_are_the_same_with_one_positive_are() -> None:
    result = evaluate_groups(SCORES, LABELS, OFFSETS, k=(1, 2))
    same = {row.name: row.same_with_one_positive for row in METRICS if isinstance(row, RankingMetric)}
    assert {name: other for name, other in same.items() if other} == {"recall": "hr", "map": "mrr"}
    for name, other in same.items():
        if other:
            assert result.per_user[f"{name}@2"].tolist() == result.per_user[f"{other}@2"].tolist()


def test_the_other_rows_are_numbers_too() -> None:
    calibration = calibrate(SCORES, LABELS)
    exposure = expose(SCORES, OFFSETS, [0, 1, 2, 1, 2], [5, 3, 1], 1)
    for row in METRICS:
        if isinstance(row, ProbabilityMetric):
            assert np.isfinite(row.value(calibration)), row.name
        elif isinstance(row, ExposureMetric):
            assert np.isfinite(row.value(exposure)).all(), row.name


def test_labels_are_as_papers_write_them() -> None:
    names = ("auc", "gauc", "hr@5", "recall@10", "ndcg@1", "log_loss", "gini@3", "stranger@2")
    written = ("AUC", "GAUC", "HR@5", "Recall@10", "NDCG@1", "Log loss", "Gini@3", "stranger@2")
    assert tuple(map(label, names)) == written
