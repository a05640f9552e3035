"""The fitted baselines: by hand, against brute force, on planted structure; and what they may not know."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from rich.console import Console

from msr_adapter import schema
from msr_adapter.config.schema import EvaluateConfig, ProtocolConfig, SASRecConfig, SplitConfig
from msr_adapter.errors import StageError
from msr_adapter.evaluate.baselines.catalogue import BASELINES
from msr_adapter.evaluate.baselines.collaborative import CONFIDENCE, factor_scores, item_knn_scores
from msr_adapter.evaluate.baselines.fitting import fit_baselines, read_fitted
from msr_adapter.evaluate.baselines.sasrec import _alone, _fitted, sasrec_scores
from msr_adapter.evaluate.baselines.training_log import BaselineLog, Queries, gather, read_queries, read_training_log
from msr_adapter.evaluate.candidates import HeldOut, read_held_out
from msr_adapter.metrics import evaluate_groups
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job
from tests.support.data_builders import Row, build_in, table_data

FITTED = tuple(row.name for row in BASELINES if row.fitted)
QUIET = Reporter(console=Console(quiet=True))
SMALL = SASRecConfig(dim=8, epochs=2)


def log_of(*words: str, items: int) -> BaselineLog:
    """Return the log in which user 0 interacted with the letters of the first word, in order; ``a`` is item 0."""
    pairs = [(user, ord(letter) - ord("a")) for user, word in enumerate(words) for letter in word]
    user, item = np.array(pairs, dtype=np.int64).T
    return BaselineLog(user, item, np.arange(len(user)), len(words), items)


def queries_of(history: list[str], candidates: list[str], longest: int = 3) -> Queries:
    codes = [np.array([ord(letter) - ord("a") for letter in "".join(words)], np.int64)
             for words in (history, candidates)]  # fmt: skip
    bounds = [np.cumsum([0, *map(len, words)]).astype(np.int64) for words in (history, candidates)]
    return Queries(codes[0], bounds[0], codes[1], bounds[1], longest)


def planted(users: int = 120, seed: int = 0) -> list[Row]:
    """Return the log of users who each walk round one of two rings of 10 items."""
    rng = np.random.default_rng(seed)
    starts = zip(rng.integers(0, 10, users), rng.integers(0, 2, users), strict=True)
    return [(f"u{user:03}", f"{ring}{(start + step) % 10}", 2_000_000_000 + 100 * user + step)
            for user, (start, ring) in enumerate(starts) for step in range(6)]  # fmt: skip


@functools.cache
def built(folder: Path, kind: str) -> Path:
    data = table_data(folder / kind, planted())
    split = SplitConfig(kind=kind, fractions=(0.7, 0.1, 0.2), max_history=5)
    return build_in(folder / kind, data, split, negatives=9).out


@pytest.fixture(params=["user-holdout", "leave-last-out"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.getbasetemp() / "planted", request.param)


def fit(data: Path, out: Path, *names: str, seed: int = 0, settings: SASRecConfig = SMALL) -> dict[str, np.ndarray]:
    out.mkdir(parents=True)
    config = EvaluateConfig(protocol=ProtocolConfig(name="p"), baselines=names or FITTED, sasrec=settings)
    fit_baselines(config, data, Job(out, QUIET, seed))
    return {name: read_fitted(name, read_held_out(data), out) for name in names or FITTED}


def auc(held_out: HeldOut, scores: np.ndarray) -> float:
    return evaluate_groups(scores, held_out.labels, held_out.offsets, ("auc",)).means()["auc"]


def test_item_knn_by_hand() -> None:
    log = log_of("ab", "abc", "ac", "d", items=5)
    scores = item_knn_scores(log, queries_of(["a", "bc", "d"], ["bcde", "ad", "abc"]))
    ab, ac, bc = 2 / np.sqrt(3 * 2), 2 / np.sqrt(3 * 2), 1 / np.sqrt(2 * 2)
    assert scores == pytest.approx([ab, ac, 0, 0, ab + ac, 0, 0, 0, 0])
    assert item_knn_scores(log, queries_of(["b"], ["c"])) == pytest.approx([bc])


def test_item_knn_is_the_brute_force() -> None:
    rng = np.random.default_rng(1)
    seen = rng.random((30, 12)) < 0.3
    user, item = np.nonzero(seen)
    log = BaselineLog(user, item, np.zeros(len(user), np.int64), 30, 12)
    norm = np.sqrt(seen.sum(axis=0))
    cosine = (seen.T.astype(float) @ seen) / np.outer(norm, norm)
    history, candidates = rng.permuted(np.tile(np.arange(12), (9, 1)), axis=1)[:, [0, 1, 2]], np.arange(12)
    offsets = np.arange(10)
    queries = Queries(history.ravel(), 3 * offsets, np.tile(candidates, 9), 12 * offsets, 3)
    assert item_knn_scores(log, queries) == pytest.approx(cosine[history].sum(axis=1).ravel())


def test_a_user_is_folded_in_by_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    models = []
    fit_model = AlternatingLeastSquares.fit
    monkeypatch.setattr(AlternatingLeastSquares, "fit", lambda m, *a, **k: (models.append(m), fit_model(m, *a, **k)))
    log = log_of("abc", "bcd", "aef", "def", "acf", items=7)
    scores = factor_scores(log, queries_of(["ab"], ["cdefg"]), seed=3)
    items = models[0].item_factors.astype(float)
    seen = np.isin(np.arange(7), [0, 1])
    weights = np.where(seen, CONFIDENCE, 1.0)
    normal = items.T @ (weights[:, None] * items) + models[0].regularization * np.eye(items.shape[1])
    user = np.linalg.solve(normal, items.T @ (weights * seen))
    assert scores == pytest.approx(items[2:] @ user, abs=1e-4)
    assert scores[-1] == 0  # nobody ever interacted with g


def test_sasrec_scores_are_those_of_rectools() -> None:
    from rectools import Columns
    from rectools.dataset import Dataset

    log = log_of("abcd", "bcde", "cdea", "deab", "ace", items=5)
    queries = queries_of(["ab", "cde"], ["cde", "abcde"])
    scores = sasrec_scores(log, queries, SMALL, 5, lambda _: None)
    with _alone(5):
        import pandas as pd

        model = _fitted(log, queries.longest, SMALL, lambda _: None)
        owner = np.repeat([0, 1], np.diff(queries.history_offsets))
        rows = pd.DataFrame({Columns.User: owner, Columns.Item: queries.history, Columns.Weight: 1.0})
        rows[Columns.Datetime] = pd.Timestamp(0)
        theirs = model.recommend([0, 1], Dataset.construct(rows), k=5, filter_viewed=False)
    known = {(user, item): score for user, item, score, _ in theirs.itertuples(index=False)}
    users = np.repeat([0, 1], np.diff(queries.offsets))
    expected = [known[user, item] for user, item in zip(users, queries.candidates, strict=True)]
    assert scores == pytest.approx(expected, abs=1e-5)


def test_sasrec_ranks_unseen_items_last_and_ties_all_after_a_history_without_a_known_item() -> None:
    log = log_of("abc", "bca", "cab", items=5)
    scores = sasrec_scores(log, queries_of(["ab", "d", "e"], ["cde", "abd", "ab"]), SMALL, 0, lambda _: None)
    assert scores[1] == scores[2] < scores[0]
    assert scores[3:].tolist() == [0] * 5


def test_every_fitted_baseline_finds_a_planted_ring(data: Path, tmp_path: Path) -> None:
    held_out = read_held_out(data)
    settings = SASRecConfig(dim=32, epochs=25)
    found = {name: auc(held_out, scores) for name, scores in fit(data, tmp_path / "out", settings=settings).items()}
    assert min(found.values()) > 0.8, found


def test_nothing_held_out_reaches_a_baseline(data: Path, tmp_path: Path) -> None:
    """The labels, the held-out interactions and every other user's history may be anything: the scores stay."""
    before = fit(data, tmp_path / "before")
    other = tmp_path / "data"
    other.mkdir()
    rewrite(data, other, "interactions", lambda table: table.filter(table["training"]))
    rewrite(data, other, "candidates", lambda table: table.set_column(2, "label", pa.array(swapped(table), pa.int8())))
    rewrite(data, other, "examples", lambda table: table)
    rewrite(data, other, "items", lambda table: table)
    after = fit(other, tmp_path / "after")
    for name, scores in before.items():
        assert scores.tobytes() == after[name].tobytes(), name


