"""What "good" means, and what the trained model is compared with."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from msr_adapter.config.schema.base import Count, StrictModel, allowed
from msr_adapter.config.schema.baselines import FactorsConfig, GridConfig, ItemKNNConfig, SASRecConfig
from msr_adapter.config.schema.model import ModelConfig
from msr_adapter.config.schema.negatives import NegativesConfig
from msr_adapter.metrics import METRICS, RANKING, MetricName


class ConfidenceConfig(StrictModel):
    """Intervals over users, and tests of differences on the same users."""

    level: float = Field(0.95, gt=0, lt=1)
    """Coverage of the intervals."""
    samples: int = Field(10_000, ge=100, le=1_000_000)
    """Random sign patterns of the permutation tests; the smallest p-value is 1 / (samples + 1)."""


SliceName = Literal["history", "popularity", "cold", "repeat", "image", "category", "time"]


class ColdItemsConfig(StrictModel):
    """Items that are held out of training entirely: test targets are these alone."""

    kind: Literal["drawn", "new"] = "drawn"
    """drawn: by the seed, among all items of the log. new: those that first appear when training has ended, under
    `split.kind: temporal`."""
    share: float = Field(0.1, gt=0, lt=1)
    """Read by `drawn`: the share of the items."""
    items: Count | None = None
    """Read by `drawn`: so many, and not a share."""


class ProtocolConfig(StrictModel):
    """What "good" means: one file in `eval/`."""

    name: str
    """Default: the file's name."""
    target: Literal["last", "most-popular-last"] = "last"
    """The item that is to be found. last: the user's last by time. most-popular-last: the latest of the user's 6
    globally most popular items, the others being the history: as in the published MicroLens code, kept to reproduce it
    (popularity alone nearly solves it)."""
    negatives: NegativesConfig = Field(NegativesConfig(), json_schema_extra=allowed("a count, or a mapping"))
    """What the target is ranked among."""
    catalogue: Literal["seen", "all"] = "seen"
    """Which items validation and test lists and full rankings may have. seen: those of the log. all: those of the table
    of items that nobody interacted with too. Training lists have none of the latter: such an item could only be a
    negative there, which would teach that new means no."""
    cold: ColdItemsConfig | None = None
    """Holds items out of training with all of their interactions; each test user's last of them is the target, and
    histories have none. `negatives: {kind: popularity-matched}` sets it against items that training never saw, kind
    `uniform` among all. null: no item is held out."""
    candidates: Path | None = None
    """Test candidates of a file, used as they are: nothing is drawn for the test. `.parquet`, `.csv` or RecBole's
    `.inter` with user_id, item_id and label; any other suffix: Elliot's text, `('user',)<TAB>negative<TAB>...` line by
    line."""
    metrics: tuple[MetricName, ...] = (
        "auc", "gauc", "hr", "recall", "mrr", "ndcg",
        "log_loss", "brier", "ece", "coverage", "gini", "popularity", "novelty",
    )  # fmt: skip
    """auc: pooled over users; gauc: mean of per-user AUCs; hr .. ndcg: cut off at each `k`; log_loss, brier, ece: of
    the probabilities; coverage .. novelty: of the items in the first `k` places. docs/metrics.md has every formula."""
    k: tuple[Count, ...] = (3, 5, 10)
    """Cut-offs of the ranking metrics."""
    primary: str | None = Field(
        None, json_schema_extra=allowed("null, or a ranking metric, with a cut-off of `k` or without: ndcg@10, ndcg")
    )
    """The metric that is named beforehand: it leads the report, findings and differences speak of it, and comparisons
    test it first. Without a cut-off: at 10 where `k` has it, else at the last `k`. null: ndcg, else gauc, else the
    first that ranks."""
    ties: Literal["expected"] = "expected"
    """Ties count with their expected value over all tie orders."""
    confidence: ConfidenceConfig = ConfidenceConfig()
    """Intervals over users."""
    slices: tuple[SliceName, ...] = ("history", "popularity", "cold", "repeat", "image", "category", "time")
    """Parts of the users that are judged apart: by history length; by the target's popularity (head, mid, tail), by
    whether training saw it, whether the user had it before (`data.repeats`), whether it has an image, its category, its
    time. They change no other number."""

    @field_validator("metrics")
    @classmethod
    def _one_metric_ranks(cls, metrics: tuple[MetricName, ...]) -> tuple[MetricName, ...]:
        if not set(metrics) & set(RANKING):
            raise ValueError(f"no metric that ranks; at least one of {', '.join(RANKING)} is needed")
        return metrics

    @field_validator("k")
    @classmethod
    def _there_is_a_cut_off(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        if not k:
            raise ValueError("no cut-off; at least one is needed, such as [5]")
        return k

    @model_validator(mode="after")
    def _the_primary_metric_is_judged(self) -> "ProtocolConfig":
        if self.primary is not None and self._cut(self.primary) not in self.ranked:
            known = ", ".join(self.ranked)
            raise ValueError(
                f"primary: {self.primary} is not among the metrics at these k, which are {known}; name one"
            )
        return self

    @property
    def ranking(self) -> tuple[str, ...]:
        """The ranking metrics among `metrics`, in their order."""
        return tuple(name for name in self.metrics if name in RANKING)

    @property
    def ranked(self) -> tuple[str, ...]:
        """The same with their cut-offs: ``auc``, ``hr@3``, ``hr@5``, ..."""
        cut = {row.name for row in METRICS if row.at_k}
        return tuple(
            key for name in self.ranking
            for key in ([f"{name}@{depth}" for depth in self.k] if name in cut else [name])
        )  # fmt: skip

    @property
    def cut(self) -> tuple[str, ...]:
        """Those of `ranked` that have a cut-off."""
        return tuple(name for name in self.ranked if "@" in name)

    @property
    def primary_metric(self) -> str:
        """`primary`, or what null stands for."""
        wanted = ([] if self.primary is None else [self.primary]) + ["ndcg", "gauc"]
        return next((name for name in map(self._cut, wanted) if name in self.ranked), self.ranked[0])

    def _cut(self, metric: str) -> str:
        """Give a metric without a cut-off its own."""
        at_k = metric in {row.name for row in METRICS if row.at_k}
        return f"{metric}@{10 if 10 in self.k else self.k[-1]}" if at_k else metric


BaselineName = Literal["random", "popularity", "recency", "title-overlap", "item-knn", "mf", "sasrec", "base"]
"""The baselines that a pipeline may ask for: rows of `evaluate.baselines.catalogue`."""


class SliceTablesConfig(StrictModel):
    """Tables of your own: each column is a slice. csv, tsv or parquet."""

    items: Path | None = None
    """One row per item, with a column `item_id`; users are grouped by their target's row."""
    users: Path | None = None
    """One row per user, with a column `user_id`."""


RetrieverName = Literal["popularity", "item-knn", "mf", "sasrec", "embedding", "fused"]
"""Who may retrieve: rows of `evaluate.baselines.catalogue` with a full ranking, and of `retrieval.retrievers`."""
ComparedName = Literal["popular", "item-knn", "embedding", "fused"]
"""The retrievers of `msr recommend`: rows of `retrieval.retrievers`."""


class FullConfig(StrictModel):
    """Retrieve and rerank: a baseline finds items in the whole catalogue, the trained model ranks them."""

    retriever: RetrieverName = "item-knn"
    """Who retrieves. popularity to sasrec: fitted to the training log and tuned as the baselines are; it need not be
    one of `baselines`. embedding, fused: as `msr recommend` retrieves, by the keys `embedding` and `fusion`, with the
    test users' summaries or histories and what training may know."""
    top: Count = 200
    """Items retrieved for each test user among those that the user has not seen: so many prompts a user. A target that
    is not among them is a miss."""
    compare: tuple[ComparedName, ...] = Field(
        (), json_schema_extra=allowed("a list of popular, item-knn, embedding, fused")
    )
    """Retrievers of `msr recommend` whose recall among `top` items is told beside; popular, `retriever` and what it
    fuses are in any case. They retrieve as they do there, not tuned, from what training may know."""
    base: bool = False
    """Whether the recommender before fine-tuning ranks them too, which doubles the prompts; `baselines` names `base`
    then."""


HybridMember = Literal["trained", "popularity", "recency", "title-overlap", "item-knn", "mf", "sasrec"]
"""What a hybrid may weigh: the trained model, and rows of `evaluate.baselines.catalogue` that know the candidates."""


class HybridConfig(StrictModel):
    """One ranking of what several models say: a logistic regression over their scores."""

    of: tuple[HybridMember, ...]
    """Its members, such as [trained, item-knn, popularity]. Baselines among them are fitted and judged as those of
    `baselines` are. Each member's scores are standardised within a candidate list."""
    users: int = Field(500, ge=1, le=2_000)
    """Validation users that the weights are fitted on, at most: the trained model is asked about their candidates
    too."""

    @field_validator("of")
    @classmethod
    def _there_is_something_to_weigh(cls, of: tuple[str, ...]) -> tuple[str, ...]:
        if len(of) < 2:
            raise ValueError(f"{len(of)} member; there is nothing to weigh, at least two are needed")
        if len(set(of)) < len(of):
            raise ValueError("a member may stand only once")
        return of


class SweepRecordConfig(StrictModel):
    """How the settings of this pipeline were searched for: `msr sweep` writes it, the findings say it."""

    trials: Count
    """Settings that were trained and compared."""
    metric: str
    """What they were compared by."""
    users: Count
    """Validation users who were asked."""


class EvaluateConfig(StrictModel):
    """How the trained model is judged."""

    protocol: ProtocolConfig = Field(json_schema_extra=allowed("a protocol's name, its path, or the protocol itself"))
    """Keys of its own are laid over the protocol that an `extends:` parent names."""
    baselines: tuple[BaselineName, ...] = ("random", "popularity", "base")
    """`base` is the recommender before fine-tuning; `item-knn`, `mf` and `sasrec` learn from the training log and need
    the extra `baselines`. A synthetic dataset adds the oracle by itself, `data.repeats: keep` adds `repeat`."""
    full: FullConfig | None = Field(None, json_schema_extra=allowed("null, or a mapping"))
    """Metrics of retrieve-and-rerank over the whole catalogue, beside those of the candidate lists. null: nothing is
    retrieved. `msr check` says what it costs. Heuristics and fitted baselines rank the whole catalogue in any case,
    where it has fewer than a million items."""
    hybrid: HybridConfig | None = Field(
        None, json_schema_extra=allowed("null, or a mapping such as {of: [trained, item-knn]}")
    )
    """A model of its own that weighs the trained model and baselines: fitted on validation users, frozen before the
    test, reported with its weights and without its parts (docs/hybrid.md). null: none."""
    scorer: ModelConfig | None = Field(None, json_schema_extra=allowed("null, or a model with backend: server"))
    """Who scores the candidates. null: the trained model, loaded here. With `backend: server`: a server that serves the
    trained model and gives `logprobs` (vLLM, SGLang); `path` is its name there, and nothing is trained here for it. The
    cache knows it by address, name, `revision` and this run's weights: change one when another model is served."""
    tune: bool = True
    """Choose the settings of `item-knn`, `mf` and `sasrec` by what they reach on validation users (NDCG@10 on lists as
    those of the test): a baseline at its default settings is easily beaten. false: as they stand below."""
    grid: GridConfig = GridConfig()
    """Read when `tune` is true: what is tried."""
    item_knn: ItemKNNConfig = ItemKNNConfig()
    """Read when `baselines` names `item-knn`."""
    mf: FactorsConfig = FactorsConfig()
    """Read when `baselines` names `mf`."""
    sasrec: SASRecConfig = SASRecConfig()
    """Read when `baselines` names `sasrec`."""
    sweep: SweepRecordConfig | None = Field(None, json_schema_extra=allowed("null, or a mapping"))
    """What `msr sweep` says of the search that chose these settings; it changes no number."""
    tables: SliceTablesConfig = SliceTablesConfig()
    """Numbers and dates are cut at their quartiles, texts grouped by value."""

    @model_validator(mode="after")
    def _a_retrieval_can_be_judged(self) -> "EvaluateConfig":
        full, deepest = self.full, max(self.protocol.k)
        if full is None:
            return self
        if not self.protocol.cut:
            raise ValueError("full: the protocol has no metric with a cut-off; add hr, mrr or ndcg to its metrics")
        if full.top < deepest:
            raise ValueError(f"full.top: {full.top} items cannot fill the first {deepest} places of protocol.k")
        if full.base and "base" not in self.baselines:
            raise ValueError("full.base: true, but baselines does not name base; add it, or set full.base to false")
        return self

    @field_validator("scorer")
    @classmethod
    def _a_scorer_is_a_server(cls, scorer: ModelConfig | None) -> ModelConfig | None:
        if scorer is not None and scorer.backend_row.make_scorer is None:
            raise ValueError("only backend: server scores for the trained model; null loads the model itself, here")
        return scorer
