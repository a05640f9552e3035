"""The fitted baselines: by hand, against brute force, on planted structure; and what they may not know."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from msr_adapter import schema
from msr_adapter.config.schema import (
    EvaluateConfig,
    FactorsConfig,
    ItemKNNConfig,
    ProtocolConfig,
    SASRecConfig,
    SplitConfig,
)
from msr_adapter.errors import StageError
from msr_adapter.evaluate.baselines.catalogue import BASELINES
from msr_adapter.evaluate.baselines.collaborative import fit_factors, fit_item_knn
from msr_adapter.evaluate.baselines.fitting import fit_baselines, read_fitted
from msr_adapter.evaluate.baselines.sasrec import fit_sasrec, sessions_of, settle_sasrec
from msr_adapter.evaluate.baselines.training_log import (
    BaselineLog,
    Fit,
    Queries,
    candidate_scores,
    gather,
    read_queries,
    read_training_log,
)
from msr_adapter.evaluate.candidates import HeldOut, read_held_out
from msr_adapter.metrics import evaluate_groups
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import Job
from tests.support.data_builders import Row, build_in, table_data

FITTED = tuple(row.name for row in BASELINES if row.fitting)
QUIET = Reporter(console=Console(quiet=True))
SMALL = SASRecConfig(dim=8, epochs=2, length=3)


def log_of(*words: str, items: int) -> BaselineLog:
    """Return the log in which user 0 interacted with the letters of the first word, in order; ``a`` is item 0."""
    pairs = [(user, ord(letter) - ord("a")) for user, word in enumerate(words) for letter in word]
    user, item = np.array(pairs, dtype=np.int64).T
    return BaselineLog(user, item, np.arange(len(user)), len(words), items)


def queries_of(history: list[str], candidates: list[str]) -> Queries:
    codes = [np.array([ord(letter) - ord("a") for letter in "".join(words)], np.int64)
             for words in (history, candidates)]  # fmt: skip
    bounds = [np.cumsum([0, *map(len, words)]).astype(np.int64) for words in (history, candidates)]
    return Queries(codes[0], bounds[0], codes[1], bounds[1])


def item_knn(log: BaselineLog, queries: Queries, settings: ItemKNNConfig = ItemKNNConfig()) -> np.ndarray:  # noqa: B008
    return candidate_scores(fit_item_knn(Fit(log, 0), settings), queries, log.items)


def sasrec(log: BaselineLog, queries: Queries, settings: SASRecConfig = SMALL, seed: int = 0) -> np.ndarray:
    return candidate_scores(fit_sasrec(Fit(log, seed), settings), queries, log.items)


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
    config = EvaluateConfig(protocol=ProtocolConfig(name="p"), baselines=names or FITTED, sasrec=settings, tune=False)
    fit_baselines(config, data, Job(out, QUIET, seed))
    return {name: read_fitted(name, read_held_out(data), out) for name in names or FITTED}


def auc(held_out: HeldOut, scores: np.ndarray) -> float:
    return evaluate_groups(scores, held_out.labels, held_out.offsets, ("auc",)).means()["auc"]


def test_item_knn_by_hand() -> None:
    log = log_of("ab", "abc", "ac", "d", items=5)
    scores = item_knn(log, queries_of(["a", "bc", "d"], ["bcde", "ad", "abc"]))
    ab, ac, bc = 2 / np.sqrt(3 * 2), 2 / np.sqrt(3 * 2), 1 / np.sqrt(2 * 2)
    assert scores == pytest.approx([ab, ac, 0, 0, ab + ac, 0, 0, 0, 0])
    assert item_knn(log, queries_of(["b"], ["c"])) == pytest.approx([bc])
    damped = item_knn(log, queries_of(["b"], ["c"]), ItemKNNConfig(damping=3))
    assert damped == pytest.approx([1 / np.sqrt(5 * 5)])


def test_item_knn_is_the_brute_force() -> None:
    rng = np.random.default_rng(1)
    seen = rng.random((30, 12)) < 0.3
    user, item = np.nonzero(seen)
    log = BaselineLog(user, item, np.zeros(len(user), np.int64), 30, 12)
    norm = np.sqrt(seen.sum(axis=0))
    cosine = (seen.T.astype(float) @ seen) / np.outer(norm, norm)
    history, candidates = rng.permuted(np.tile(np.arange(12), (9, 1)), axis=1)[:, [0, 1, 2]], np.arange(12)
    offsets = np.arange(10)
    queries = Queries(history.ravel(), 3 * offsets, np.tile(candidates, 9), 12 * offsets)
    assert item_knn(log, queries) == pytest.approx(cosine[history].sum(axis=1).ravel())


def test_a_user_is_folded_in_by_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    models = []
    fit_model = AlternatingLeastSquares.fit
    monkeypatch.setattr(AlternatingLeastSquares, "fit", lambda m, *a, **k: (models.append(m), fit_model(m, *a, **k)))
    log = log_of("abc", "bcd", "aef", "def", "acf", items=7)
    settings = FactorsConfig()
    queries = queries_of(["ab"], ["cdefg"])
    scores = candidate_scores(fit_factors(Fit(log, 3), settings), queries, log.items)
    items = np.vstack([models[0].item_factors.astype(float), np.zeros(settings.factors)])  # g has none
    seen = np.isin(np.arange(7), [0, 1])
    weights = np.where(seen, settings.confidence, 1.0)
    normal = items.T @ (weights[:, None] * items) + models[0].regularization * np.eye(items.shape[1])
    user = np.linalg.solve(normal, items.T @ (weights * seen))
    assert scores == pytest.approx(items[2:] @ user, abs=1e-4)
    assert scores[-1] == 0  # nobody ever interacted with g


def test_sasrec_scores_are_those_of_rectools(monkeypatch: pytest.MonkeyPatch) -> None:
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    models = []
    fit_model = SASRecModel.fit
    monkeypatch.setattr(SASRecModel, "fit", lambda model, rows: (models.append(model), fit_model(model, rows))[1])
    log = log_of("abcd", "bcde", "cdea", "deab", "ace", items=5)
    queries = queries_of(["ab", "cde"], ["cde", "abcde"])
    scores = sasrec(log, queries, seed=5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        owner = np.repeat([0, 1], np.diff(queries.history_offsets))
        rows = pd.DataFrame({Columns.User: owner, Columns.Item: queries.history, Columns.Weight: 1.0})
        rows[Columns.Datetime] = pd.Timestamp(0)
        theirs = models[0].recommend([0, 1], Dataset.construct(rows), k=5, filter_viewed=False)
    known = {(user, item): score for user, item, score, _ in theirs.itertuples(index=False)}
    users = np.repeat([0, 1], np.diff(queries.offsets))
    expected = [known[user, item] for user, item in zip(users, queries.candidates, strict=True)]
    assert scores == pytest.approx(expected, abs=1e-5)


def test_sasrec_ranks_unseen_items_last_and_ties_all_after_a_history_without_a_known_item() -> None:
    log = log_of("abc", "bca", "cab", items=5)
    scores = sasrec(log, queries_of(["ab", "d", "e"], ["cde", "abd", "ab"]))
    assert scores[1] == scores[2] < scores[0]
    assert scores[3:].tolist() == [0] * 5


def test_items_that_training_never_saw_change_no_fit() -> None:
    words, query = ("abc", "bca", "cab", "abd", "dcb"), (["ab", "c"], ["cd", "ab"])
    spread = str.maketrans("abcd", "bdgh")  # the same log in a catalogue of nine
    alone, among = log_of(*words, items=4), log_of(*[word.translate(spread) for word in words], items=9)
    queries = queries_of(*query), queries_of(*[[word.translate(spread) for word in side] for side in query])
    for fitted in (
        lambda log, asked: candidate_scores(fit_factors(Fit(log, 3), FactorsConfig()), asked, log.items),
        item_knn,
        sasrec,
    ):
        assert fitted(among, queries[1]).tolist() == fitted(alone, queries[0]).tolist()
    many = BaselineLog(alone.user, alone.item, alone.time, alone.users, 10_000)
    assert settle_sasrec(SASRecConfig(), many) == settle_sasrec(SASRecConfig(), alone)


def test_long_logs_are_learned_from_whole_in_pieces() -> None:
    log = log_of("abcdefgh", "hg", "abc", items=8)
    session, item = sessions_of(log, 3)
    pieces = ["".join(chr(97 + code) for code in item[session == number]) for number in np.unique(session)]
    assert pieces == ["ab", "bcde", "efgh", "hg", "abc"]
    whole, _ = sessions_of(log, 7)
    assert len(np.unique(whole)) == 3


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 9))
def test_pieces_predict_every_item_but_the_first_once_in_order(lengths: list[int], length: int) -> None:
    user = np.repeat(np.arange(len(lengths)), lengths)
    log = BaselineLog(user, np.arange(len(user)), np.arange(len(user)), len(lengths), len(user))
    session, item = sessions_of(log, length)
    assert np.bincount(session).max() <= length + 1
    assert (np.bincount(session) == 1).sum() == lengths.count(1)
    inside = np.diff(session) == 0
    assert (item[1:][inside] == item[:-1][inside] + 1).all()
    first = np.cumsum(lengths) - lengths
    assert sorted(item[1:][inside].tolist()) == sorted(set(range(len(user))) - set(first.tolist()))


def test_the_length_holds_most_logs_whatever_prompts_hold() -> None:
    log = log_of(*["abcdef"] * 95, *["abcdefghijklmnop"] * 5, items=16)
    assert settle_sasrec(SASRecConfig(), log).length == 5
    assert settle_sasrec(SASRecConfig(length=9), log).length == 9
    assert settle_sasrec(SASRecConfig(length=99), log).length == 15
    user = np.repeat(np.arange(3), 90)
    long = BaselineLog(user, np.tile(np.arange(90), 3), user, 3, 90)
    assert settle_sasrec(SASRecConfig(), long).length == 50


def test_scrambling_early_training_rows_changes_sasrec(tmp_path: Path) -> None:
    """Rows older than `max_history` of a training user's log are learned from."""
    made = long_logs(tmp_path / "a", max_history=2)
    before = fit(made, tmp_path / "before", "sasrec", settings=SASRecConfig(dim=8, epochs=2))
    other = tmp_path / "data"
    other.mkdir()
    copy_tables(made, other, interactions=scrambled_beginnings)
    after = fit(other, tmp_path / "after", "sasrec", settings=SASRecConfig(dim=8, epochs=2))
    assert before["sasrec"].tobytes() != after["sasrec"].tobytes()


