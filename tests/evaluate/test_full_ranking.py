"""Full rankings against loops over users and items; what is retrieved; what reranking it is worth."""

from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from msr_adapter import heuristics, schema
from msr_adapter.config.schema import (
    EmbeddingConfig,
    EvaluateConfig,
    FullConfig,
    FusionConfig,
    NegativesConfig,
    ProtocolConfig,
    RetrieverName,
    SplitConfig,
)
from msr_adapter.config.schema.evaluate import ComparedName
from msr_adapter.errors import StageError
from msr_adapter.evaluate import catalogue_ranking, full_ranking
from msr_adapter.evaluate.baselines.catalogue import BASELINES, row_of
from msr_adapter.evaluate.baselines.fitting import FULL, RETRIEVED, fit_baselines, read_fitted
from msr_adapter.evaluate.baselines.training_log import BaselineInputs
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.evaluate.catalogue_ranking import CatalogueChoices, rank_targets, read_choices, read_ranks, top_items
from msr_adapter.evaluate.full_ranking import FullDirs, rank_fully
from msr_adapter.evaluate.retrieval import RetrieveDirs, reranked, retrieve
from msr_adapter.evaluate.table_retrieval import RetrievalSettings
from msr_adapter.metrics import MISSED, TargetRanks, evaluate_groups
from msr_adapter.retrieval import RETRIEVER_NAMES
from msr_adapter.stage_arguments import Job
from tests.evaluate.test_baselines_fitted import QUIET
from tests.support.data_builders import Row, build_in, table_data

SECONDS = 1_700_000_000
WORDS = ("red", "blue", "green", "car", "bus", "sky")
HEURISTICS = ("popularity", "recency", "title-overlap")
FITTED = ("item-knn", "mf")
K = (1, 3, 10)
NO_VECTORS = RetrievalSettings(EmbeddingConfig(), FusionConfig(), Path())


def rows(users: int = 40, items: int = 30, seed: int = 4) -> list[Row]:
    """Return a log in which some items are common and some pairs are disliked, for a filter to drop."""
    rng = np.random.default_rng(seed)
    weights = 1 / (1 + np.arange(items))
    weights /= weights.sum()
    return [(f"u{user:02}", f"i{item:02}", SECONDS + 1_000 * int(rng.integers(50)) + 7 * user + place)
            for user in range(users)
            for place, item in enumerate(rng.choice(items, int(rng.integers(4, 9)), False, weights))]  # fmt: skip


def build(folder: Path, protocol: ProtocolConfig, split: SplitConfig | None = None, **data: Any) -> Path:
    rng = np.random.default_rng(2)
    titles = {f"i{item:02}": " ".join(rng.choice(WORDS, int(rng.integers(0, 4)))) for item in range(30)}
    split = split or SplitConfig(kind="leave-last-out", min_history=1, max_history=3)
    return build_in(folder, table_data(folder, rows(), titles, k_core={"items": 3}, **data), split, protocol).out


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log with lists of five negatives."""
    protocol = ProtocolConfig(name="five", negatives=NegativesConfig(count=5))
    return build(tmp_path_factory.mktemp("sampled"), protocol)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same log with lists of the whole catalogue, as the data stage makes them."""
    return build(tmp_path_factory.mktemp("whole"), ProtocolConfig(name="all", negatives=NegativesConfig(kind="all")))


def config_of(*baselines: Any, **settings: Any) -> EvaluateConfig:
    protocol = ProtocolConfig(name="p", k=K, metrics=("gauc", "hr", "mrr", "ndcg"))
    return EvaluateConfig(protocol=protocol, baselines=baselines, tune=False, **settings)


def inputs_of(data: Path, *baselines: str, **settings: Any) -> BaselineInputs:
    asked = [name for name in baselines if row_of(name).on_request]
    return BaselineInputs(read_held_out(data), data, config_of(*asked, **settings), 0)


def scores_of_lists(data: Path, name: str, folder: Path) -> np.ndarray:
    """Return what a baseline gives the candidates of ``data``, by the path of the candidate lists."""
    row = row_of(name)
    if row.score is not None:
        found = row.score(inputs_of(data, name))
        assert found is not None
        return found
    folder.mkdir(exist_ok=True)
    fit_baselines(config_of(name), data, Job(folder, QUIET, 0))
    return read_fitted(name, read_held_out(data), folder)


