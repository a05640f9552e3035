"""The table of baselines: everything that is said of one anywhere stands in its row.

Adding one is a row of `BASELINES`, a function from `BaselineInputs` to scores, and its name in the config's
`BaselineName`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import EvaluateConfig, StrictModel
from msr_adapter.evaluate.baselines import simple, whole_catalogue
from msr_adapter.evaluate.baselines.training_log import BaselineInputs, BaselineLog, CatalogueScorer, Fit
from msr_adapter.evaluate.catalogue_ranking import Blocks


@dataclass(frozen=True)
class Look:
    """How a model is drawn; unlike dashes serve readers without colour."""

    variable: str
    """A CSS variable of the page, without its dashes; also the page's class of coloured dots."""
    dash: str | tuple[int, tuple[int, ...]]
    """A matplotlib line style: a name, or an offset and lengths on and off."""


@dataclass(frozen=True)
class Fitting:
    """How a baseline learns."""

    fit: Callable[[Fit, Any], CatalogueScorer]
    """Fits it under its (settled) settings."""
    settings: Callable[[EvaluateConfig], StrictModel]
    """Its part of the config."""
    grid: Callable[[EvaluateConfig], StrictModel]
    """What tuning tries: for some of the settings, a tuple of values."""
    libraries: tuple[str, ...]
    """Modules that fitting imports beyond what is always installed."""
    settle: Callable[[Any, BaselineLog], StrictModel] = lambda settings, _: settings
    """What settings come to on a log; those that come to the same are one."""
    steps: Callable[[Any], int] = lambda _: 1
    """How often a fit under such settings says that it is a step further."""
    seeds: Callable[[Any], int] = lambda _: 1
    """Trainings of the best settings, each from its own seed."""


@dataclass(frozen=True)
class Baseline:
    """One row."""

    name: str
    label: str
    """What findings call it, in a sentence."""
    description: str
    """What it ranks by, for the report's reader."""
    look: Look
    score: Callable[[BaselineInputs], Floats | None] | None = None
    """Scores of the candidates (n,), higher is better; None where the data cannot tell. No function: a model that a
    stage of its own fits or scores."""
    fitting: "Fitting | None" = None
    """How it learns from the training log: slow, so that a stage of its own does it once and keeps the scores."""
    whole: Callable[[BaselineInputs], Blocks | None] | None = None
    """Scores of the whole catalogue, block by block; None where the data cannot tell. What is fitted needs no function
    for that; what has neither has no full ranking."""
    without_whole: str = ""
    """Why it has no full ranking."""
    on_request: bool = True
    """Whether a protocol names it; else it is judged wherever it can be (`repeat`: where repeats are kept)."""
    without: str = ""
    """Why it may have no scores, where its function may return None."""
    must_be_beaten: bool = True
    """Whether it is a finding that the trained model is not above it."""

    @property
    def separate(self) -> bool:
        """Whether it is a model that a stage of its own scores."""
        return self.score is None and self.fitting is None


def _fit_item_knn(fit: Fit, settings: Any) -> CatalogueScorer:
    from msr_adapter.evaluate.baselines.collaborative import fit_item_knn

    return fit_item_knn(fit, settings)


def _fit_factors(fit: Fit, settings: Any) -> CatalogueScorer:
    from msr_adapter.evaluate.baselines.collaborative import fit_factors

    return fit_factors(fit, settings)


def _fit_sasrec(fit: Fit, settings: Any) -> CatalogueScorer:
    from msr_adapter.evaluate.baselines.sasrec import fit_sasrec

    return fit_sasrec(fit, settings)


def _settle_sasrec(settings: Any, log: BaselineLog) -> StrictModel:
    from msr_adapter.evaluate.baselines.sasrec import settle_sasrec

    return settle_sasrec(settings, log)


def _settle_item_knn(settings: Any, log: BaselineLog) -> StrictModel:
    """Return the settings with no more neighbours than there are items."""
    changed: StrictModel = settings.model_copy(update={"neighbours": min(settings.neighbours, len(log.trained()))})
    return changed


_ASKED = "a language model is asked about candidates alone; evaluate.full has it rank what a retriever finds"