def rewrite(source: Path, target: Path, name: str, change: Callable[[pa.Table], pa.Table]) -> None:
    columns, file = getattr(schema, name.upper()), f"{name}.parquet"
    schema.write_table(change(schema.read_table(source / file, columns)), columns, target / file)


def swapped(table: pa.Table) -> list[int]:
    """Return labels with each example's positive moved to its other end."""
    labels = np.array(table["label"].to_pylist())
    for example in np.unique(table["example_id"].to_numpy()):
        rows = table["example_id"].to_numpy() == example
        labels[rows] = labels[rows][::-1]
    return labels.tolist()


def test_the_training_log_has_no_target_and_no_later_item(data: Path) -> None:
    log = schema.read_table(data / "interactions.parquet", schema.INTERACTIONS)
    known = set(pairs(log.filter(log["training"])))
    candidates = schema.read_table(data / "candidates.parquet", schema.CANDIDATES)
    examples = schema.read_table(data / "examples.parquet", schema.EXAMPLES)
    owner = dict(zip(examples["example_id"].to_pylist(), examples["user_id"].to_pylist(), strict=True))
    split = dict(zip(examples["example_id"].to_pylist(), examples["split"].to_pylist(), strict=True))
    targets = candidates.filter(pc.equal(candidates["label"], 1)).to_pylist()
    held_out = {(owner[row["example_id"]], row["item_id"]) for row in targets if split[row["example_id"]] != "train"}
    assert held_out
    assert not held_out & known
    assert len(read_training_log(data).item) == len(known)


