"""Repeat consumption: with `data.repeats: keep`, the next item may be one that the user had before."""

from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import (
    DataConfig,
    EvaluateConfig,
    KCoreConfig,
    LimitConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
    TrainNegativesConfig,
)
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.filters import clean
from msr_adapter.data.interaction_log import Parts, encode
from msr_adapter.errors import UserError
from msr_adapter.evaluate.baselines.simple import popularity_scores, repeat_scores
from msr_adapter.evaluate.baselines.training_log import BaselineInputs, read_training_log
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.evaluate.sampling import describe_sampling
from msr_adapter.evaluate.slice_groups import GROUPINGS, read_facts
from msr_adapter.heuristics import repeat_scores as scores_of
from tests.support.data_builders import Built, Row, build_in, corpus_of, log_of, logs, table_data, write_csv
from tests.support.negatives_builders import draw

LAST_OUT = SplitConfig(kind="leave-last-out")
START = 1_700_000_000_000
WORDS = ("abacaba", "bcbdbeb", "cccdccc", "defgdef", "eabcabd", "fgfgfgf")
"""The items of six users, in order of time; the last of each is its test target, which only u4 has not before."""
SMALL = ProtocolConfig(name="small", negatives=NegativesConfig(count=2))


def rows(words: tuple[str, ...] = WORDS) -> list[Row]:
    return [(f"u{user}", item, START + 1000 * (100 * place + user))
            for user, word in enumerate(words) for place, item in enumerate(word)]  # fmt: skip


def built(folder: Path, log: list[Row] | None = None, split: SplitConfig = LAST_OUT, **more: Any) -> Built:
    protocol = more.pop("protocol", SMALL)
    titles = {item: f"Title {item}" for item in "abcdefghijkl"}
    data = table_data(folder, log or rows(), titles, **{"repeats": "keep", **more})
    return build_in(folder, data, split, protocol)


def targets(run: Built, split: str = "test") -> dict[str, str]:
    of = {row["example_id"]: row["user_id"] for row in run.rows("examples") if row["split"] == split}
    return {of[row["example_id"]]: row["item_id"] for row in run.rows("candidates")
            if row["label"] and row["example_id"] in of}  # fmt: skip


@given(logs(), st.integers(1, 7))
def test_kept_repeats_are_the_rows_in_their_order(log: list[Row], shard: int) -> None:
    found = encode(corpus_of(log), Audit(), keep_repeats=True, parts=Parts(shard=shard))
    users, items = found.users.to_list(), found.items.to_list()
    seen = [(users[u], items[i], int(t)) for u, i, t in zip(found.user, found.item, found.time, strict=True)]
    assert seen == sorted(set(log), key=lambda row: (row[0], row[2]))
    assert found.repeats == (len({row[:2] for row in log}) < len(set(log)))


@given(st.lists(st.tuples(st.sampled_from("uv"), st.sampled_from("abc"), st.integers(0, 3)), min_size=1, max_size=30))
def test_equal_rows_of_one_time_are_one_and_counted(log: list[Row]) -> None:
    audit = Audit()
    found = encode(corpus_of(log), audit, keep_repeats=True, parts=Parts(shard=3))
    assert len(found.user) == len(set(log))
    assert audit.counts["interactions_dropped_duplicate"] == len(log) - len(set(log))
    # Rows of one time stay in the order of the file.
    for (user, time), same in groupby(
        zip(found.user.tolist(), found.time.tolist(), found.item.tolist(), strict=True), key=lambda row: row[:2]
    ):
        name = found.users[user]
        order = list(dict.fromkeys(item for one, item, moment in log if (one, moment) == (name, time)))
        assert [found.items[item] for *_, item in same] == order


def test_by_default_a_pair_counts_once_at_its_first_time(tmp_path: Path) -> None:
    run = built(tmp_path, repeats="first")
    assert [row["item_id"] for row in run.rows("interactions") if row["user_id"] == "u0"] == ["a", "b", "c"]
    assert run.counts["interactions_dropped_duplicate"] == sum(len(word) - len(set(word)) for word in WORDS)
    assert "repeats" not in run.audit["statistics"] or not run.audit["statistics"]["repeats"]


def test_histories_targets_and_popularity_have_every_interaction(tmp_path: Path) -> None:
    run = built(tmp_path)
    assert [row["item_id"] for row in run.rows("interactions") if row["user_id"] == "u0"] == list("abacaba")
    assert targets(run) == {f"u{user}": word[-1] for user, word in enumerate(WORDS)}
    assert targets(run, "validation") == {f"u{user}": word[-2] for user, word in enumerate(WORDS)}
    histories = {row["user_id"]: row["history"] for row in run.rows("examples") if row["split"] == "test"}
    assert histories == {f"u{user}": list(word[:-1]) for user, word in enumerate(WORDS)}
    counts = Counter(item for word in WORDS for item in word[:-2])
    assert {row["item_id"]: row["popularity"] for row in run.rows("items") if row["in_log"]} == {
        item: counts[item] for item in "abcdefg"
    }
    assert {row["item_id"]: row["popularity"] for row in run.rows("items") if not row["in_log"]} == dict.fromkeys(
        "hijkl", 0
    )