def scrambled_beginnings(table: pa.Table) -> pa.Table:
    """Return the log with the first five items of every training user in reverse."""
    frame = pl.DataFrame(table)
    early = pl.col("training") & (pl.int_range(pl.len()).over("user_id") < 5)
    item = pl.when(early).then(pl.col("item_id").reverse().over(["user_id", early])).otherwise("item_id")
    return frame.with_columns(item.alias("item_id")).to_arrow().cast(schema.INTERACTIONS)


def long_logs(folder: Path, max_history: int, kind: str = "user-holdout") -> Path:
    rng = np.random.default_rng(0)
    rows = [(f"u{user:02}", f"i{item:02}", 2_000_000_000 + step)
            for user in range(40) for step, item in enumerate(rng.permutation(30)[:12])]  # fmt: skip
    split = SplitConfig(kind=kind, fractions=(0.6, 0.2, 0.2), max_history=max_history)
    return build_in(folder, table_data(folder, rows), split, negatives=5).out


@pytest.mark.parametrize("kind", ["user-holdout", "leave-last-out"])
def test_baselines_read_whole_histories_whatever_prompts_show(tmp_path: Path, kind: str) -> None:
    short, long = long_logs(tmp_path / "a", 2, kind), long_logs(tmp_path / "b", 30, kind)
    for split in ("validation", "test"):
        one, other = (read_queries(read_held_out(made, split), made) for made in (short, long))
        assert one.history.tolist() == other.history.tolist()
        assert one.history_offsets.tolist() == other.history_offsets.tolist()
    assert schema.read_table(long / "earlier.parquet", schema.EARLIER).num_rows == 0


