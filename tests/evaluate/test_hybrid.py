"""A hybrid weighs models on validation users alone; its weights are scikit-learn's, and frozen before the test."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from msr_adapter import schema
from msr_adapter.config.schema import EvaluateConfig, HybridConfig, ProtocolConfig, SplitConfig
from msr_adapter.errors import StageError, UserError
from msr_adapter.evaluate.baselines.fitting import fit_baselines
from msr_adapter.evaluate.candidates import read_held_out, read_some
from msr_adapter.evaluate.evaluation import EvaluateDirs, Evaluation, RunFacts, evaluate
from msr_adapter.evaluate.hybrid.fitting import ablations_of, fit_weights, freeze_hybrid, least_users, read_hybrid
from msr_adapter.evaluate.hybrid.regression import INVERSE_PENALTIES, cross_validate, fit, standardised
from msr_adapter.evaluate.text_tables import hybrid_table, weights_text
from msr_adapter.stage_arguments import Job
from tests.evaluate.test_baselines_fitted import QUIET, copy_tables, planted, swapped
from tests.support.data_builders import build_in, table_data
from tests.support.judged_run import write_scores

OFFSETS = np.array([0, 3, 6])


def test_scores_are_standardised_within_each_list() -> None:
    found = standardised([np.array([1.0, 2, 3, 10, 10, 40]), np.array([5.0, 5, 5, 0, 1, 0])], OFFSETS)
    root = np.sqrt(1.5)
    assert found[:, 0] == pytest.approx([-root, 0, root, -(0.5**0.5), -(0.5**0.5), 2**0.5])
    assert found[:3, 1] == pytest.approx([0, 0, 0])  # equal scores say nothing


def test_a_level_or_a_scale_of_a_list_changes_nothing() -> None:
    scores = np.random.default_rng(0).standard_normal(6)
    moved = scores * np.repeat([3.0, 1e-6], 3) + np.repeat([100.0, -1.0], 3)
    assert standardised([moved], OFFSETS) == pytest.approx(standardised([scores], OFFSETS), abs=1e-6)
    assert (standardised([np.full(6, 0.1) + 1e-17], OFFSETS) == 0).all()


def test_a_fit_worked_by_hand() -> None:
    """One column of -1 and 1; of those with 1 three quarters are positives, of those with -1 a quarter: log(3)."""
    features = np.array([[1.0]] * 4 + [[-1.0]] * 4)
    found = fit(features, np.array([1.0, 1, 1, 0, 1, 0, 0, 0]), 1e12)
    assert found.weights == pytest.approx([np.log(3)], abs=1e-6)
    assert found.intercept == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("inverse_penalty", INVERSE_PENALTIES)
def test_fits_are_those_of_scikit_learn(inverse_penalty: float) -> None:
    rng = np.random.default_rng(1)
    features = rng.standard_normal((600, 4))
    labels = (rng.random(600) < 1 / (1 + np.exp(1.5 - features @ [1.0, -0.5, 0.0, 2.0]))).astype(float)
    found = fit(features, labels, inverse_penalty)
    theirs = LogisticRegression(C=inverse_penalty, tol=1e-10, max_iter=10_000).fit(features, labels)
    assert found.weights == pytest.approx(theirs.coef_[0], abs=1e-5)
    assert found.intercept == pytest.approx(theirs.intercept_[0], abs=1e-5)


def test_columns_that_separate_the_labels_end_in_a_finite_fit() -> None:
    features = np.linspace(-1, 1, 40)[:, None]
    found = fit(features, (features[:, 0] > 0).astype(float), 100.0)
    theirs = LogisticRegression(C=100.0, tol=1e-10).fit(features, features[:, 0] > 0)
    assert found.weights == pytest.approx(theirs.coef_[0], rel=1e-3)


def lists(users: int, weights: dict[str, float], seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Return scores of models, labels and offsets of lists of 10, each label drawn by the weights."""
    rng = np.random.default_rng(seed)
    offsets = np.arange(users + 1) * 10
    scores = {name: rng.standard_normal(users * 10) for name in weights}
    odds = standardised(list(scores.values()), offsets) @ np.array(list(weights.values())) - 2
    return scores, (rng.random(users * 10) < 1 / (1 + np.exp(-odds))).astype(np.int8), offsets


