"""Fitted baselines are tuned on validation users and on nobody else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from msr_adapter import schema
from msr_adapter.config.schema import (
    EvaluateConfig,
    FactorsConfig,
    GridConfig,
    ItemKNNConfig,
    ProtocolConfig,
    SASRecConfig,
    SplitConfig,
)
from msr_adapter.evaluate.baselines import tuning
from msr_adapter.evaluate.baselines.catalogue import BASELINES, Fitting
from msr_adapter.evaluate.baselines.fitting import fit_baselines, read_fitted, read_tuning
from msr_adapter.evaluate.baselines.sasrec import fit_sasrec
from msr_adapter.evaluate.baselines.training_log import CatalogueScorer, Fit, Queries, read_training_log
from msr_adapter.evaluate.baselines.tuning import candidates_of, fits_of, read_validation
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.metrics import evaluate_groups
from msr_adapter.stage_arguments import Job
from tests.evaluate.test_baselines_fitted import QUIET, copy_tables, log_of, planted, swapped
from tests.support.data_builders import build_in, table_data

GRID = GridConfig.model_validate({
    "item_knn": {"neighbours": (1, 20), "damping": (0.0,)},
    "mf": {"factors": (2, 8), "confidence": (10.0,)},
    "sasrec": {"length": (2, 5), "negatives": (None,), "dropout": (0.2,)},
})  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    split = SplitConfig(kind="user-holdout", fractions=(0.6, 0.2, 0.2), max_history=2)
    return build_in(folder, table_data(folder, planted()), split, negatives=9).out


def config_of(*names: str, **settings: Any) -> EvaluateConfig:
    sasrec = SASRecConfig(dim=8, epochs=3, seeds=2)
    return EvaluateConfig(
        protocol=ProtocolConfig(name="p"), baselines=names, **{"grid": GRID, "sasrec": sasrec, **settings}
    )


def fit(data: Path, out: Path, config: EvaluateConfig) -> dict[str, np.ndarray]:
    out.mkdir()
    fit_baselines(config, data, Job(out, QUIET, 0))
    return {name: read_fitted(name, read_held_out(data), out) for name in config.baselines}


def fitting_of(name: str) -> Fitting:
    (found,) = (row.fitting for row in BASELINES if row.name == name)
    assert found is not None
    return found


def test_the_best_of_the_grid_on_validation_users_is_kept_and_all_are_told(data: Path, tmp_path: Path) -> None:
    names = ("item-knn", "mf", "sasrec")
    fit(data, tmp_path / "out", config_of(*names))
    told = json.loads((tmp_path / "out" / "tuning.json").read_text())
    assert (told["metric"], told["users"]) == ("ndcg@10", 24)
    assert told == read_tuning(tmp_path / "out")
    for name, tried in (("item-knn", 2), ("mf", 2), ("sasrec", 3)):
        choice = told["baselines"][name]
        assert len(choice["tried"]) == tried
        assert choice["value"] == max(attempt["value"] for attempt in choice["tried"])
        assert choice["untuned"] == ""
    sasrec = told["baselines"]["sasrec"]["tried"]
    assert [(attempt["settings"]["length"], attempt["seed"]) for attempt in sasrec[:2]] == [(2, 0), (5, 0)]
    assert sasrec[2]["seed"] == 1  # the better of the two, from another seed


def test_the_kept_fit_is_what_scores_the_test(data: Path, tmp_path: Path) -> None:
    tuned = fit(data, tmp_path / "tuned", config_of("item-knn"))["item-knn"]
    chosen = read_tuning(tmp_path / "tuned")["baselines"]["item-knn"]["settings"]
    settings = ItemKNNConfig.model_validate(chosen)
    plain = fit(data, tmp_path / "plain", config_of("item-knn", tune=False, item_knn=settings))["item-knn"]
    assert tuned.tobytes() == plain.tobytes()


def test_no_test_label_reaches_the_choice_and_validation_labels_do(data: Path, tmp_path: Path) -> None:
    def labels(split: str) -> Path:
        """Move the positives of a split's lists to other items."""
        folder = tmp_path / split
        folder.mkdir()
        examples = schema.read_table(data / "examples.parquet", schema.EXAMPLES)
        of = dict(zip(examples["example_id"].to_pylist(), examples["split"].to_pylist(), strict=True))

        def change(table: pa.Table) -> pa.Table:
            rows = zip(table["example_id"].to_pylist(), swapped(table), table["label"].to_pylist(), strict=True)
            moved = [new if of[example] == split else old for example, new, old in rows]
            return table.set_column(2, "label", pa.array(moved, pa.int8()))

        copy_tables(data, folder, candidates=change)
        return folder

    config = config_of("item-knn", "mf")
    before = fit(data, tmp_path / "before", config)
    test = fit(labels("test"), tmp_path / "test-labels", config)
    assert all(before[name].tobytes() == test[name].tobytes() for name in before)
    assert read_tuning(tmp_path / "before") == read_tuning(tmp_path / "test-labels")
    fit(labels("validation"), tmp_path / "validation-labels", config)
    assert read_tuning(tmp_path / "before") != read_tuning(tmp_path / "validation-labels")


