"""`msr recommend` where repeats are kept: what the user had may come again, what a filter dropped does not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.recommending import Asked, items_of, order, own_run, rows, trained, write, write_rated

ITEMS = "abcdefghijklmnopqrst"
START, DAY = 1_700_000_000, 86_400
HAD = {f"u{user}": [ITEMS[(3 * user + place) % 20] for place in (0, 1, 0, 2, 0, 1)] for user in range(12)}
"""Each user comes back to a first item twice, and to a second one once."""
LOW = {f"u{user}": ITEMS[(3 * user + 7) % 20] for user in range(12)}
YAML = """\
name: scripted
data: {source: {kind: table, interactions: log.csv, items: items.csv, min_rating: 4}, repeats: keep}
split: {fractions: [0.5, 0.2, 0.3], max_history: 3}
summarize:
  items: {model: &model {path: nobody, backend: scripted}}
  users: {model: *model, mode: direct}
train: {model: *model}
evaluate: {protocol: next-item, baselines: [popularity]}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("again")
    log: list[tuple[object, ...]] = []
    for user, items in HAD.items():
        log += [(user, item, START + DAY * (len(log) + place), 5) for place, item in enumerate(items)]
        log.append((user, LOW[user], START, 1))
    write_rated(folder, YAML, log, ITEMS)
    with trained(folder):
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return own_run(finished, tmp_path)


@pytest.mark.parametrize("kind", ["all", "item-knn:20", "popular:40"])
def test_what_the_user_had_comes_again_but_not_what_a_filter_dropped(folder: Path, kind: str) -> None:
    order(folder, candidates=kind, top=20)
    known = {*ITEMS[: len(ITEMS)]} & {item for items in HAD.values() for item in items}
    for user in HAD:
        assert set(items_of(folder, user)) == known - {LOW[user]}
    assert {row["history_items"] for row in rows(folder)} == {6}


def test_exclude_seen_leaves_out_both_and_include_seen_none(folder: Path) -> None:
    known = {item for items in HAD.values() for item in items}
    order(folder, candidates="all", top=20, include_seen=False)
    assert all(set(items_of(folder, user)) == known - {LOW[user], *HAD[user]} for user in HAD)
    order(folder, candidates="all", top=20, include_seen=True)
    assert all(set(items_of(folder, user)) == known for user in HAD)


def test_popular_items_are_led_by_the_users_own(folder: Path) -> None:
    order(folder, candidates="popular:4", top=4)
    for user, items in HAD.items():
        mine = sorted((row for row in rows(folder) if row["user_id"] == user), key=lambda row: row["retrieval_rank"])
        assert [row["item_id"] for row in mine[:2]] == [items[0], items[1]]  # had three times, twice
        assert [row["retrieved_by"] for row in mine] == ["history", "history", "popular", "popular"]
        assert len({row["item_id"] for row in mine}) == 4


def test_the_model_reads_the_latest_interactions_with_their_repeats(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked(monkeypatch)
    new = [("u0", "a", START + DAY * day, 5) for day in (900, 901, 901)]
    later = write(folder / "later.csv", ("user_id", "item_id", "timestamp", "rating"), new)
    order(folder, interactions=later, users=write(folder / "who.csv", ["user_id"], [["u0"]]))
    [read] = [request.prompt for request in asked.texts if "chose" in request.prompt]
    shown = [line.split("Title ")[1][0] for line in read.splitlines() if line[:1].isdigit()]
    assert shown == [HAD["u0"][-1], "a", "a"]
    assert {row["history_items"] for row in rows(folder)} == {8}