def pairs(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True))


def test_the_seed_decides_every_bit(data: Path, tmp_path: Path) -> None:
    one, two, other = (fit(data, tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert all(one[name].tobytes() == two[name].tobytes() for name in FITTED)
    assert {name for name in FITTED if one[name].tobytes() != other[name].tobytes()} == {"mf", "sasrec"}


def test_blocks_of_users_change_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = read_queries(read_held_out(data), data)
    table = np.random.default_rng(0).random((queries.users, 20))
    whole = gather(queries, 20, lambda first, last: table[first:last])
    monkeypatch.setattr("msr_adapter.evaluate.baselines.training_log._BLOCK", 50)
    assert gather(queries, 20, lambda first, last: table[first:last]).tolist() == whole.tolist()
    owner = np.repeat(np.arange(queries.users), np.diff(queries.offsets))
    assert whole.tolist() == table[owner, queries.candidates].tolist()


def test_scores_of_other_candidates_are_refused(data: Path, tmp_path: Path) -> None:
    fit(data, tmp_path / "out", "item-knn")
    held_out = read_held_out(data)
    shorter = replace(held_out, table=held_out.table.slice(0, 10))
    with pytest.raises(StageError, match="'item-knn' do not fit the test candidates"):
        read_fitted("item-knn", shorter, tmp_path / "out")
    with pytest.raises(StageError, match="no scores of mf"):
        read_fitted("mf", held_out, tmp_path / "out")


def test_no_training_interaction_is_said(data: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()

    def forget(table: pa.Table) -> pa.Table:
        return table.set_column(3, "training", pa.array([False] * table.num_rows))

    rewrite(data, tmp_path / "data", "interactions", forget)
    with pytest.raises(StageError, match="may know no interaction"):
        read_training_log(tmp_path / "data")


def test_torch_is_left_as_it_was() -> None:
    import torch

    def state() -> Any:
        return torch.get_num_threads(), torch.random.get_rng_state().tolist()

    before = state()
    sasrec_scores(log_of("abc", "bca", items=3), queries_of(["a"], ["bc"]), SMALL, 0, lambda _: None)
    assert state() == before
