"""The table of baselines: everything that is said of one anywhere stands in its row.

Adding one is a row of `BASELINES`, a function from `BaselineInputs` to scores, and its name in the config's
`BaselineName`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import EvaluateConfig, StrictModel
from msr_adapter.evaluate.baselines import simple
from msr_adapter.evaluate.baselines.training_log import BaselineInputs


@dataclass(frozen=True)
class Look:
    """How a model is drawn; unlike dashes serve readers without colour."""

    variable: str
    """A CSS variable of the page, without its dashes; also the page's class of coloured dots."""
    dash: str | tuple[int, tuple[int, ...]]
    """A matplotlib line style: a name, or an offset and lengths on and off."""


@dataclass(frozen=True)
class Baseline:
    """One row."""

    name: str
    label: str
    """What findings call it, in a sentence."""
    description: str
    """What it ranks by, for the report's reader."""
    look: Look
    score: Callable[[BaselineInputs], Floats | None] | None
    """Scores of the candidates (n,), higher is better; None where the data cannot tell. No function: a model that a
    stage of its own scores."""
    fitted: bool = False
    """Whether it learns from the training log: slow, so that a stage of its own does it once and keeps the scores."""
    libraries: tuple[str, ...] = ()
    """Modules that fitting imports beyond what is always installed."""
    settings: Callable[[EvaluateConfig], StrictModel] | None = None
    """Its part of the config, which its scores depend on."""
    steps: Callable[[EvaluateConfig], int] = lambda config: 1
    """How often fitting says that it is a step further."""
    on_request: bool = True
    """Whether a protocol names it; else it is judged wherever it can be."""
    without: str = ""
    """Why it may have no scores, where its function may return None."""
    must_be_beaten: bool = True
    """Whether it is a finding that the trained model is not above it."""


def _item_knn(inputs: BaselineInputs) -> Floats:
    from msr_adapter.evaluate.baselines.collaborative import item_knn_scores

    return item_knn_scores(inputs.log, inputs.queries)


def _factors(inputs: BaselineInputs) -> Floats:
    from msr_adapter.evaluate.baselines.collaborative import factor_scores

    return factor_scores(inputs.log, inputs.queries, inputs.seed)


def _sasrec(inputs: BaselineInputs) -> Floats:
    from msr_adapter.evaluate.baselines.sasrec import sasrec_scores

    return sasrec_scores(inputs.log, inputs.queries, inputs.config.sasrec, inputs.seed, inputs.advance)


BASELINES: tuple[Baseline, ...] = (
    Baseline(
        "popularity", "popularity alone", "the item's number of interactions in training.",
        Look("popularity", (0, (3, 1, 1, 1))), simple.popularity_scores,
    ),
    Baseline(
        "base", "the model before fine-tuning", "the recommender before fine-tuning.",
        Look("base", (0, (5, 2))), None,
    ),
    Baseline(
        "recency", "the time since an item was last interacted with",
        "how recent the item's last interaction in training is at the time of the target.",
        Look("other4", (0, (10, 3))), simple.recency_scores,
        without="the log has no times that two users share",
    ),
    Baseline(
        "title-overlap", "the overlap of titles", "how many words the title shares with the titles of the history.",
        Look("other5", (0, (1, 1))), simple.title_overlap_scores,
    ),
    Baseline(
        "item-knn", "item-kNN",
        "cosine similarity of the item to those of the history, over training users; ids alone.",
        Look("other1", (0, (6, 1))), _item_knn, fitted=True, libraries=("implicit",),
    ),
    Baseline(
        "mf", "matrix factorisation",
        "matrix factorisation of the training log; the user is folded in from the history.",
        Look("other2", (0, (4, 1, 1, 1, 1, 1))), _factors, fitted=True, libraries=("implicit",),
    ),
    Baseline(
        "sasrec", "SASRec", "a small transformer over item ids, trained on the training log.",
        Look("other3", (0, (2, 1))), _sasrec, fitted=True, libraries=("implicit", "pytorch_lightning", "rectools"),
        settings=lambda config: config.sasrec, steps=lambda config: config.sasrec.epochs,
    ),
    Baseline(
        "random", "guessing", "seeded random scores.",
        Look("random", (0, (1, 2))), simple.random_scores, must_be_beaten=False,
    ),
    Baseline(
        "oracle", "the true preferences",
        "the true preferences of the synthetic dataset; users choose with noise, so even it is not perfect.",
        Look("oracle", (0, (8, 2, 1, 2))), simple.oracle_scores, on_request=False, must_be_beaten=False,
    ),
)  # fmt: skip


def chosen(config: EvaluateConfig, *, fitted: bool) -> list[Baseline]:
    """Return the rows that ``config`` asks for and that have a function, in the table's order: fitted ones or others.

    Those that need no request are among the others.
    """
    wanted = [row for row in BASELINES if row.name in config.baselines or not row.on_request]
    return [row for row in wanted if row.score is not None and row.fitted == fitted]