def test_known_weights_are_recovered() -> None:
    weights = {"trained": 1.0, "mf": 0.5, "popularity": 0.0, "sasrec": -0.25}
    scores, labels, offsets = lists(4_000, weights)
    found = fit_weights(scores, labels, offsets, 0)
    assert found["weights"] == pytest.approx(weights, abs=0.06)
    assert found["intercept"] == pytest.approx(-2, abs=0.06)
    assert weights_text({"a": 1.0, "b": -0.5}) == "1.00 a - 0.50 b"


def test_noise_gets_a_strong_penalty_and_signal_a_weak_one() -> None:
    noise, labels, offsets = lists(60, dict.fromkeys("abcdef", 0.0))
    signal, hits, _ = lists(60, dict.fromkeys("abcdef", 1.0))
    chosen = [fit_weights(one, each, offsets, 0)["inverse_penalty"] for one, each in ((noise, labels), (signal, hits))]
    assert chosen[0] <= 1e-2 < chosen[1]


def test_a_users_rows_are_in_one_fold() -> None:
    """A column that names the user helps nobody who was left out."""
    users = np.repeat(np.arange(40), 10)
    features = (users[:, None] == np.arange(40)).astype(float)
    labels = np.repeat(np.random.default_rng(0).integers(0, 2, 40), 10).astype(float)
    found = cross_validate(features, labels, np.arange(41) * 10, 0)
    assert found.inverse_penalty == INVERSE_PENALTIES[0]
    assert found.losses[-1] > found.losses[0]


def test_what_is_left_without_the_model_and_without_ids() -> None:
    config = HybridConfig(of=("trained", "title-overlap", "mf", "sasrec"))
    assert ablations_of(config) == {
        "without-trained": ("title-overlap", "mf", "sasrec"), "without-ids": ("trained", "title-overlap")
    }  # fmt: skip
    assert ablations_of(HybridConfig(of=("trained", "popularity"))) == {"without-trained": ("popularity",)}
    assert ablations_of(HybridConfig(of=("mf", "sasrec"))) == {}
    assert least_users(HybridConfig(of=("mf", "sasrec"))) == 50


@pytest.mark.parametrize("of", [("trained",), ("mf", "mf"), ("trained", "random"), ("trained", "oracle")])
def test_a_hybrid_of_one_or_of_nothing_that_knows_is_refused(of: tuple[Any, ...]) -> None:
    with pytest.raises(ValidationError, match="of"):
        HybridConfig(of=of)


# The stage.

OF: tuple[Any, ...] = ("trained", "popularity", "item-knn")


def config_of(of: tuple[Any, ...] = OF, users: int = 100) -> EvaluateConfig:
    hybrid = HybridConfig(of=of, users=users)
    return EvaluateConfig(protocol=ProtocolConfig(name="p"), baselines=("popularity",), hybrid=hybrid, tune=False)


class Stages:
    """Folders of a run: data, fitted baselines, scores of a model that knows a little."""

    def __init__(self, root: Path) -> None:
        self.root = root
        split = SplitConfig(kind="user-holdout", fractions=(0.4, 0.3, 0.3), max_history=5)
        self.data = build_in(root, table_data(root, planted(300)), split, negatives=9).out
        (root / "baselines").mkdir()
        fit_baselines(config_of(), self.data, Job(root / "baselines", QUIET, 0))
        for name, split_name in (("score", "test"), ("validation", "validation")):
            table = read_held_out(self.data, split_name).table
            rng = np.random.default_rng(len(name))
            write_scores(root / name, {key: table[key] for key in table.column_names},
                         table["label"].to_numpy() + rng.standard_normal(len(table)))  # fmt: skip

    def evaluate(self, out: Path, config: EvaluateConfig | None = None, data: Path | None = None) -> Evaluation:
        out.mkdir()
        fitted = self.root / "baselines"
        if data:
            fitted = out.with_name(f"{out.name}-baselines")
            fitted.mkdir()
            fit_baselines(config_of(), data, Job(fitted, QUIET, 0))
        dirs = EvaluateDirs(data or self.data, {"trained": self.root / "score"}, fitted,
                            validation=self.root / "validation")  # fmt: skip
        return evaluate(config or config_of(users=90), dirs, RunFacts("p", {}), Job(out, QUIET, 0))


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Stages:
    return Stages(tmp_path_factory.mktemp("hybrid"))