def test_filters_count_every_interaction() -> None:
    def items(words: tuple[str, ...], keep: bool, **data: Any) -> set[str]:
        corpus, audit = corpus_of(rows(words)), Audit()
        wanted = DataConfig.model_validate({"source": {"kind": "synthetic"}, **data})
        return set(clean(encode(corpus, audit, keep_repeats=keep), corpus, wanted, 0, audit).items)

    core = {"k_core": KCoreConfig(items=3)}
    assert items(("aaab", "bc"), True, **core) == {"a"}
    with pytest.raises(UserError, match="leaves nothing"):
        items(("aaab", "bc"), False, **core)
    limit = {"limit": LimitConfig(items=2)}
    assert items(("ccccb", "dab", "dab"), True, **limit) == {"b", "c"}
    assert items(("ccccb", "dab", "dab"), False, **limit) == {"a", "b"}


def test_only_the_target_is_excluded_unless_more_is_asked_for(tmp_path: Path) -> None:
    def negatives(exclude: str | None, kind: str = "all") -> dict[tuple[str, str], set[str]]:
        log = encode(corpus_of(rows()), Audit(), keep_repeats=True)
        test = NegativesConfig.model_validate({"kind": kind, "count": 2, "exclude": exclude})
        drawn = draw(log, test, TrainNegativesConfig.model_validate({"count": 1, "exclude": exclude}), split=LAST_OUT)
        return {key: set(items) for key, items in drawn.negatives(2).items()}

    everything = set("abcdefg")
    for exclude in (None, "target"):
        assert negatives(exclude) == {(f"u{n}", word[-1]): everything - {word[-1]} for n, word in enumerate(WORDS)}
    assert negatives("seen")["u0", "a"] == everything - set("abc")
    assert negatives("seen", "uniform")["u0", "a"] <= everything - set("abc")
    assert any(items & set(word) for (_, items), word in zip(negatives(None, "uniform").items(), WORDS, strict=True))


def test_without_repeats_null_is_seen() -> None:
    log = log_of(rows())
    assert not log.keeps
    for exclude in (None, "seen"):
        test = NegativesConfig.model_validate({"kind": "all", "exclude": exclude})
        drawn = draw(log, test, split=LAST_OUT)
        for (user, _), items in drawn.negatives(2).items():
            assert not set(items) & set(WORDS[int(user[1:])])


@pytest.mark.parametrize(("repeats", "stated", "found"), [
    ("first", "null", "seen"), ("keep", "null", "target"), ("keep", "seen", "seen"), ("first", "target", "target"),
])  # fmt: skip
def test_the_config_shows_what_null_stands_for(tmp_path: Path, repeats: str, stated: str, found: str) -> None:
    sets = [
        f"data.repeats={repeats}",
        f"evaluate.protocol.negatives.exclude={stated}",
        f"train.negatives.exclude={stated}",
    ]
    pipeline = load_pipeline("demo", sets, tmp_path / "run").pipeline
    assert pipeline.evaluate.protocol.negatives.exclude == pipeline.train.negatives.exclude == found


def test_a_users_lists_of_one_item_differ_from_time_to_time() -> None:
    one_user = [("u", item, 10 * place) for place, item in enumerate("abcdefghijklmnopqrstuvwxyz" + "aaaa")]
    log, split = (
        encode(corpus_of(one_user), Audit(), keep_repeats=True),
        LAST_OUT.model_copy(update={"train_targets": 2}),
    )
    drawn = draw(log, NegativesConfig(count=5), TrainNegativesConfig(count=5), split=split)
    table: dict[int, frozenset[int]] = {}
    for example, item in zip(drawn.candidates.example.tolist(), drawn.candidates.item.tolist(), strict=True):
        table[example] = table.get(example, frozenset()) | {item}
    assert len(table) == len(set(table.values())) == 4


def test_too_few_other_items_are_told(tmp_path: Path) -> None:
    protocol = ProtocolConfig(name="many", negatives=NegativesConfig(count=9))
    with pytest.raises(UserError, match="9 negatives asked for, more than there are beside the target") as error:
        built(tmp_path, protocol=protocol)
    assert "Ask for 6 or fewer" in str(error.value)


def test_a_published_split_keeps_repeats_in_the_history_of_its_target(tmp_path: Path) -> None:
    log = [[user, item, START + 1000 * (100 * place + number), split]
           for number, user in enumerate(("u", "v", "w"))
           for place, (item, split) in enumerate([("a", "train"), ("b", "train"), ("a", "train"), ("c", "validation"),
                                                  ("a", "test")])]  # fmt: skip
    log += [["x", item, START + place, "train"] for place, item in enumerate("defg")]
    path = write_csv(tmp_path / "log.csv", ["user", "item", "timestamp", "split"], log)
    source = TableSourceConfig(kind="table", interactions=path)
    protocol = ProtocolConfig(name="one", negatives=NegativesConfig(count=1))
    for repeats, history in (("keep", ["a", "b", "a", "c"]), ("first", ["b", "c"])):
        data = DataConfig.model_validate({"source": source, "repeats": repeats})
        run = build_in(tmp_path / repeats, data, SplitConfig(kind="column"), protocol)
        [found] = {tuple(row["history"]) for row in run.rows("examples") if row["split"] == "test"}
        assert list(found) == history