def test_every_fitted_baseline_finds_a_planted_ring(data: Path, tmp_path: Path) -> None:
    held_out = read_held_out(data)
    settings = SASRecConfig(dim=32, epochs=25, length=5)
    found = {name: auc(held_out, scores) for name, scores in fit(data, tmp_path / "out", settings=settings).items()}
    assert min(found.values()) > 0.8, found


def test_nothing_held_out_reaches_a_baseline(data: Path, tmp_path: Path) -> None:
    """The labels, the held-out interactions and every other user's history may be anything: the scores stay."""
    before = fit(data, tmp_path / "before")
    other = tmp_path / "data"
    other.mkdir()
    copy_tables(
        data, other, interactions=lambda table: table.filter(table["training"]),
        candidates=lambda table: table.set_column(2, "label", pa.array(swapped(table), pa.int8())),
    )  # fmt: skip
    after = fit(other, tmp_path / "after")
    for name, scores in before.items():
        assert scores.tobytes() == after[name].tobytes(), name


def copy_tables(source: Path, target: Path, **changes: Callable[[pa.Table], pa.Table]) -> None:
    """Copy the tables that baselines read, some of them changed."""
    for name in ("interactions", "seen", "candidates", "examples", "items", "earlier"):
        rewrite(source, target, name, changes.get(name, lambda table: table))


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
    with pytest.raises(StageError, match="'item-knn' do not fit the candidates"):
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
    sasrec(log_of("abc", "bca", items=3), queries_of(["a"], ["bc"]))
    assert state() == before