def test_the_hybrid_is_a_model_of_its_own(stages: Stages, tmp_path: Path) -> None:
    metrics = stages.evaluate(tmp_path / "out").metrics
    assert list(metrics["models"]) == ["trained", "item-knn", "popularity", "hybrid"]
    entry = metrics["hybrid"]
    assert list(entry["fit"]["weights"]) == list(OF)
    assert entry["fit"]["weights"]["item-knn"] > 0
    assert list(entry["differences"]) == ["trained", "item-knn", "popularity", "without-trained", "without-ids"]
    primary = metrics["primary"]
    means = {name: model["metrics"][primary]["mean"] for name, model in metrics["models"].items()}
    assert means["hybrid"] > max(means["trained"], means["item-knn"])
    gap = entry["differences"]["trained"]
    assert gap["mean"] == pytest.approx(means["hybrid"] - means["trained"])
    assert gap["low"] < gap["mean"] < gap["high"]
    assert list(metrics["differences"]) == ["item-knn", "popularity"]  # the trained model is not tested against itself
    (told,) = [one["text"] for one in metrics["findings"] if one["text"].startswith("The hybrid")]
    assert "item-knn" in told
    assert entry["digest"][:8] in told
    table = hybrid_table(metrics)
    assert table is not None
    assert [row[0] for row in table.rows] == list(entry["differences"])
    scores = schema.read_table(stages.root / "score" / "scores.parquet", schema.SCORES)
    assert len(scores) == len(read_held_out(stages.data).table)
    frozen = read_hybrid(tmp_path / "out")
    assert frozen.file["digest"] == entry["digest"]