def test_the_audit_counts_targets_that_users_had_before(tmp_path: Path) -> None:
    run = built(tmp_path)
    assert run.counts["test_targets_had_before"] == 5
    found = run.audit["statistics"]["repeats"]
    assert found["test"] == {"targets": 5 / 6, "as_the_last": 1 / 6}  # cccdccc
    repeated = sum(len(word) - len(set(word)) for word in WORDS)
    assert found["interactions"] == repeated / sum(map(len, WORDS))
    texts = {finding["topic"]: finding["text"] for finding in run.audit["findings"]}
    assert "83% of the test targets" in texts["repeated-targets"]
    assert set(run.audit["statistics"]["heuristics"]["repeat"]) == {"auc", "gauc"}


def test_repeats_beyond_the_history_that_models_see_count_too(tmp_path: Path) -> None:
    run = built(tmp_path, split=SplitConfig(kind="leave-last-out", max_history=1))
    assert run.counts["test_targets_had_before"] == 5


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_the_heuristic_is_the_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, n_items = int(rng.integers(1, 5)), 8
    counts = rng.integers(0, 6, n_items)
    histories = [rng.integers(0, n_items, rng.integers(0, 9)).tolist() for _ in range(users)]
    lists = [rng.permutation(n_items)[: rng.integers(1, n_items)].tolist() for _ in range(users)]
    bounds = [np.cumsum([0, *map(len, parts)]) for parts in (lists, histories)]
    flat = [np.array([item for part in parts for item in part], dtype=np.int64) for parts in (lists, histories)]
    scores, had = scores_of(flat[0], bounds[0], flat[1], bounds[1], counts)

    def key(history: list[int], item: int) -> tuple[int, int, int]:
        last = max((place for place, one in enumerate(history) if one == item), default=-1)
        return history.count(item), last, 0 if item in history else int(counts[item])

    for user in range(users):
        part = slice(bounds[0][user], bounds[0][user + 1])
        keys = [key(histories[user], item) for item in lists[user]]
        assert had[part].tolist() == [one[0] > 0 for one in keys]
        mine = scores[part].tolist()
        for one, a in zip(keys, mine, strict=True):
            for other, b in zip(keys, mine, strict=True):
                assert (one < other) == (a < b)
                assert (one == other) == (a == b)


def inputs_of(run: Built) -> BaselineInputs:
    return BaselineInputs(read_held_out(run.out), run.out, EvaluateConfig(protocol=SMALL), 0)


def test_the_baseline_joins_where_a_candidate_is_in_its_users_history(tmp_path: Path) -> None:
    protocol = ProtocolConfig(name="all", negatives=NegativesConfig(kind="all"))
    run = built(tmp_path / "keep", protocol=protocol)
    held_out, scores = read_held_out(run.out), repeat_scores(inputs_of(run))
    assert scores is not None
    for user, word in enumerate(WORDS):
        part = slice(held_out.offsets[user], held_out.offsets[user + 1])
        ranked = [item for _, item in sorted(zip(-scores[part], held_out.items[part].to_pylist(), strict=True))]
        often = Counter(word[:-1])
        assert ranked[: len(often)] == sorted(often, key=lambda item: (-often[item], -word[:-1].rindex(item)))
    assert repeat_scores(inputs_of(built(tmp_path / "first", repeats="first", protocol=protocol))) is None
    assert not np.array_equal(scores, popularity_scores(inputs_of(run)))


def test_item_knn_compares_sets_of_users(tmp_path: Path) -> None:
    log = read_training_log(built(tmp_path).out)
    user, item = log.pairs()
    assert sorted(zip(user.tolist(), item.tolist(), strict=True)) == sorted(
        {*zip(log.user.tolist(), log.item.tolist(), strict=True)}
    )
    assert log.matrix().max() == max(Counter(zip(log.user.tolist(), log.item.tolist(), strict=True)).values()) > 1


def test_users_who_come_back_are_a_slice(tmp_path: Path) -> None:
    run = built(tmp_path, split=SplitConfig(kind="leave-last-out", max_history=1))
    found = GROUPINGS["repeat"](read_facts(read_held_out(run.out), run.out))
    assert [found.values[number] for number in found.group] == ["had before"] * 4 + ["new to the user", "had before"]
    first = built(tmp_path / "first", repeats="first")
    assert len(GROUPINGS["repeat"](read_facts(read_held_out(first.out), first.out)).values) == 1


def test_full_ranking_says_what_is_left_out(tmp_path: Path) -> None:
    run = built(tmp_path)
    for exclude, words in (("target", "every item but the target"), ("seen", "never interacted with")):
        negatives = NegativesConfig.model_validate({"kind": "all", "exclude": exclude})
        sampling = describe_sampling(ProtocolConfig(name="p", negatives=negatives), read_held_out(run.out), 7)
        assert words in sampling["distribution"]
