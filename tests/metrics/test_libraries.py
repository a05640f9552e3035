"""Metrics against scikit-learn, pytrec_eval and ranx, on random data without ties: there every library must agree."""

import itertools
import warnings
from collections.abc import Mapping

import numpy as np
import pytest
import pytrec_eval
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, ndcg_score, roc_auc_score

from msr_adapter.metrics import calibrate, evaluate_groups

DEPTHS = (1, 5, 10)
_TREC = {"hr": "success", "recall": "recall", "precision": "P", "map": "map_cut", "ndcg": "ndcg_cut"}
_RANX = {"hr": "hit_rate", "recall": "recall", "precision": "precision", "mrr": "mrr", "map": "map", "ndcg": "ndcg"}


@pytest.fixture(params=[1, 6], ids=["one positive", "several"], scope="module")
def drawn(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ragged groups of distinct scores; those of float32 stay distinct too, because trec_eval keeps no more."""
    generator = np.random.default_rng(request.param)
    sizes = generator.integers(request.param + 1, request.param + 20, 150)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    labels = np.zeros(offsets[-1], np.int8)
    for start, size in zip(offsets, sizes, strict=False):
        labels[start + generator.choice(size, generator.integers(1, request.param + 1), replace=False)] = 1
    return generator.permutation(offsets[-1]) / 7.0 - 20, labels, offsets


def as_dicts(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> tuple[dict, dict]:
    """Return (judgements, run) by query and document, as both libraries take them."""
    scores, labels, offsets = drawn
    judged, run = {}, {}
    for user, (a, b) in enumerate(itertools.pairwise(offsets.tolist())):
        judged[f"u{user}"] = {f"d{row}": 1 for row in range(a, b) if labels[row]}
        run[f"u{user}"] = {f"d{row}": float(scores[row]) for row in range(a, b)}
    return judged, run


def _per_user(found: Mapping[str, Mapping[str, float]], name: str) -> list[float]:
    return [found[f"u{user}"][name] for user in range(len(found))]


def test_pytrec_eval(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    judged, run = as_dicts(drawn)
    depths = ",".join(str(k) for k in DEPTHS)
    measures = {f"{name}.{depths}" for name in _TREC.values()} | {"recip_rank", "map"}
    found = pytrec_eval.RelevanceEvaluator(judged, measures).evaluate(run)
    ours = evaluate_groups(*drawn, k=(*DEPTHS, 1000)).per_user
    for name, theirs in _TREC.items():
        for k in DEPTHS:
            assert ours[f"{name}@{k}"] == pytest.approx(_per_user(found, f"{theirs}_{k}"), abs=1e-12), (name, k)
    assert ours["mrr@1000"] == pytest.approx(_per_user(found, "recip_rank"), abs=1e-12)
    assert ours["map@1000"] == pytest.approx(_per_user(found, "map"), abs=1e-12)


def test_scikit_learn(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    scores, labels, offsets = drawn
    ours = evaluate_groups(scores, labels, offsets, k=(5, 1000))
    pieces = [(labels[a:b], scores[a:b]) for a, b in itertools.pairwise(offsets)]
    assert ours.pooled["auc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert ours.per_user["gauc"] == pytest.approx([roc_auc_score(*piece) for piece in pieces], abs=1e-12)
    assert ours.per_user["map@1000"] == pytest.approx([average_precision_score(*piece) for piece in pieces], abs=1e-12)
    ndcg = [ndcg_score([marks], [values], k=5) for marks, values in pieces]
    assert ours.per_user["ndcg@5"] == pytest.approx(ndcg, abs=1e-12)


def test_scikit_learn_on_probabilities() -> None:
    generator = np.random.default_rng(3)
    probabilities = np.concatenate([[0.0, 1.0, 0.0, 1.0], generator.random(5000)])
    labels = np.concatenate([[0, 0, 1, 1], generator.random(5000) < 0.3]).astype(int)
    ours = calibrate(probabilities, labels)
    assert ours.log_loss == pytest.approx(log_loss(labels, probabilities), rel=1e-12)
    assert ours.brier == pytest.approx(brier_score_loss(labels, probabilities), rel=1e-12)


@pytest.mark.slow
def test_ranx(drawn: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """Minutes long, because ranx compiles every metric on first use."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ranx

        judged, run = as_dicts(drawn)
        asked = [f"{name}@{k}" for name in _RANX.values() for k in DEPTHS]
        found = ranx.evaluate(ranx.Qrels(judged), ranx.Run(run), asked, return_mean=False)
    # ranx sorts the queries by name
    order = np.argsort([f"u{user}" for user in range(len(judged))])
    ours = evaluate_groups(*drawn, k=DEPTHS).per_user
    for name, theirs in _RANX.items():
        for k in DEPTHS:
            assert ours[f"{name}@{k}"][order] == pytest.approx(found[f"{theirs}@{k}"], abs=1e-12), (name, k)