def test_the_scores_of_the_hybrid_are_the_weights_times_what_is_standardised(stages: Stages, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    stages.evaluate(tmp_path / "out")
    table = pq.read_table(tmp_path / "out" / "candidate_scores.parquet")
    told = json.loads((tmp_path / "out" / "hybrid.json").read_text())
    lists = {name: table[f"score:{name}"].to_numpy().reshape(-1, 10) for name in OF}
    odds = sum(
        weight * (lists[name] - lists[name].mean(axis=1, keepdims=True))
        / np.where(lists[name].std(axis=1, keepdims=True) > 0, lists[name].std(axis=1, keepdims=True), 1)
        for name, weight in told["full"]["weights"].items()
    )  # fmt: skip
    assert table["score:hybrid"].to_numpy() == pytest.approx((odds + told["full"]["intercept"]).ravel())


@pytest.mark.parametrize(("split", "same"), [("test", True), ("validation", False)])
def test_no_label_of_the_test_reaches_the_weights(stages: Stages, tmp_path: Path, split: str, same: bool) -> None:
    examples = schema.read_table(stages.data / "examples.parquet", schema.EXAMPLES)
    of = dict(zip(examples["example_id"].to_pylist(), examples["split"].to_pylist(), strict=True))

    def change(table: pa.Table) -> pa.Table:
        rows = zip(table["example_id"].to_pylist(), swapped(table), table["label"].to_pylist(), strict=True)
        moved = [new if of[example] == split else old for example, new, old in rows]
        return table.set_column(2, "label", pa.array(moved, pa.int8()))

    moved = tmp_path / "moved"
    moved.mkdir()
    copy_tables(stages.data, moved, candidates=change)
    before = stages.evaluate(tmp_path / "before").metrics
    after = stages.evaluate(tmp_path / "after", data=moved).metrics
    files = [(tmp_path / name / "hybrid.json").read_bytes() for name in ("before", "after")]
    assert (files[0] == files[1]) is same
    if same:
        assert before["models"]["hybrid"] != after["models"]["hybrid"]


def test_of_several_trainings_it_is_tested_against_the_one_that_it_weighs(stages: Stages, tmp_path: Path) -> None:
    once = stages.evaluate(tmp_path / "once").metrics
    other = stages.root / "score" / "other"
    table = read_held_out(stages.data).table
    noise = np.random.default_rng(9).standard_normal(len(table))
    write_scores(other, {key: table[key] for key in table.column_names}, noise)
    (tmp_path / "twice").mkdir()
    dirs = EvaluateDirs(stages.data, {"trained": stages.root / "score"}, stages.root / "baselines",
                        validation=stages.root / "validation",
                        trainings=((0, stages.root / "score"), (1, other)))  # fmt: skip
    twice = evaluate(config_of(users=90), dirs, RunFacts("p", {}), Job(tmp_path / "twice", QUIET, 0)).metrics
    assert twice["models"]["trained"] != once["models"]["trained"]
    assert twice["hybrid"] == once["hybrid"]
    shown = hybrid_table(twice)
    assert shown is not None
    assert shown.notes[-1].startswith("Trained: its first training")
    primary = once["primary"]
    assert shown.rows[0][1] == f"{once['models']['trained']['metrics'][primary]['mean']:.3f}"


def test_it_is_frozen_before_a_score_of_the_test_is_read(stages: Stages, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    dirs = EvaluateDirs(stages.data, {"trained": tmp_path / "nowhere"}, stages.root / "baselines",
                        validation=stages.root / "validation")  # fmt: skip
    with pytest.raises(Exception, match="scores"):
        evaluate(config_of(users=90), dirs, RunFacts("p", {}), Job(out, QUIET, 0))
    assert read_hybrid(out).file["users"] == 90


def test_of_more_users_the_same_are_asked_and_others(stages: Stages) -> None:
    few, more = (read_some(stages.data, wanted, 0) for wanted in (20, 60))
    assert few is not None
    assert more is not None
    assert set(few.example_ids.tolist()) < set(more.example_ids.tolist())
    assert len(few.table) == 200
    assert few.offsets[-1] == 200


@pytest.mark.parametrize(("split", "users"), [((0.7, 0.0, 0.3), "none"), ((0.6, 0.1, 0.3), "12")])
def test_too_few_validation_users_are_refused_with_their_number_and_the_reason(
    tmp_path: Path, split: tuple[float, float, float], users: str
) -> None:
    data = build_in(tmp_path, table_data(tmp_path, planted()), SplitConfig(fractions=split), negatives=5).out
    with pytest.raises(UserError) as caught:
        freeze_hybrid(config_of(("popularity", "title-overlap")), data, {}, Job(tmp_path, QUIET, 0))
    said = str(caught.value)
    assert f"there are {users}" in said
    assert "at least 50 for 2 members: ten positives a weight" in said
    assert not (tmp_path / "hybrid.json").exists()


def test_a_member_that_the_data_cannot_tell_is_named(tmp_path: Path) -> None:
    rows = [(user, item, time % 100 + 1) for user, item, time in planted(200)]
    split = SplitConfig(kind="user-holdout", fractions=(0.4, 0.3, 0.3))
    data = build_in(tmp_path, table_data(tmp_path, rows), split, negatives=5).out
    with pytest.raises(StageError, match="no scores of recency") as caught:
        freeze_hybrid(config_of(("popularity", "recency")), data, {}, Job(tmp_path, QUIET, 0))
    assert "no times that two users share" in str(caught.value)


def test_a_changed_file_of_weights_is_not_believed(stages: Stages, tmp_path: Path) -> None:
    stages.evaluate(tmp_path / "out")
    path = tmp_path / "out" / "hybrid.json"
    path.write_text(path.read_text().replace('"users": 90', '"users": 91'))
    with pytest.raises(UserError, match="changed by hand"):
        read_hybrid(tmp_path / "out")
    with pytest.raises(UserError, match="no hybrid was fitted"):
        read_hybrid(tmp_path)