BASELINES: tuple[Baseline, ...] = (
    Baseline(
        "popularity", "popularity alone", "the item's number of interactions in training.",
        Look("popularity", (0, (3, 1, 1, 1))), simple.popularity_scores, whole=whole_catalogue.popularity_blocks,
    ),
    Baseline(
        "base", "the model before fine-tuning", "the recommender before fine-tuning.",
        Look("base", (0, (5, 2))), without_whole=_ASKED,
    ),
    Baseline(
        "recency", "the time since an item was last interacted with",
        "how recent the item's last interaction in training is at the time of the target.",
        Look("other4", (0, (10, 3))), simple.recency_scores, whole=whole_catalogue.recency_blocks,
        without="the log has no times that two users share",
    ),
    Baseline(
        "repeat", "what the user had before",
        "how often, then how recently, the user interacted with the item; items new to the user by popularity.",
        Look("other6", (0, (2, 2, 6, 2))), simple.repeat_scores, whole=whole_catalogue.repeat_blocks, on_request=False,
    ),
    Baseline(
        "title-overlap", "the overlap of titles", "how many words the title shares with the titles of the history.",
        Look("other5", (0, (1, 1))), simple.title_overlap_scores, whole=whole_catalogue.title_overlap_blocks,
    ),
    Baseline(
        "item-knn", "item-kNN",
        "cosine similarity of the item to those of the history, over training users; ids alone.",
        Look("other1", (0, (6, 1))),
        fitting=Fitting(
            _fit_item_knn, lambda config: config.item_knn, lambda config: config.grid.item_knn, ("implicit",),
            settle=_settle_item_knn,
        ),
    ),
    Baseline(
        "mf", "matrix factorisation",
        "matrix factorisation of the training log; the user is folded in from the history.",
        Look("other2", (0, (4, 1, 1, 1, 1, 1))),
        fitting=Fitting(_fit_factors, lambda config: config.mf, lambda config: config.grid.mf, ("implicit",)),
    ),
    Baseline(
        "sasrec", "SASRec", "a small transformer over item ids, trained on whole training logs.",
        Look("other3", (0, (2, 1))),
        fitting=Fitting(
            _fit_sasrec, lambda config: config.sasrec, lambda config: config.grid.sasrec,
            ("implicit", "pytorch_lightning", "rectools"), settle=_settle_sasrec,
            steps=lambda settings: settings.epochs, seeds=lambda settings: settings.seeds,
        ),
    ),
    Baseline(
        "random", "guessing", "seeded random scores.",
        Look("random", (0, (1, 2))), simple.random_scores, must_be_beaten=False,
        without_whole="chance says exactly what guessing gets",
    ),
    Baseline(
        "oracle", "the true preferences",
        "how probable each candidate is by the synthetic dataset's own model of choices at the target's moment. Among "
        "uniform negatives no ranking is better on average, in any metric; users choose with noise, so even it is not "
        "perfect. Where tastes drift, it knows the change before the target too, which no history tells.",
        Look("oracle", (0, (8, 2, 1, 2))), simple.oracle_scores, on_request=False, must_be_beaten=False,
        without_whole="the truth is written for the candidates alone",
    ),
)  # fmt: skip


def chosen(config: EvaluateConfig, *, fitted: bool) -> list[Baseline]:
    """Return the rows that ``config`` asks for and that have a function, in the table's order: fitted ones or others.

    What a hybrid weighs is asked for too. Those that need no request are among the others.
    """
    weighed = config.hybrid.of if config.hybrid else ()
    names = {*config.baselines, *weighed}
    wanted = [row for row in BASELINES if row.name in names or not row.on_request]
    return [row for row in wanted if (row.fitting is not None if fitted else row.score is not None)]


def to_fit(config: EvaluateConfig) -> list[Baseline]:
    """Return the rows that are fitted under ``config``: the baselines among them, and what retrieves."""
    names = {row.name for row in chosen(config, fitted=True)} | ({config.full.retriever} if config.full else set())
    return [row for row in BASELINES if row.fitting is not None and row.name in names]


def row_of(name: str) -> Baseline:
    """Return the row called ``name``."""
    return next(row for row in BASELINES if row.name == name)