def ranks_of(data: Path, name: str, folder: Path, exclude: str = "seen") -> TargetRanks:
    """Return the targets' places in the whole catalogue."""
    held_out, row = read_held_out(data), row_of(name)
    choices = read_choices(held_out, data, exclude)
    if row.fitting is not None:
        folder.mkdir(exist_ok=True)
        config = config_of(name)
        protocol = config.protocol.model_copy(update={"negatives": NegativesConfig(exclude=exclude)})
        fit_baselines(config.model_copy(update={"protocol": protocol}), data, Job(folder, QUIET, 0))
        return read_ranks(held_out, choices, folder / f"{name}{FULL}")
    assert row.whole is not None
    blocks = row.whole(inputs_of(data, name))
    assert blocks is not None
    return rank_targets(choices, blocks, name)


@pytest.mark.parametrize("name", [*HEURISTICS, *FITTED])
def test_every_baselines_full_ranking_is_a_loop_over_all_unseen_items(
    name: str, sampled: Path, whole: Path, tmp_path: Path
) -> None:
    scores, lists = scores_of_lists(whole, name, tmp_path / "lists"), read_held_out(whole)
    ranks = ranks_of(sampled, name, tmp_path / "full")
    assert len(lists.example_ids) == len(ranks.sizes) == 40
    for user in range(40):
        part = slice(lists.offsets[user], lists.offsets[user + 1])
        (own,) = scores[part][lists.labels[part] == 1]
        above = sum(other > own for other in scores[part].tolist())
        tied = sum(other == own for other in scores[part].tolist())
        assert (ranks.above[user], ranks.tied[user], ranks.sizes[user]) == (above, tied, len(scores[part])), user


BY_TIME = SplitConfig(kind="temporal", validation_from=(SECONDS + 25_000) * 1000,
                      test_from=(SECONDS + 32_000) * 1000, min_history=1)  # fmt: skip


@pytest.mark.parametrize("name", ["repeat", *HEURISTICS, "item-knn"])
@pytest.mark.parametrize("case", ["by time", "repeats"])
def test_so_it_is_under_a_split_by_time_and_where_repeats_are_kept(name: str, case: str, tmp_path: Path) -> None:
    """What is on offer later is no choice; what the user has seen is one, where the next item may be a repeat."""
    if name == "repeat" and case == "by time":
        return  # there is no such baseline then
    split, settings = (BY_TIME, {}) if case == "by time" else (None, {"repeats": "keep"})
    exclude = "seen" if case == "by time" else "target"
    lists = [NegativesConfig(count=2, exclude=exclude), NegativesConfig(kind="all", exclude=exclude)]
    made = [build(tmp_path / str(place), ProtocolConfig(name="p", negatives=one), split, **settings)
            for place, one in enumerate(lists)]  # fmt: skip
    scores, whole = scores_of_lists(made[1], name, tmp_path / "lists"), read_held_out(made[1])
    ranks = ranks_of(made[0], name, tmp_path / "full", exclude)
    assert np.array_equal(ranks.sizes, np.diff(whole.offsets))
    assert len(set(ranks.sizes.tolist())) > (1 if case == "by time" else 0)
    for user in range(len(whole.example_ids)):
        part = slice(whole.offsets[user], whole.offsets[user + 1])
        (own,) = scores[part][whole.labels[part] == 1]
        assert ranks.above[user] == (scores[part] > own).sum()
        assert ranks.tied[user] == (scores[part] == own).sum()


def test_choices_are_the_catalogue_without_what_the_user_has_seen(sampled: Path) -> None:
    held_out = read_held_out(sampled)
    choices = read_choices(held_out, sampled)
    seen: dict[str, set[str]] = {}
    for table, columns in (("interactions", schema.INTERACTIONS), ("seen", schema.SEEN)):
        for row in schema.read_table(sampled / f"{table}.parquet", columns).to_pylist():
            seen.setdefault(row["user_id"], set()).add(row["item_id"])
    items = schema.read_table(sampled / "items.parquet", schema.ITEMS)["item_id"].to_pylist()
    positive = [row["item_id"] for row in held_out.table.to_pylist() if row["label"]]
    for user, (name, target) in enumerate(zip(held_out.user_ids.to_pylist(), positive, strict=True)):
        hidden = choices.hidden[choices.hidden_offsets[user] : choices.hidden_offsets[user + 1]]
        assert {items[item] for item in hidden} == seen[name] - {target}
        assert items[choices.targets[user]] == target
        assert choices.sizes[user] == len(items) - len(seen[name]) + 1


