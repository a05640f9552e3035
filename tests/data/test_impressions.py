"""Impressions: what was shown and not clicked is a negative of its own kind; what was clicked together, one choice."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import (
    ColumnsConfig,
    DataConfig,
    NegativesConfig,
    ProtocolConfig,
    SplitConfig,
    TableSourceConfig,
    TrainNegativesConfig,
)
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.choices import choices_of
from msr_adapter.data.negatives.candidate_files import export_candidates
from msr_adapter.data.readers.sources import read
from msr_adapter.errors import UserError
from msr_adapter.evaluate.candidates import read_held_out
from msr_adapter.evaluate.sampling import describe_sampling
from msr_adapter.metrics import evaluate_groups
from msr_adapter.workflows.recommend.histories import extend, read_histories
from tests.support.data_builders import Built, build_in, write_csv
from tests.support.reader_fixtures import mind

LAST_OUT = SplitConfig(kind="leave-last-out")
START = 1_700_000_000
CLICKED = ColumnsConfig(clicked="clicked")
Row = Sequence[Any]
Lists = dict[str, tuple[set[str], set[str]]]


def impressions(users: int = 6) -> list[list[Any]]:
    """Return five impressions of six items each for every user; the last has two clicks, the others one."""
    rows = []
    for user in range(users):
        for number in range(5):
            for place in range(6):
                item, clicked = (3 * user + 5 * number + place) % 30, place == number or (number == 4 and place == 0)
                rows.append([f"u{user}", f"i{item:02}", START + 1000 * (10 * number + user), int(clicked), number])
    return rows


def built(folder: Path, negatives: dict[str, Any], rows: Sequence[Row] | None = None, **more: Any) -> Built:
    folder.mkdir(parents=True, exist_ok=True)
    header = ["user", "item", "timestamp", "clicked", "impression"]
    log = write_csv(folder / "log.csv", header, rows or impressions())
    columns = more.pop("columns", CLICKED)
    protocol = ProtocolConfig(name="p", negatives=NegativesConfig.model_validate(negatives),
                              candidates=more.pop("candidates", None))  # fmt: skip
    split = more.pop("split", LAST_OUT)
    train = more.pop("train", None)
    data = DataConfig(source=TableSourceConfig(kind="table", interactions=log, columns=columns), **more)
    return build_in(folder, data, split, protocol, train=train)


def lists(run: Built, split: str = "test") -> Lists:
    """Return user -> (positives, negatives)."""
    of = {row["example_id"]: row["user_id"] for row in run.rows("examples") if row["split"] == split}
    found: Lists = {user: (set(), set()) for user in of.values()}
    for row in run.rows("candidates"):
        if row["example_id"] in of:
            found[of[row["example_id"]]][1 - row["label"]].add(row["item_id"])
    return found


def expected(number: int, rows: Sequence[Row], until: int = 99) -> Lists:
    """Return what the impressions of this number hold, by plain loops: clicked; not clicked, and never clicked.

    Never: in no impression up to number ``until``.
    """
    ever = defaultdict(set)
    for user, item, _, clicked, impression in rows:
        if clicked and impression <= until:
            ever[user].add(item)
    found: Lists = {user: (set(), set()) for user in ever}
    for user, item, _, clicked, impression in rows:
        if impression == number and (clicked or item not in ever[user]):
            found[user][1 - clicked].add(item)
    return found


def test_lists_are_impressions_with_all_of_their_clicks(tmp_path: Path) -> None:
    run = built(tmp_path, {"kind": "impressions"})
    assert lists(run) == expected(4, impressions())
    assert lists(run, "validation") == expected(3, impressions())
    assert {len(positives) for positives, _ in lists(run).values()} == {2}
    assert run.counts["test_positives_beside_targets"] == 6
    assert run.counts["test_targets_without_impression"] == 0


def test_the_clicks_of_an_impression_are_in_no_history_of_its_list(tmp_path: Path) -> None:
    for number, kind in enumerate(({"kind": "impressions"}, {"kind": "uniform", "count": 3})):
        run = built(tmp_path / str(number), kind)
        clicks = [[f"i{(3 * user + 6 * place) % 30:02}" for place in range(4)] for user in range(6)]
        histories = {row["user_id"]: row["history"] for row in run.rows("examples") if row["split"] == "test"}
        assert histories == {f"u{user}": clicks[user] for user in range(6)}
    # Held out as a whole: training knows of neither click of the last impression.
    last = [row["training"] for row in run.rows("interactions") if row["timestamp"] >= 1000 * (START + 40_000)]
    assert last == [False] * 12


def test_what_was_only_shown_is_neither_seen_nor_history_but_in_the_catalogue(tmp_path: Path) -> None:
    run = built(tmp_path, {"kind": "all"})
    clicked = {(row[0], row[1]) for row in impressions() if row[3]}
    assert {(row["user_id"], row["item_id"]) for row in run.rows("interactions")} == clicked
    assert run.rows("seen") == []
    everything = {row[1] for row in impressions()}
    assert {row["item_id"] for row in run.rows("items")} == everything
    for user, (_, negatives) in lists(run).items():
        assert negatives == everything - {item for of, item in clicked if of == user}
    assert run.counts["items_only_shown"] == len(everything) - len({item for _, item in clicked}) > 0


def test_an_impression_column_joins_rows_of_different_times(tmp_path: Path) -> None:
    rows = [[user, item, time + 7 * (int(item[1:]) % 5), clicked, number]
            for user, item, time, clicked, number in impressions()]  # fmt: skip
    columns = ColumnsConfig(clicked="clicked", impression="impression")
    run = built(tmp_path, {"kind": "impressions"}, rows, columns=columns)
    assert lists(run) == expected(4, rows)


def test_count_is_the_most_and_the_draw_is_of_the_impression(tmp_path: Path) -> None:
    run, whole = built(tmp_path / "a", {"kind": "impressions", "count": 2}), expected(4, impressions())
    found = lists(run)
    assert all(positives == whole[user][0] for user, (positives, _) in found.items())
    assert all(len(negatives) == 2 and negatives <= whole[user][1] for user, (_, negatives) in found.items())
    again = built(tmp_path / "b", {"kind": "impressions", "count": 2})
    assert again.result["candidates_digest"] == run.result["candidates_digest"]


def test_targets_without_an_impression_take_the_fallback_or_are_an_error(tmp_path: Path) -> None:
    rows = [row for row in impressions() if row[0] != "u3" or row[3]]
    with pytest.raises(UserError, match=r"impressions: 20 negatives asked for, too many for .* list"):
        built(tmp_path / "error", {"kind": "impressions"}, rows)
    run = built(tmp_path / "fallback", {"kind": "impressions", "count": 4, "fallback": ["uniform"]}, rows)
    assert run.counts["test_targets_without_impression"] == 1
    assert run.counts["negatives_impressions_fell_back_to_uniform"] == 8  # of validation and test
    found, whole = lists(run), expected(4, rows)
    assert len(found["u3"][1]) == 4
    assert all(found[user][1] <= whole[user][1] for user in whole if user != "u3")
    # What another impression shows less than `count` of is not filled up.
    assert any("no impression" in finding["text"] for finding in run.audit["findings"])


def test_a_mixture_has_so_many_of_each(tmp_path: Path) -> None:
    mixture = {"kind": "mixture", "count": 4, "mixture": {"impressions": 2, "uniform": 2}, "fallback": ["uniform"]}
    run, whole = built(tmp_path, mixture), expected(4, impressions())
    for user, (positives, negatives) in lists(run).items():
        assert positives == whole[user][0]
        assert len(negatives) == 4
        assert len(negatives & whole[user][1]) >= 2


def test_training_lists_are_impressions_too(tmp_path: Path) -> None:
    train = TrainNegativesConfig.model_validate({"kind": "impressions", "count": 5, "fallback": ["uniform"]})
    run = built(tmp_path, {"kind": "impressions"}, train=train)
    assert lists(run) == expected(4, impressions())
    # The last two impressions are held out; what they show of a user's clicks is no negative of training either.
    found, whole = lists(run, "train"), expected(2, impressions())
    assert found.keys() == whole.keys()
    for user, (positives, negatives) in found.items():
        assert positives == whole[user][0]
        assert negatives == whole[user][1]


def test_a_split_by_time_knows_the_impressions_of_its_time(tmp_path: Path) -> None:
    moments = [1000 * (START + 10_000 * number) for number in (3, 4)]
    split = SplitConfig(kind="temporal", validation_from=moments[0], test_from=moments[1])
    train = TrainNegativesConfig.model_validate({"kind": "impressions", "count": 5, "fallback": ["uniform"]})
    run = built(tmp_path / "a", {"kind": "impressions"}, split=split, train=train)
    assert lists(run) == expected(4, impressions())
    assert lists(run, "validation") == expected(3, impressions(), until=3)
    found = lists(run, "train")
    assert found == expected(2, impressions(), until=2)
    # What is shown and clicked afterwards changes nothing of it.
    changed = [[*row[:3], 1 - row[3], row[4]] if row[4] >= 3 else row for row in impressions()]
    again = built(tmp_path / "b", {"kind": "uniform", "count": 1}, changed, split=split, train=train)
    assert lists(again, "train") == found


def test_a_source_without_impressions_is_told(tmp_path: Path) -> None:
    rows = [row for row in impressions() if row[3]]
    with pytest.raises(UserError, match="the source says of no row that an item was shown and not clicked") as error:
        built(tmp_path, {"kind": "impressions"}, rows)
    assert "data.source.columns.clicked" in str(error.value)


def test_a_column_of_clicks_that_is_not_named_is_a_warning(tmp_path: Path) -> None:
    run = built(tmp_path, {"kind": "uniform", "count": 1}, columns=ColumnsConfig())
    assert "interactions_dropped_not_clicked" not in run.counts
    assert any("clicked of" in f["text"] or "clicked is not read" in f["text"] for f in run.audit["findings"])


def test_other_words_than_yes_and_no_are_refused_with_their_line(tmp_path: Path) -> None:
    rows = impressions()
    rows[7] = [*rows[7][:3], "maybe", 1]
    with pytest.raises(UserError, match=r"log.csv:9.*clicked.*maybe"):
        built(tmp_path, {"kind": "impressions"}, rows)


def test_lists_of_several_positives_leave_and_come_back(tmp_path: Path) -> None:
    run = built(tmp_path / "a", {"kind": "impressions"})
    for suffix in ("parquet", "csv", "inter"):
        path = tmp_path / f"lists.{suffix}"
        exported = export_candidates(run.out, "test", None, path)
        again = built(tmp_path / suffix, {"kind": "impressions"}, candidates=path)
        assert again.result["candidates_digest"] == run.result["candidates_digest"] == exported["digest"]
    with pytest.raises(UserError, match="6 lists with several positives"):
        export_candidates(run.out, "test", "elliot", tmp_path / "lists.tsv")


def test_the_target_of_several_stands_anywhere(tmp_path: Path) -> None:
    run = built(tmp_path, {"kind": "impressions"}, impressions(60))
    found = run.audit["statistics"]["target_position"]
    assert found["standard_errors"] < 5
    assert run.audit["statistics"]["heuristics"]["lists"] == 60


def test_choices_are_impressions_or_single_rows() -> None:
    user = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    group = np.array([5, 7, 5, -1, -1, 9, 9, 9])  # 5 and 7 lie within each other; 9 is of two users
    found = choices_of(user, group)
    assert found.number.tolist() == [0, 0, 0, 1, 2, 3, 4, 4]
    assert found.start.tolist() == [0, 0, 0, 3, 4, 5, 6, 6]
    assert found.last.tolist() == [2, 3, 4, 5, 7]
    assert found.back(np.array([6, 8]), 1).tolist() == [5, 7]
    assert found.back(np.array([6, 8]), 2).tolist() == [4, 5]  # 5 is another user's: there is none


def test_mind_is_read_as_impressions(tmp_path: Path) -> None:
    corpus = read(mind(tmp_path), 0, audit := Audit())
    rows = corpus.interactions.collect().rows(named=True)
    clicks = [(row["user_id"], row["item_id"]) for row in sorted(rows, key=lambda row: row["timestamp"])
              if row["filtered"] is None]  # fmt: skip
    assert clicks == [("U1", "N1"), ("U1", "N2"), ("U1", "N7"), ("U1", "N8"), ("U1", "N3"), ("U2", "N4")]
    assert audit.counts["interactions_of_histories"] == 2
    shown = {(row["impression"], row["item_id"]) for row in rows if row["filtered"] == "not_clicked"}
    assert shown == {("1", "N4"), ("1", "N5"), ("2", "N6"), ("3", "N3"), ("4", "N9"), ("4", "N5")}
    assert corpus.items is not None
    assert corpus.items.row(0, named=True)["category"] == "sports > golf"


def test_bad_rows_of_mind_are_told_with_their_lines(tmp_path: Path) -> None:
    source = mind(tmp_path)
    text = (tmp_path / "behaviors.tsv").read_text().replace("N4-0", "N4").replace("11/16/2019 1", "2019-11-16 1")
    (tmp_path / "behaviors.tsv").write_text(text)
    with pytest.raises(UserError) as error:
        read(source, 0, Audit())
    told = str(error.value)
    for words in ("behaviors.tsv:1", "N1-1 N2-0", "behaviors.tsv:3", "11/15/2019 9:05:58 AM"):
        assert words in told


def test_the_bundled_protocol_takes_whole_impressions(tmp_path: Path) -> None:
    protocol = load_pipeline("demo", ["evaluate.protocol=impressions"], tmp_path).pipeline.evaluate.protocol
    assert (protocol.negatives.kind, protocol.primary_metric) == ("impressions", "gauc")
    negatives = protocol.negatives.model_dump(mode="json")
    assert lists(built(tmp_path / "run", negatives)) == expected(4, impressions())


@pytest.mark.filterwarnings("ignore:.*unsafe cast.*")  # Numba's, when ranx is compiled for the first time
@pytest.mark.slow
def test_metrics_of_several_positives_are_the_brute_force_and_ranx(tmp_path: Path) -> None:
    ranx = pytest.importorskip("ranx")
    run = built(tmp_path, {"kind": "impressions"}, impressions(30))
    held_out = read_held_out(run.out)
    scores = np.random.default_rng(3).random(held_out.table.num_rows)
    found = evaluate_groups(scores, held_out.labels, held_out.offsets, k=(1, 3))
    qrels: dict[str, dict[str, int]] = {}
    order: dict[str, dict[str, float]] = {}
    for user in range(30):
        part = slice(held_out.offsets[user], held_out.offsets[user + 1])
        ranked = held_out.labels[part][np.argsort(-scores[part])]
        qrels[str(user)] = {str(place): 1 for place in np.flatnonzero(held_out.labels[part])}
        order[str(user)] = {str(place): float(score) for place, score in enumerate(scores[part])}
        above = sum(int(ranked[a] > ranked[b]) for a in range(len(ranked)) for b in range(a + 1, len(ranked)))
        assert found.per_user["gauc"][user] == pytest.approx(above / (ranked.sum() * (1 - ranked).sum()))
        for k in (1, 3):
            ideal = sum(1 / np.log2(place + 2) for place in range(min(k, int(ranked.sum()))))
            assert found.per_user[f"hr@{k}"][user] == (ranked[:k].sum() > 0)
            gain = sum(label / np.log2(place + 2) for place, label in enumerate(ranked[:k]))
            assert found.per_user[f"ndcg@{k}"][user] == pytest.approx(gain / ideal)
    names = {"hr@3": "hit_rate@3", "recall@3": "recall@3", "mrr@3": "mrr@3", "ndcg@3": "ndcg@3", "map@3": "map@3"}
    theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(order), list(names.values()), make_comparable=True)
    for ours, name in names.items():
        if ours != "map@3":  # ranx divides by all positives, we by those that fit: tests/metrics/test_several.py
            assert found.per_user[ours].mean() == pytest.approx(theirs[name])


def test_what_was_shown_is_said_beside_the_numbers(tmp_path: Path) -> None:
    run = built(tmp_path, {"kind": "impressions"})
    protocol = ProtocolConfig(name="p", negatives=NegativesConfig(kind="impressions"))
    found = describe_sampling(protocol, read_held_out(run.out), 30)
    assert found["distribution"] == "shown together with the target and not clicked"
    assert "chosen by the system that served it" in found["caution"]


def test_clicks_that_come_later_are_read_and_what_was_shown_is_not_even_seen(tmp_path: Path) -> None:
    run = built(tmp_path, {"kind": "uniform", "count": 1})
    item, other = sorted({row["item_id"] for row in run.rows("items")})[-2:]
    later = pl.DataFrame({
        "user_id": ["u0", "u0"], "item_id": [item, other], "timestamp": [10**13, 10**13],
        "filtered": pl.Series([None, "not_clicked"], dtype=pl.String),
    })  # fmt: skip
    _, new = extend(read_histories(run.out), run.out, later)
    assert (new.added, new.filtered.height) == (1, 0)
