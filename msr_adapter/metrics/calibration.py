"""Are the probabilities true? Log loss, Brier score, and the calibration error with its reliability table."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msr_adapter.arrays import Floats, Integers
from msr_adapter.metrics.groups import CHUNK_SCORES, require_binary

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Averages over candidates, not over users: every probability is one forecast."""

    log_loss: float
    """Mean of ``-log p`` of what happened, natural logarithm (Good, 1952)."""
    brier: float
    """Mean of ``(p - label) ** 2`` (Brier, 1950)."""
    ece: float
    """Expected calibration error: mean |rate - mean p| over bins of equal width, weighted by count
    (Naeini et al., AAAI 2015)."""
    edges: Floats
    """(bins + 1,): bin ``b`` is ``edges[b] <= p < edges[b + 1]``, the last one includes 1."""
    counts: Integers
    """Candidates per bin (bins,)."""
    mean_scores: Floats
    """Mean probability per bin (bins,); NaN where a bin is empty."""
    rates: Floats
    """Share of positives per bin (bins,); NaN where a bin is empty."""


def calibrate(probabilities: npt.ArrayLike, labels: npt.ArrayLike, bins: int = BINS) -> Calibration:
    """Compare ``probabilities`` (n,) in [0, 1] with 0/1 ``labels`` (n,).

    Probabilities of exactly 0 and 1 are moved inside by float64's epsilon for the log loss, as scikit-learn does.
    O(n) time; memory beside input is one chunk. Raises ValueError outside [0, 1], on labels other than 0 and 1, and on
    arrays that do not fit.
    """
    values, marks = np.asarray(probabilities), np.asarray(labels)
    if values.ndim != 1 or values.shape != marks.shape or not len(values):
        raise ValueError(f"probabilities of shape {values.shape} and labels of shape {marks.shape} do not fit")
    if not (values.min() >= 0 and values.max() <= 1):  # also false for NaN
        raise ValueError("probabilities outside [0, 1]")
    require_binary(marks)
    sums = np.zeros((3, bins))  # count, sum of probabilities, positives
    loss = squares = 0.0
    for start in range(0, len(values), CHUNK_SCORES):
        part = values[start : start + CHUNK_SCORES].astype(np.float64, copy=False)
        positive = marks[start : start + CHUNK_SCORES] != 0
        of_truth = np.where(positive, part, 1 - part)
        loss -= float(np.log(np.maximum(of_truth, np.finfo(np.float64).eps)).sum())
        squares += float(np.square(1 - of_truth).sum())
        # A probability of 1 belongs to the last bin.
        index = np.minimum((part * bins).astype(np.intp), bins - 1)
        for row, weights in enumerate((None, part)):
            sums[row] += np.bincount(index, weights, minlength=bins)
        sums[2] += np.bincount(index[positive], minlength=bins)
    return _summary(sums, loss / len(values), squares / len(values))


def _summary(sums: Floats, log_loss: float, brier: float) -> Calibration:
    counts = sums[0]
    with np.errstate(invalid="ignore"):
        means, rates = sums[1] / counts, sums[2] / counts
    ece = float(np.abs(sums[2] - sums[1]).sum() / counts.sum())
    edges = np.arange(len(counts) + 1) / len(counts)
    return Calibration(log_loss, brier, ece, edges, counts.astype(np.int64), means, rates)