def test_what_is_seen_is_a_choice_where_nothing_is_excluded(sampled: Path) -> None:
    assert (read_choices(read_held_out(sampled), sampled, "target").sizes == len(
        schema.read_table(sampled / "items.parquet", schema.ITEMS))).all()  # fmt: skip


@pytest.mark.parametrize("name", [*HEURISTICS, *FITTED])
def test_blocks_change_nothing(name: str, sampled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ranks_of(sampled, name, tmp_path / "one")
    monkeypatch.setattr(catalogue_ranking, "BLOCK", 90)  # three users at a time
    other = ranks_of(sampled, name, tmp_path / "other")
    assert np.array_equal(one.above, other.above)
    assert np.array_equal(one.tied, other.tied)


def test_several_targets_of_a_user_and_a_user_with_several_lists() -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (5, 12)).astype(float)
    targets = [[3], [0, 11, 4], [5, 6], [1], [2, 9, 8]]
    hidden = [[0, 1], [], [11], [3], [0]]
    offsets = [np.cumsum([0, *map(len, lists)]) for lists in (targets, hidden)]
    choices = CatalogueChoices(
        12, np.concatenate(targets), offsets[0], np.concatenate(hidden).astype(np.int64), offsets[1]
    )
    order = np.array([4, 1, 0, 3, 2])

    def blocks(step: int) -> Any:
        assert step > 5
        for users in (order[:2], order[2:]):
            yield users, scores[users]

    ranks = rank_targets(choices, blocks, "it")
    place = 0
    for user, own in enumerate(targets):
        free = [item for item in range(12) if item not in hidden[user]]
        for target in own:
            level = scores[user, target]
            assert ranks.above[place] == sum(scores[user, item] > level for item in free)
            assert ranks.tied[place] == sum(scores[user, item] == level for item in free)
            place += 1
    flat = [(scores[user, item], item in targets[user]) for user in range(5) for item in range(12)
            if item not in hidden[user]]  # fmt: skip
    values, labels = np.array(flat).T
    whole = evaluate_groups(values, labels, np.cumsum([0, *choices.sizes]), ("ndcg", "map", "mrr"), (4,)).per_user
    for name in whole:
        assert ranks.at(name[:-2], 4) == pytest.approx(whole[name])


def test_scores_that_are_no_numbers_are_counted(sampled: Path) -> None:
    choices = read_choices(read_held_out(sampled), sampled)

    def blocks(step: int) -> Any:
        scores = np.zeros((choices.users, choices.items))
        scores[0, :2] = np.nan, np.inf
        yield np.arange(choices.users), scores

    with pytest.raises(StageError, match="2 scores of sasrec over the whole catalogue are not numbers"):
        rank_targets(choices, blocks, "sasrec")


@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=4), min_size=1, max_size=8),
    st.lists(st.lists(st.integers(0, 7), max_size=5), min_size=1, max_size=5),
    st.integers(1, 40),
)
def test_titles_over_the_catalogue_are_those_of_lists_to_the_last_bit(
    words: list[list[str]], histories: list[list[int]], chunk: int
) -> None:
    titles = heuristics.title_vectors([" ".join(one) for one in words])
    histories = [[item % len(words) for item in one] for one in histories]
    history, past = np.array([*chain.from_iterable(histories)], np.int64), np.cumsum([0, *map(len, histories)])
    every = np.tile(np.arange(len(words)), len(histories))
    offsets = len(words) * np.arange(len(histories) + 1)
    wanted = heuristics.title_overlap(titles, every, offsets, history, past).reshape(len(histories), -1)
    found = heuristics.title_overlap_with_all(titles, heuristics.title_index(titles), history, past, chunk)
    assert np.array_equal(found, wanted)


