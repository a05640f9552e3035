"""The content of `metrics.json`; docs/metrics.md explains each key. `evaluation` writes it, the report shows it."""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict


class Interval(TypedDict):
    """A mean and the ends of its interval over users."""

    mean: float
    low: float
    high: float


class Difference(Interval):
    """A paired difference, and whether it could be chance."""

    p: float
    """Two-sided, of the paired sign-flip test."""
    p_adjusted: float
    """Adjusted for the number of models that the trained one is compared with."""


class JudgedModel(TypedDict):
    """One model's numbers."""

    metrics: Mapping[str, Interval]
    tied_users: float
    """Share of users whose target ties with a negative."""
    answer_mass: NotRequired[float]
    """Mean p(yes) + p(no); of models that answer in words."""


class CandidateCounts(TypedDict):
    """The candidate lists that all models ranked."""

    rows: int
    targets: int
    smallest: int
    """Candidates of the user who has the fewest."""
    largest: int
    digest: str


class Sampling(TypedDict):
    """What the targets were ranked among."""

    sampled: bool
    """Whether the negatives are some of the items, not all."""
    negatives: float
    """Mean number per user."""
    kinds: Mapping[str, int]
    """Kind of negative -> how many the protocol asks for; empty for all items and for a file's candidates."""
    distribution: str
    """In words."""
    items: int
    """In the catalogue."""
    caution: str
    """What a reader must know of sampled metrics; empty for all items."""


class RetrievalEntry(TypedDict):
    """What was retrieved from the whole catalogue, and how models rank it; a target that is not among it is a miss."""

    retriever: str
    top: int
    """Items retrieved for each user."""
    prompts: int
    """Retrieved items of all users: what each model was asked about."""
    recall: Interval
    """Share of the targets that were retrieved."""
    recalls: Mapping[str, Interval]
    """Retriever of `msr recommend` -> the same, as it retrieves there from what training may know."""
    models: Mapping[str, Mapping[str, Interval]]
    """`trained`, and `base` where it is asked for -> metric -> value."""
    differences: dict[str, Difference]
    """Baseline with a full ranking (and `base`) -> the trained model minus it, paired, in `FullRanking.primary`."""


class FullRanking(TypedDict):
    """Metrics with a cut-off over the whole catalogue, for the same test users and targets."""

    items: int
    """In the catalogue."""
    candidates: float
    """Mean number of items that are ranked for a user: the target and all that the user has not seen."""
    primary: str
    """The metric that differences speak of."""
    models: Mapping[str, Mapping[str, Interval]]
    """Baseline -> metric -> value."""
    chance: Mapping[str, float]
    """Metric -> exact value of a scorer that knows nothing."""
    absent: Mapping[str, str]
    """Baseline without a full ranking -> why."""
    retrieval: RetrievalEntry | None
    """None unless `evaluate.full` asks for it."""


class CalibrationBin(TypedDict):
    """Candidates whose p(yes) lies between two values; bins without any are left out."""

    low: float
    high: float
    count: int
    mean_score: float
    rate: float
    """Share of positives."""


class CalibrationEntry(TypedDict):
    """How far one model's probabilities are right; the numbers are those that the protocol asks for."""

    log_loss: NotRequired[float]
    brier: NotRequired[float]
    ece: NotRequired[float]
    bins: Sequence[CalibrationBin]


class SliceGroup(TypedDict):
    """A group of users and every model's metrics in it."""

    value: str
    users: int
    small: NotRequired[bool]
    """Too few users to trust the interval."""
    models: Mapping[str, Mapping[str, Interval]]


class SliceEntry(TypedDict):
    """One way of dividing the users into groups."""

    name: str
    groups: Sequence[SliceGroup]


class TriedPenalty(TypedDict):
    """One of the penalties that cross-validation chose from."""

    inverse_penalty: float
    left_out_loss: float
    """Mean loss on users who were left out, in nats a row."""


class HybridWeights(TypedDict):
    """One fit."""

    weights: Mapping[str, float]
    """Member -> weight of its scores, which have variance 1 within each list: so weights can be compared."""
    intercept: float
    """It changes no ranking."""
    inverse_penalty: float
    """C of the penalty that cross-validation chose."""
    tried: Sequence[TriedPenalty]


class HybridAblation(TypedDict):
    """A hybrid without some members, fitted anew."""

    fit: HybridWeights
    metrics: Mapping[str, Interval]


class HybridEntry(TypedDict):
    """What `metrics.json` says of the hybrid beside its metrics."""

    users: int
    """Validation users that the weights were fitted on."""
    rows: int
    digest: str
    """Of `hybrid.json`, written before a score of the test was read."""
    fit: HybridWeights
    ablations: Mapping[str, HybridAblation]
    differences: Mapping[str, Difference]
    """Other model or ablation -> the hybrid minus it, paired, in the primary metric; adjusted for their number."""


class TrainingSpreadEntry(TypedDict):
    """How a metric spreads over trainings."""

    deviation: float
    """Standard deviation of the trainings' true means, as far as it is not the users' chance; 0 where none shows."""
    observed: float
    """Standard deviation of the trainings' means as they are."""


class TrainingsEntry(TypedDict):
    """The trainings that `trained` is the mean of."""

    seeds: Sequence[int]
    """Of each training, in order."""
    means: Mapping[str, Sequence[float]]
    """Metric -> its value by each training."""
    spread: Mapping[str, TrainingSpreadEntry]
    needed: Mapping[str, int | None]
    """Other model -> trainings with which a 5% test finds the difference to it, as it is in the primary metric, 80% of
    the time: an estimate; None where more trainings alone would not do."""


class EvaluationFinding(TypedDict):
    """Something that a reader must know before quoting the numbers."""

    severity: str
    """``error``, ``warning`` or ``info``."""
    text: str
    """A sentence; `code` stands between backticks."""


class MetricsFile(TypedDict):
    """The whole of `metrics.json`. Models: `trained`, `base` where it is scored, and the baselines asked for."""

    pipeline: str
    users: int
    seed: int
    primary: str
    """The metric named beforehand, that findings speak of."""
    protocol: Mapping[str, Any]
    """The protocol's settings, as in the config."""
    protocol_digest: str
    candidates: CandidateCounts
    sampling: Sampling
    full: FullRanking | None
    """None where the lists are the whole catalogue, or it is not ranked: a finding says why."""
    models: Mapping[str, JudgedModel]
    chance: Mapping[str, float]
    """Metric -> exact value of a scorer that knows nothing."""
    differences: Mapping[str, Difference]
    """Other model -> the trained one minus it, paired, in the primary metric."""
    smallest_difference: Mapping[str, float]
    """Other model -> smallest true difference to it that the adjusted 5% test detects with 80% power."""
    calibration: Mapping[str, CalibrationEntry]
    slices: Sequence[SliceEntry]
    beyond: Mapping[str, Mapping[str, float]]
    """Model -> ``coverage@k``, ``gini@k``, ``popularity@k``, ``novelty@k``."""
    trainings: NotRequired[TrainingsEntry]
    """There where the model was trained more than once."""
    hybrid: NotRequired[HybridEntry]
    """Of the model `hybrid`; there where `evaluate.hybrid` asks for it."""
    oracle_lift_share: float | None
    """(trained - chance) / (oracle - chance) in the primary metric; None without an oracle above chance."""
    findings: Sequence[EvaluationFinding]
    versions: Mapping[str, str]
    """Library -> version."""
