"""Fitted baselines on weighed events: equal to no weights where all are 1, and by the formula where they are not."""

import numpy as np
import pytest

from msr_adapter.config.schema import FactorsConfig, ItemKNNConfig
from msr_adapter.evaluate.baselines.collaborative import _confident, fit_factors, fit_item_knn
from msr_adapter.evaluate.baselines.training_log import BaselineLog, Fit, Queries

pytest.importorskip("implicit")
pytest.importorskip("scipy")


def log_of(weight: np.ndarray | None) -> BaselineLog:
    draw = np.random.default_rng(3)
    pairs = np.unique(draw.integers(30, size=200) * 12 + draw.integers(12, size=200))
    chosen = None if weight is None else weight[: len(pairs)]
    return BaselineLog(pairs // 12, pairs % 12, np.arange(len(pairs)), 30, 12, chosen)


def queries(weight: np.ndarray | None) -> Queries:
    return Queries(np.array([1, 4, 7, 2]), np.array([0, 3, 4]), np.arange(2), np.array([0, 1, 2]), weight)


@pytest.mark.parametrize("fit", [fit_item_knn, fit_factors])
def test_weights_of_one_are_no_weights(fit: object) -> None:
    settings = ItemKNNConfig() if fit is fit_item_knn else FactorsConfig(factors=4)
    plain = fit(Fit(log_of(None), 0), settings)(queries(None), 0, 2)  # type: ignore[operator]
    weighed = fit(Fit(log_of(np.ones(200)), 0), settings)(queries(np.ones(4)), 0, 2)  # type: ignore[operator]
    np.testing.assert_allclose(weighed, plain, rtol=1e-5, atol=1e-7)
    light = fit(Fit(log_of(np.tile([0.2, 1.0], 100)), 0), settings)(queries(np.array([0.2, 1, 0, 1])), 0, 2)  # type: ignore[operator]
    assert not np.allclose(light, plain, rtol=1e-3)


def test_item_knn_scores_are_weighed_sums_of_weighed_cosines() -> None:
    weight = np.tile([0.2, 1.0, 0.5], 70)
    log, history = log_of(weight), np.array([0.2, 1.0, 0.5, 1.0])
    found = fit_item_knn(Fit(log, 0), ItemKNNConfig(neighbours=12, damping=0))(queries(history), 0, 2)
    dense = np.zeros((30, 12))
    dense[log.user, log.item] = log.weight
    unit = dense / np.sqrt((dense**2).sum(axis=0))
    cosines = unit.T @ unit
    expected = [0.2 * cosines[1] + cosines[4] + 0.5 * cosines[7], cosines[2]]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_confidences_go_from_that_of_nothing_to_that_without_weights() -> None:
    from scipy.sparse import csr_matrix

    columns = (np.zeros(4, int), np.arange(4))  # what counts nothing is an entry all the same
    weights = csr_matrix((np.array([0, 0.2, 1, 2], np.float32), columns), shape=(1, 4))
    assert weights.nnz == 4
    found = _confident(weights, 40.0)
    # The library multiplies by alpha, and what has no entry has a confidence of 1.
    assert (40 * found.toarray()[0, 1:]).tolist() == pytest.approx([1 + 39 * 0.2, 40, 1 + 39 * 2])
    assert found.nnz == 3
