"""Negatives mined from an earlier run, by hand: who is drawn, who is not, and what becomes of users with too few."""

from pathlib import Path

import polars as pl
import pytest

from msr_adapter.config.schema import NegativesConfig, TrainNegativesConfig
from msr_adapter.errors import StageError, UserError
from msr_adapter.model_scores import MINED
from msr_adapter.schema import write_table
from tests.support.negatives_builders import Drawn, draw

ROWS = [("u", item, time) for time, item in enumerate("abcd")] + [("w", item, time) for time, item in enumerate("efgh")]
"""By leave-last-out, the training targets are b and f, and c, d, g and h are held out."""
SCORED = [("u", "c", 9.0), ("u", "a", 8.0), ("u", "e", 3.0), ("u", "f", 2.0), ("u", "g", 1.0), ("u", "h", 0.0),
          ("w", "a", 5.0)]  # fmt: skip
"""What an earlier run's model is made to say: of what u has had the most, then e and f."""


def mined(folder: Path, settings: str = "", *, scored: list[tuple[str, str, float]] = SCORED, seed: int = 0) -> Drawn:
    path = folder / "mined.parquet"
    write_table(pl.DataFrame(scored, MINED.names, orient="row").to_arrow(), MINED, path)
    given = TrainNegativesConfig.model_validate_json(f'{{"kind": "mined", "run": "r", "top": 2, {settings}}}')
    return draw(ROWS, NegativesConfig(count=1), given, seed=seed, mined=path)


def of_training(drawn: Drawn) -> dict[str, set[str]]:
    return {user: set(items) for (user, _), items in drawn.negatives(0).items()}


def test_negatives_are_the_highest_scored_of_what_the_user_never_interacted_with(tmp_path: Path) -> None:
    """c is held out of u's training, and a is u's own: neither is a negative, though the model likes them most."""
    drawn = mined(tmp_path, '"count": 2, "fallback": ["uniform"]')
    found = of_training(drawn)
    assert found["u"] == {"e", "f"}
    assert "a" in found["w"]
    assert drawn.shortages.fallbacks == {("mined", "uniform"): 1}
    counts = drawn.audit.counts
    assert (counts["users_with_mined_items"], counts["users_with_mined_items_short"]) == (2, 1)
    assert (
        "2 users have up to 2 items each to draw mined negatives among, 1 of them fewer"
        in drawn.audit.findings[0]["text"]
    )


def test_among_the_top_each_is_drawn(tmp_path: Path) -> None:
    drawn = [of_training(mined(tmp_path, '"count": 1', seed=seed))["u"] for seed in range(20)]
    assert set.union(*drawn) == {"e", "f"}


def test_what_the_user_has_is_none_even_where_only_the_target_is_excluded(tmp_path: Path) -> None:
    drawn = mined(tmp_path, '"count": 2, "exclude": "target", "fallback": ["uniform"]')
    assert of_training(drawn)["u"] == {"e", "f"}


def test_a_mixture_has_some_of_them(tmp_path: Path) -> None:
    drawn = mined(tmp_path, '"kind": "mixture", "count": 4, "mixture": {"mined": 1, "uniform": 3}')
    assert of_training(drawn)["w"] == set("abcd")
    assert of_training(drawn)["u"] & {"e", "f"}


def test_users_with_too_few_are_an_error_that_says_how_many_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        mined(tmp_path, '"count": 2')
    [problem] = caught.value.problems
    assert problem.found == "mined: 2 negatives asked for, too many for 1 list (at worst, 1)"
    assert problem.next_step == "Raise `top` and `among`, ask for fewer, or set fallback: [popularity, uniform]"


def test_items_of_another_log_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="1 of 2 mined items are of another log"):
        mined(tmp_path, '"count": 1', scored=[("u", "e", 1.0), ("u", "x", 2.0)])