def test_a_diverged_fit_is_never_kept(data: Path) -> None:
    log = read_training_log(data)
    validation = read_validation(data, log.items, 0)
    assert validation is not None

    def nowhere(queries: Queries, first: int, last: int) -> np.ndarray:
        return np.full((last - first, log.items), np.nan)

    assert validation.judge(nowhere) == 0.0


def test_the_judge_is_the_metric_on_the_validation_lists(data: Path) -> None:
    log, held_out = read_training_log(data), read_held_out(data, "validation")
    validation = read_validation(data, log.items, 0)
    assert validation is not None
    table = np.random.default_rng(0).random((len(held_out.example_ids), log.items))
    items = schema.read_table(data / "items.parquet", schema.ITEMS)["item_id"].to_pylist()
    owner = np.repeat(np.arange(len(held_out.example_ids)), np.diff(held_out.offsets))
    scores = table[owner, [items.index(item) for item in held_out.items.to_pylist()]]
    expected = evaluate_groups(scores, held_out.labels, held_out.offsets, ("ndcg",), (10,)).means()["ndcg@10"]
    assert validation.judge(lambda _, first, last: table[first:last]) == pytest.approx(expected)


def test_many_validation_users_are_drawn_from(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "MOST_USERS", 7)
    found = read_validation(data, 20, 0)
    assert found is not None
    assert found.users == 7
    # Nothing but zeros: the value is that of guessing among ten, whoever was drawn.
    guess = float(np.mean(1 / np.log2(np.arange(10) + 2)))
    assert found.judge(lambda _, first, last: np.zeros((last - first, 20))) == pytest.approx(guess)


@pytest.mark.parametrize("how", ["false", "nobody"])
def test_without_a_comparison_the_settings_stand_as_they_are_and_it_is_said(tmp_path: Path, how: str) -> None:
    fractions = (0.8, 0.0, 0.2) if how == "nobody" else (0.6, 0.2, 0.2)
    split = SplitConfig(kind="user-holdout", fractions=fractions)
    made = build_in(tmp_path, table_data(tmp_path, planted(60)), split, negatives=9).out
    fit(made, tmp_path / "fits", config_of("mf", tune=how == "nobody", mf=FactorsConfig(factors=4)))
    told = read_tuning(tmp_path / "fits")
    why = {"false": "evaluate.tune is false", "nobody": "the split has no validation users"}[how]
    assert told["users"] == 0
    assert told["baselines"]["mf"]["untuned"] == why
    assert told["baselines"]["mf"]["settings"]["factors"] == 4
    assert told["baselines"]["mf"]["tried"] == []


def test_settings_that_come_to_the_same_are_tried_once() -> None:
    log = log_of("abcd", "bcda", items=4)
    config = EvaluateConfig(protocol=ProtocolConfig(name="p"))
    knn = candidates_of(fitting_of("item-knn"), config, log)
    assert {settings.neighbours for settings in knn} == {4}
    assert len(knn) == len(config.grid.item_knn.damping)
    sasrec = candidates_of(fitting_of("sasrec"), config, log)
    assert {settings.length for settings in sasrec} == {3}
    assert fits_of(fitting_of("sasrec"), config, log) == len(sasrec) + config.sasrec.seeds - 1 == 6


def test_training_ends_early_and_the_best_epoch_is_kept() -> None:
    log = log_of(*["abcde", "bcdea", "cdeab"] * 4, items=5)
    values = iter([0.1, 0.5, 0.3, 0.2, 0.4, 0.9])
    kept: list[np.ndarray] = []
    steps: list[int] = []
    codes = np.array([0, 1], np.int64), np.array([0, 2], np.int64), np.arange(5), np.array([0, 5], np.int64)

    def judge(scorer: CatalogueScorer) -> float:
        kept.append(scorer(Queries(*codes), 0, 1))
        return next(values)

    settings = SASRecConfig(dim=4, epochs=50, patience=3, length=3)
    scorer = fit_sasrec(Fit(log, 0, steps.append, judge), settings)
    assert len(kept) == 5  # three epochs without a better one after the second
    assert scorer(Queries(*codes), 0, 1).tolist() == kept[1].tolist()
    assert sum(steps) == 50
