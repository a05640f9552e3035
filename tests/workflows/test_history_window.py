"""A window that moves by blocks is the same wherever a user is summarised; what has not moved comes from the cache."""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from string import ascii_lowercase

import polars as pl
import pytest

from msr_adapter import schema
from msr_adapter.errors import UserError
from msr_adapter.history_window import HistoryWindow
from msr_adapter.pipeline import run
from msr_adapter.pipeline.fingerprints import data_config
from msr_adapter.progress import Reporter
from msr_adapter.workflows.recommend.user_summaries import window_of
from tests.support.recommending import (
    DAY,
    START,
    TAKEN,
    YAML,
    Asked,
    load,
    order,
    own_run,
    rows,
    trained,
    write,
    write_pipeline,
)
from tests.support.scoring_pairs import score_rows
from tests.support.serving import served

BLOCKS = YAML.replace("max_history: 3", "max_history: 3, history_window: blocks")
WINDOWS = {4: 2, 5: 3, 6: 2}
"""Items of a history -> those that are read, of blocks of 2 and at most 3."""
LONG = {f"u{user}": random.Random(user).sample(ascii_lowercase, 14) for user in range(10)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pipeline")
    write_pipeline(folder)
    (folder / "scripted.yaml").write_text(BLOCKS)
    with trained(folder):
        yield folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return own_run(finished, tmp_path)


def titles(prompt: str) -> list[str]:
    return re.findall(r"^\d+\. Title (\w)", prompt, re.MULTILINE)


def chains(asked: Asked) -> list[list[str]]:
    """Return the items of each request about a user."""
    return [found for request in asked.texts if (found := titles(request.prompt))]


def window(items: list[str]) -> list[str]:
    return items[-WINDOWS[len(items)] :]


def blocks(items: list[str]) -> list[list[str]]:
    return [items[place : place + 2] for place in range(0, len(items), 2)]


def test_the_stages_cut_at_blocks(folder: Path) -> None:
    examples = schema.read_table(folder / "run" / "data" / "examples.parquet", schema.EXAMPLES)
    for user, history in zip(examples["user_id"].to_pylist(), examples["history"].to_pylist(), strict=True):
        before = TAKEN[user][:-1]  # the last one is the target
        assert history == (before if len(before) <= 3 else window(before))
    assert {len(history) for history in examples["history"].to_pylist()} == {2, 3}


def test_recommending_reads_the_same_window(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "run" / "cache" / "completions.sqlite").unlink(missing_ok=True)
    asked = Asked(monkeypatch)
    counts = order(folder)
    expected = {tuple(block) for items in TAKEN.values() for block in blocks(window(items))}
    assert {tuple(block) for block in chains(asked)} == expected
    assert counts["users"] == 10


def test_serving_and_scoring_pairs_answer_as_recommending_does(folder: Path, tmp_path: Path) -> None:
    order(folder, candidates="all", top=10, include_seen=True)
    known = {(row["user_id"], row["item_id"]): row["logit"] for row in rows(folder)}
    with served(load(folder / "pipeline", folder)) as server:
        for user in TAKEN:
            found = server.post("/v1/recommend", {"user_id": user, "candidates": list("abc"), "exclude_seen": False})
            assert {row["item_id"]: row["logit"] for row in found["items"]} == {
                item: known[user, item] for item in "abc"
            }
        explained = server.post("/v1/recommend", {"history": list("abcdef"), "candidates": ["j"], "explain": True})
        assert [step["items_read"] for step in explained["steps"]] == [2]
    write(folder / "pairs.csv", ("user", "item"), [(user, "a") for user in TAKEN])
    score_rows(folder, folder / "out.parquet")
    found = pl.read_parquet(folder / "out.parquet")
    assert found["logit"].to_list() == [known[user, "a"] for user in TAKEN]


def write_days(folder: Path, days: int) -> None:
    """Write the first interactions of each user, ``days`` of them."""
    log = [(user, item, START + DAY * day) for user, items in LONG.items() for day, item in enumerate(items[:days])]
    write(folder / "log.csv", ("user_id", "item_id", "timestamp"), log)
    write(folder / "items.csv", ("item_id", "title"), [(item, f"Title {item}") for item in ascii_lowercase])


@pytest.mark.parametrize(("kind", "each_day"), [
    # 10 users whose windows hold 4 to 6 items, in blocks of 3. Where it has moved, both blocks are read; else the last.
    ("blocks", [20, 10, 10, 20, 10, 10]),
    ("items", [20, 20, 20, 20, 20, 20]),
])  # fmt: skip
def test_a_day_more_asks_about_the_last_block_alone(kind: str, each_day: list[int], tmp_path: Path) -> None:
    yaml = YAML.replace("max_history: 3", f"max_history: 6, history_window: {kind}").replace("block: 2", "block: 3")
    (tmp_path / "scripted.yaml").write_text(yaml)
    found = []
    for day in range(7, 14):
        write_days(tmp_path, day)
        with pytest.MonkeyPatch.context() as patch:
            asked = Asked(patch)
            run(load(tmp_path, tmp_path), ("users",), reporter=Reporter(quiet=True))
        found.append(len(chains(asked)))
    assert found[1:] == each_day


@pytest.mark.parametrize(
    ("mode", "kind", "expected"),
    [("recurrent", "items", None), ("direct", "items", (3, 1)), ("none", "items", (3, 1)),
     ("recurrent", "blocks", (3, 2)), ("direct", "blocks", (3, 2)), ("none", "blocks", (3, 2))],
)  # fmt: skip
def test_what_of_a_history_commands_read(
    finished: Path, tmp_path: Path, mode: str, kind: str, expected: tuple[int, int] | None
) -> None:
    """A history that is read in blocks is read whole, as ever; where one prompt holds it, it is as training's was."""
    loaded = load(finished, tmp_path, f"summarize.users.mode={mode}", f"split.history_window={kind}")
    assert window_of(loaded.pipeline) == (None if expected is None else HistoryWindow(*expected))


def test_a_window_shorter_than_a_block_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="max_history of 4 or more"):
        load(finished, tmp_path, "summarize.users.block=4")


def test_the_window_counts_and_its_default_is_what_has_always_counted(finished: Path, tmp_path: Path) -> None:
    blocks, items = load(finished, tmp_path).pipeline, load(finished, tmp_path, "split.history_window=items").pipeline
    other = load(finished, tmp_path, "summarize.users.block=3").pipeline
    assert len({str(data_config(one)) for one in (blocks, items, other)}) == 3
    assert "history_window" not in str(data_config(items))
    longer = load(finished, tmp_path, "split.history_window=items", "summarize.users.block=3").pipeline
    assert data_config(longer) == data_config(items)
