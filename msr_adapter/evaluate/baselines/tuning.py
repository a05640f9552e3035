"""The settings of fitted baselines, chosen by what they reach on validation users; no test list is looked at.

Dacrema, Cremonesi and Jannach, "Are We Really Making Much Progress?", RecSys 2019: a baseline that nobody tuned is
easily beaten. Every combination of the config's grid is fitted to the training log, which holds no target of validation
or test, and ranks the validation users' lists, which are made as test lists are.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.config.schema import EvaluateConfig, StrictModel
from msr_adapter.errors import plural
from msr_adapter.evaluate.baselines.catalogue import Fitting
from msr_adapter.evaluate.baselines.training_log import (
    BaselineLog,
    CatalogueScorer,
    Fit,
    candidate_scores,
    read_queries,
)
from msr_adapter.evaluate.candidates import HeldOut, read_held_out
from msr_adapter.metrics import evaluate_groups
from msr_adapter.schema import EXAMPLES, read_table

METRIC, K = "ndcg", 10
MOST_USERS = 2_000
"""ValidationLists users that settings are compared on."""
_DRAW = 0x7E57
"""Sets the draw of users apart from the pipeline's other draws."""
_SEEDS = 2**32


class Attempt(TypedDict):
    """One fit that was judged."""

    settings: dict[str, object]
    seed: int
    value: float
    """NDCG@10 on the validation users."""


class Choice(TypedDict):
    """How a baseline came to its settings."""

    settings: dict[str, object]
    seed: int
    value: float | None
    """NDCG@10 on the validation users; None where nothing was compared."""
    tried: list[Attempt]
    """Empty where nothing was compared."""
    untuned: str
    """Why nothing was compared; "" where it was."""


@dataclass(frozen=True)
class ValidationLists:
    """The validation users' lists."""

    users: int
    judge: Callable[[CatalogueScorer], float]
    """Tells what a fit is worth: the users' mean NDCG@10."""


def read_validation(data_dir: Path, items: int, seed: int) -> ValidationLists | None:
    """Read the lists of validation users, `MOST_USERS` at most, drawn by ``seed``; None where the split has none."""
    split = read_table(data_dir / "examples.parquet", EXAMPLES, ["split"])["split"]
    if not pc.any(pc.equal(split, "validation")).as_py():
        return None
    held_out = _some(read_held_out(data_dir, "validation"), seed)
    queries, labels = read_queries(held_out, data_dir), held_out.labels

    def judge(scorer: CatalogueScorer) -> float:
        scores = candidate_scores(scorer, queries, items)
        if not np.isfinite(scores).all():
            return 0.0  # a fit that diverged is the worst
        return evaluate_groups(scores, labels, held_out.offsets, (METRIC,), (K,)).means()[f"{METRIC}@{K}"]

    return ValidationLists(queries.users, judge)


def _some(held_out: HeldOut, seed: int) -> HeldOut:
    """Return the lists of at most `MOST_USERS` users."""
    if len(held_out.example_ids) <= MOST_USERS:
        return held_out
    drawn = np.sort(np.random.default_rng([seed, _DRAW]).choice(len(held_out.example_ids), MOST_USERS, replace=False))
    examples = held_out.example_ids[drawn]
    rows = held_out.table.filter(pc.is_in(held_out.table["example_id"], value_set=pa.array(examples)))
    offsets = np.concatenate([[0], np.cumsum(np.diff(held_out.offsets)[drawn])])
    return replace(held_out, example_ids=examples, user_ids=held_out.user_ids.take(pa.array(drawn)),
                   offsets=offsets, table=rows)  # fmt: skip


def candidates_of(fitting: Fitting, config: EvaluateConfig, log: BaselineLog) -> list[StrictModel]:
    """Return the settings that are tried, in the grid's order, those that come to the same once."""
    start, grid = fitting.settings(config), fitting.grid(config)
    values = {name: getattr(grid, name) for name in type(grid).model_fields}
    tried = (
        fitting.settle(start.model_copy(update=dict(zip(values, chosen, strict=True))), log)
        for chosen in itertools.product(*values.values())
    )
    return list(dict.fromkeys(tried))


def fits_of(fitting: Fitting, config: EvaluateConfig, log: BaselineLog) -> int:
    """Return how often a baseline is fitted while it is tuned."""
    return len(candidates_of(fitting, config, log)) + fitting.seeds(fitting.settings(config)) - 1


def fits_text(fitting: Fitting, config: EvaluateConfig, fits: int) -> str:
    """Return what ``fits`` fits take, in words: ``3 fits of at most 100 epochs each``."""
    steps = fitting.steps(fitting.settings(config))
    return plural(fits, "fit") + (f" of at most {plural(steps, 'epoch')} each" if steps > 1 else "")


def most_fits(fitting: Fitting, config: EvaluateConfig) -> int:
    """Return how many fits tuning takes at most, whatever the log."""
    grid = fitting.grid(config)
    sizes = [len(getattr(grid, name)) for name in type(grid).model_fields]
    return math.prod(sizes) + fitting.seeds(fitting.settings(config)) - 1


def tune(
    fitting: Fitting, config: EvaluateConfig, fit: Fit, validation: ValidationLists
) -> tuple[CatalogueScorer, Choice]:
    """Fit every setting of the grid, then the best under further seeds; return the best fit, the first of equals."""
    tried: list[Attempt] = []
    best: CatalogueScorer | None = None
    chosen: StrictModel | None = None

    def attempts() -> Iterator[tuple[StrictModel, int]]:
        yield from ((settings, fit.seed) for settings in candidates_of(fitting, config, fit.log))
        assert chosen is not None, "an empty grid"
        winner = chosen
        yield from ((winner, (fit.seed + number) % _SEEDS) for number in range(1, fitting.seeds(winner)))

    for settings, seed in attempts():
        scorer = fitting.fit(replace(fit, seed=seed, judge=validation.judge), settings)
        value = validation.judge(scorer)
        if all(value > other["value"] for other in tried):
            best, chosen = scorer, settings
        tried.append({"settings": settings.model_dump(mode="json"), "seed": seed, "value": value})
    assert best is not None, "an empty grid"
    first = max(tried, key=lambda attempt: attempt["value"])  # the first of equals
    return best, {**first, "tried": tried, "untuned": ""}


def as_configured(fitting: Fitting, config: EvaluateConfig, fit: Fit, why: str) -> tuple[CatalogueScorer, Choice]:
    """Fit the settings as the config has them; ``why`` says why nothing is compared."""
    settings = fitting.settle(fitting.settings(config), fit.log)
    choice: Choice = {"settings": settings.model_dump(mode="json"), "seed": fit.seed, "value": None, "tried": [],
                      "untuned": why}  # fmt: skip
    return fitting.fit(fit, settings), choice