@given(st.integers(1, 12), st.integers(0, 10**6))
def test_the_first_of_the_catalogue_are_those_of_a_sorted_list(top: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, popularity = rng.integers(0, 3, (4, 9)).astype(float), rng.integers(0, 3, 9)
    hidden = [rng.choice(9, int(rng.integers(0, 8)), False) for _ in range(4)]
    targets = [next(item for item in range(9) if item not in one) for one in hidden]
    choices = CatalogueChoices(9, np.array(targets), np.arange(5), np.concatenate(hidden).astype(np.int64),
                      np.cumsum([0, *map(len, hidden)]))  # fmt: skip
    offsets, found = top_items(choices, lambda step: iter([(np.arange(4), scores.copy())]), popularity, top)
    for user in range(4):
        free = [item for item in range(9) if item not in hidden[user]]
        best = sorted(free, key=lambda item: (-scores[user, item], -popularity[item], item))[:top]
        assert found[offsets[user] : offsets[user + 1]].tolist() == best


@given(st.integers(0, 10**6))
def test_reranking_is_a_loop_over_what_was_retrieved(seed: int) -> None:
    rng = np.random.default_rng(seed)
    targets = [[0], [1, 2], [3]]
    choices = CatalogueChoices(
        6, np.concatenate(targets), np.array([0, 1, 3, 4]), np.empty(0, np.int64), np.zeros(4, np.int64)
    )
    lists = [rng.choice(6, int(rng.integers(1, 6)), False).tolist() for _ in targets]
    table = pa.table({
        "example_id": np.repeat([10, 11, 12], [len(one) for one in lists]),
        "item_id": [str(item) for one in lists for item in one],
        "label": [int(item in targets[user]) for user, one in enumerate(lists) for item in one],
    }, schema=schema.CANDIDATES)  # fmt: skip
    scores = rng.integers(0, 3, table.num_rows).astype(float)
    ranks = reranked(choices, np.array([10, 11, 12]), table, scores)
    begin = 0
    for user, one in enumerate(lists):
        values = scores[begin : begin + len(one)]
        begin += len(one)
        hits = [values[one.index(item)] for item in targets[user] if item in one]
        wanted = sorted((int((values > own).sum()), int((values == own).sum())) for own in hits)
        wanted += [(MISSED, 1)] * (len(targets[user]) - len(hits))
        mine = ranks.owner == user
        assert sorted(zip(ranks.above[mine].tolist(), ranks.tied[mine].tolist(), strict=True)) == wanted
        for k in (1, 3):
            hit = [min(1, max(0, (k - above) / tied)) for above, tied in wanted]
            if len(hit) == 1:
                assert ranks.at("hr", k)[user] == pytest.approx(hit[0])


def test_scores_of_other_users_are_refused(sampled: Path) -> None:
    choices = read_choices(read_held_out(sampled), sampled)
    table = read_held_out(sampled).table.slice(6)
    with pytest.raises(StageError, match="does not fit the test users"):
        reranked(choices, read_held_out(sampled).example_ids, table, np.zeros(table.num_rows))


@pytest.mark.parametrize("name", ["popularity", "item-knn", "mf"])
def test_what_is_retrieved_is_the_head_of_the_full_ranking(name: str, whole: Path, tmp_path: Path) -> None:
    """The lists of the whole catalogue, sorted by the baseline's scores, begin with it."""
    config = config_of("popularity", full=FullConfig(retriever=name, top=10))
    (tmp_path / "fitted").mkdir()
    (tmp_path / "retrieved").mkdir()
    if row_of(name).fitting:
        fit_baselines(config, whole, Job(tmp_path / "fitted", QUIET, 0))
        assert (tmp_path / "fitted" / RETRIEVED).exists()
    dirs = RetrieveDirs(whole, tmp_path / "fitted")
    summary = retrieve(config, dirs, NO_VECTORS, Job(tmp_path / "retrieved", QUIET, 0))
    found = schema.read_table(tmp_path / "retrieved" / "candidates.parquet", schema.CANDIDATES).to_pylist()
    scores, lists = scores_of_lists(whole, name, tmp_path / "lists"), read_held_out(whole)
    items = schema.read_table(whole / "items.parquet", schema.ITEMS)
    popularity = dict(zip(items["item_id"].to_pylist(), items["popularity"].to_pylist(), strict=True))
    wanted = []
    for user, example in enumerate(lists.example_ids.tolist()):
        part = range(lists.offsets[user], lists.offsets[user + 1])
        names = lists.items.to_pylist()
        best = sorted(part, key=lambda row: (-scores[row], -popularity[names[row]], names[row]))[:10]
        wanted += [{"example_id": example, "item_id": names[row], "label": int(lists.labels[row])} for row in best]
    assert found == wanted
    hits = sum(row["label"] for row in found)
    assert 0 < hits < 40
    recalls = summary.pop("recalls")  # type: ignore[misc]
    assert summary == {"retriever": name, "users": 40, "candidates": 400, "targets_found": hits}
    assert list(recalls) == ["popular"]
    assert recalls["popular"] == hits / 40 or name != "popularity"  # the same, by another way


def full_of(data: Path, judged: tuple[str, ...], **settings: Any) -> Any:
    found = rank_fully(config_of(*judged, **settings), FullDirs(None, None, {}), inputs_of(data, *judged), judged)
    return None if found is None else found.entry


def test_the_part_of_the_metrics_file(sampled: Path, whole: Path) -> None:
    entry = full_of(sampled, ("popularity", "random", "base", "title-overlap"))
    held_out = read_held_out(whole)
    assert entry["items"] == 30 - (30 - len(schema.read_table(sampled / "items.parquet", schema.ITEMS)))
    assert entry["candidates"] == pytest.approx(np.diff(held_out.offsets).mean())
    assert entry["primary"] == "ndcg@10"
    assert list(entry["models"]) == ["popularity", "title-overlap"]
    assert set(entry["absent"]) == {"random", "base"}
    assert all(entry["absent"].values())
    scores = scores_of_lists(whole, "popularity", sampled)
    values = evaluate_groups(scores, held_out.labels, held_out.offsets, ("hr", "mrr", "ndcg"), K).means()
    assert {name: value["mean"] for name, value in entry["models"]["popularity"].items()} == pytest.approx(values)
    assert all(value["low"] < value["mean"] < value["high"] for value in entry["models"]["popularity"].values())
    chance = evaluate_groups(np.zeros(len(scores)), held_out.labels, held_out.offsets, ("hr", "mrr", "ndcg"), K).means()
    assert entry["chance"] == pytest.approx(chance)


def test_nothing_is_ranked_where_it_says_nothing_new(sampled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, dirs = config_of("popularity"), FullDirs(None, None, {})
    without = config.protocol.model_copy(update={"metrics": ("auc", "gauc")})
    listed = config.protocol.model_copy(update={"negatives": NegativesConfig(kind="all")})
    for protocol in (without, listed):
        changed = config.model_copy(update={"protocol": protocol})
        assert rank_fully(changed, dirs, inputs_of(sampled), ("popularity",)) is None
        assert full_ranking.unranked(changed, 30) == []
    monkeypatch.setattr(catalogue_ranking, "MOST_ITEMS", 20)
    assert rank_fully(config, dirs, inputs_of(sampled), ("popularity",)) is None
    (finding,) = full_ranking.unranked(config, 30)
    assert "30 items" in finding["text"]


def test_every_baseline_has_a_full_ranking_or_says_why() -> None:
    for row in BASELINES:
        assert bool(row.without_whole) != bool(row.fitting or row.whole), row.name


def test_what_may_retrieve_has_a_full_ranking() -> None:
    fitted = {row.name for row in BASELINES if row.fitting or row.whole}
    assert set(get_args(RetrieverName)) <= fitted | set(RETRIEVER_NAMES)
    assert get_args(ComparedName) == RETRIEVER_NAMES


@pytest.mark.parametrize(("settings", "said"), [
    ({"full": {"top": 5}}, "full.top: 5 items cannot fill the first 10 places"),
    ({"full": {"base": True}}, "full.base: true, but baselines does not name base"),
    ({"full": {}, "protocol": ProtocolConfig(name="auc", metrics=("auc",))}, "no metric with a cut-off"),
])  # fmt: skip
def test_a_retrieval_that_cannot_be_judged_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EvaluateConfig.model_validate({"protocol": ProtocolConfig(name="p"), "baselines": ("random",), **settings})
