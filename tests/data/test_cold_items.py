"""Items held out of training entirely: nothing before the test knows of them, and they alone are its targets."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import ColdItemsConfig, NegativesConfig, ProtocolConfig, SplitConfig
from msr_adapter.errors import UserError
from tests.support.data_builders import Built, Row, build_in, random_rows, table_data, write_csv

ROWS = random_rows(90, 50, 8)
BY_TIME = SplitConfig(kind="temporal", validation_from=1_000_400_000, test_from=1_000_500_000)
SPLITS = [SplitConfig(fractions=(0.5, 0.1, 0.4)), SplitConfig(kind="leave-last-out"), BY_TIME]


def cold(kind: Any = "popularity-matched", count: int = 3, how: Any = "drawn", **chosen: Any) -> ProtocolConfig:
    negatives = NegativesConfig(kind=kind, count=count)
    return ProtocolConfig(name="test", negatives=negatives, cold=ColdItemsConfig(kind=how, **chosen or {"items": 15}))


def make(folder: Path, split: SplitConfig, protocol: ProtocolConfig, rows: list[Row] = ROWS) -> Built:
    return build_in(folder, table_data(folder, rows), split, protocol)


def parts(built: Built) -> tuple[dict[int, dict[str, Any]], set[str], dict[int, str]]:
    """Return the examples by id, the held-out items, and each example's target."""
    examples = {row["example_id"]: row for row in built.rows("examples")}
    targets = {row["example_id"]: row["item_id"] for row in built.rows("candidates") if row["label"]}
    held_out = {target for example, target in targets.items() if examples[example]["split"] == "test"}
    return examples, held_out, targets


@pytest.mark.parametrize("split", SPLITS, ids=lambda one: one.kind)
@pytest.mark.parametrize("kind", ["popularity-matched", "uniform"])
def test_nothing_before_the_test_knows_of_them(tmp_path: Path, split: SplitConfig, kind: str) -> None:
    built = make(tmp_path, split, cold(kind))
    examples, held_out, targets = parts(built)
    assert built.counts["cold_items"] == 15
    assert 0 < len(held_out) <= 15
    popularity = {row["item_id"]: row["popularity"] for row in built.rows("items")}
    assert not any(popularity[item] for item in held_out)
    assert not any(set(row["history"]) & held_out for row in examples.values())
    assert not any(set(row["items"]) & held_out for row in built.rows("earlier"))
    assert not any(row["training"] for row in built.rows("interactions") if row["item_id"] in held_out)
    shown = [row for row in built.rows("candidates") if row["item_id"] in held_out]
    assert {examples[row["example_id"]]["split"] for row in shown} == {"test"}
    assert {targets[example] for example, row in examples.items() if row["split"] == "test"} == held_out
    if kind == "popularity-matched":  # whoever knows popularity alone knows nothing
        assert {popularity[row["item_id"]] for row in built.rows("candidates")
                if examples[row["example_id"]]["split"] == "test"} == {0}  # fmt: skip


@pytest.mark.parametrize("split", SPLITS, ids=lambda one: one.kind)
def test_the_target_is_the_last_of_them_and_the_history_what_came_before(tmp_path: Path, split: SplitConfig) -> None:
    built = make(tmp_path, split, cold("uniform"))
    examples, held_out, targets = parts(built)
    log = {}
    for user, item, time in sorted(ROWS, key=lambda row: row[2]):
        log.setdefault(user, []).append((item, time * 1000))
    for example, row in examples.items():
        if row["split"] == "test":
            mine = log[row["user_id"]]
            place = [item for item, _ in mine].index(targets[example])
            assert mine[place][1] == row["timestamp"]
            before = [item for item, _ in mine[:place]]
            assert row["history"] == [item for item in before if item in row["history"]]
            assert set(row["history"]) <= set(before) - held_out
    seen = {(row["user_id"], row["item_id"]) for name in ("interactions", "seen") for row in built.rows(name)}
    assert seen == {(user, item) for user, item, _ in ROWS}
    for row in built.rows("candidates"):
        assert row["label"] or (examples[row["example_id"]]["user_id"], row["item_id"]) not in seen


def test_users_are_trained_and_tested_as_without(tmp_path: Path) -> None:
    split = SPLITS[0]
    with_them, without = (make(tmp_path / name, split, one) for name, one in (
        ("with", cold()), ("without", ProtocolConfig(name="test", negatives=NegativesConfig(count=3)))))  # fmt: skip
    users = [{row["user_id"]: row["split"] for row in built.rows("examples")} for built in (with_them, without)]
    assert users[0].items() <= users[1].items()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), share=st.floats(0.05, 0.6), kind=st.sampled_from(["user-holdout", "leave-last-out"]))
def test_held_out_interactions_teach_nothing(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float, kind: Any
) -> None:
    """Whoever chose a held-out item, and when, changes no training example, list or count, but for ends of logs."""
    rows = random_rows(20, 12, 6, seed)
    folder = tmp_path_factory.mktemp("cold")
    protocol = cold("uniform", 1, share=share)
    try:
        built = make(folder, SplitConfig(kind=kind, fractions=(0.6, 0, 0.4)), protocol, rows)
    except UserError:  # nobody to test
        return
    examples, held_out, _ = parts(built)
    train = [row for row in built.rows("candidates") if examples[row["example_id"]]["split"] != "test"]
    assert not {row["item_id"] for row in train} & held_out


def test_new_items_are_those_that_appear_when_training_has_ended(tmp_path: Path) -> None:
    late = [(user, f"new{place % 5}", 1_000_600 + place) for place, (user, _, _) in enumerate(ROWS[:40])]
    rows = list({(user, item): (user, item, time) for user, item, time in [*ROWS, *late]}.values())
    built = make(tmp_path, BY_TIME, cold("uniform", how="new"), rows)
    _, held_out, _ = parts(built)
    assert held_out <= {f"new{place}" for place in range(5)}
    assert built.counts["cold_items"] >= 5


def test_what_cannot_be_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cold\.kind: new, but split\.kind is user-holdout"):
        make(tmp_path / "a", SplitConfig(), cold("uniform", 1, how="new"))
    with pytest.raises(UserError, match="50 items of the 50 that have an interaction"):
        make(tmp_path / "b", SplitConfig(), cold(items=50))
    with pytest.raises(UserError, match="no test example"):
        make(tmp_path / "c", SplitConfig(min_history=30), cold())


def test_a_published_split_holds_out_what_it_tests(tmp_path: Path) -> None:
    folder = tmp_path / "column"
    data = table_data(folder, ROWS)
    rows = [(*row, "test" if place % 12 > 8 else "train") for place, row in enumerate(ROWS)]
    write_csv(folder / "log.csv", ["user", "item", "timestamp", "split"], rows)
    built = build_in(folder, data, SplitConfig(kind="column"), cold("uniform"))
    examples, held_out, _ = parts(built)
    assert not any(set(row["history"]) & held_out for row in examples.values())
    assert not any(row["training"] for row in built.rows("interactions") if row["item_id"] in held_out)
