"""A run of a log with events: what a changed word or weight makes anew, and what `msr recommend` reads of events."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.event_schemas import EVENT_WORDS
from msr_adapter.pipeline import run
from msr_adapter.progress import Reporter
from msr_adapter.schema import read_table
from msr_adapter.workflows.recommend.histories import Histories, extend, read_histories
from tests.support.data_builders import write_csv
from tests.support.scripted_pipeline import pretend_to_train_stages

YAML = """\
name: shop
data:
  source:
    kind: table
    interactions: log.csv
    items: items.csv
    events:
      {{column: event, positive: [purchase], history: [view], negative: [remove], weight: {weight}, words: {words}}}
split: {{fractions: [0.5, 0.2, 0.3], max_history: 3}}
summarize:
  items: {{model: &model {{path: nobody, backend: scripted}}}}
  users: {{model: *model, mode: none}}
train: {{model: *model}}
evaluate: {{protocol: next-item, baselines: [popularity]}}
templates: templates
"""
HISTORY = "{% for item in items %}{{ item.event }} {{ item.title }}{% if not loop.last %}; {% endif %}{% endfor %}"
AT = 1_700_000_000


def write_yaml(folder: Path, weight: str = "{}", words: str = "{view: viewed, purchase: bought}") -> None:
    (folder / "shop.yaml").write_text(YAML.format(weight=weight, words=words))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pretend_to_train_stages(monkeypatch)
    # Each user looks at three items and takes one out of the cart, then buys the last.
    rows = [(f"u{u:02}", f"i{(u * 7 + k * 3) % 40:02}", AT + 100 * u + k, word) for u in range(30)
            for k, word in enumerate(["view", "view", "purchase", "view"])]  # fmt: skip
    rows += [(f"u{u:02}", f"i{(u * 7 + 3) % 40:02}", AT + 100 * u + 8, "remove") for u in range(30)]
    rows += [(f"u{u:02}", f"i{40 + u:02}", AT + 100 * u + 9, "purchase") for u in range(30)]
    write_csv(tmp_path / "log.csv", ["user_id", "item_id", "timestamp", "event"], rows)
    write_csv(tmp_path / "items.csv", ["item_id", "title"], [(f"i{i:02}", f"Title {i}") for i in range(70)])
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "history.j2").write_text(HISTORY)
    write_yaml(tmp_path)
    return tmp_path


def load(folder: Path) -> LoadedPipeline:
    return load_pipeline(str(folder / "shop.yaml"), run_dir=folder / "run")


def changed(folder: Path) -> set[str]:
    made = run(load(folder), ("evaluate",), reporter=Reporter(quiet=True))
    return {stage.name for stage in made.stages if stage.state == "done"}


def test_a_word_makes_anew_what_says_it_and_a_weight_what_counts_it(shop: Path) -> None:
    assert {"users", "score"} <= changed(shop)
    told = pl.read_parquet(shop / "run" / "users" / "users.parquet").join(
        pl.read_parquet(shop / "run" / "data" / "examples.parquet"), on="example_id"
    )
    text = told.filter(user_id="u01")["summary"].item()
    assert text == "viewed Title 7; bought Title 13; viewed Title 16"  # not what was taken out again
    assert changed(shop) == set()
    write_yaml(shop, words="{view: looked at, purchase: bought}")
    again = changed(shop)
    assert {"data", "users", "dataset", "score"} <= again
    assert not {"items"} & again
    (shop / "templates" / "history.j2").write_text(HISTORY.replace("{{ item.event }} ", ""))
    changed(shop)
    write_yaml(shop, words="{view: saw, purchase: bought}")
    assert changed(shop) == {"data"}  # no template says it any more
    write_yaml(shop, words="{view: saw, purchase: bought}", weight="{view: 0.5}")
    assert "data" in changed(shop)


def shown(found: Histories, data: Path) -> dict[str, list[tuple[str, str]]]:
    words = read_table(data / "event_words.parquet", EVENT_WORDS)["word"].to_pylist()
    items = found.items.to_pylist()
    return {
        user: [(items[code], words[event]) for code, event in zip(found.of(place), found.events_of(place), strict=True)]  # type: ignore[arg-type]
        for place, user in enumerate(found.users.to_pylist())
    }


@pytest.mark.parametrize("keep", [False, True])
def test_later_events_join_the_histories_by_their_words(shop: Path, keep: bool) -> None:
    write_yaml(shop, weight="{view: 0.5}")
    run(load(shop), ("data",), reporter=Reporter(quiet=True))
    data = shop / "run" / "data"
    known = read_histories(data)
    before = shown(known, data)
    assert before["u01"] == [("i07", "view"), ("i13", "purchase"), ("i16", "view"), ("i41", "purchase")]
    counts = dict(zip(known.items.to_pylist(), known.popularity().tolist(), strict=True))
    bought = sum(pair == ("i13", "purchase") for one in before.values() for pair in one)
    looked = sum(pair == ("i13", "view") for one in before.values() for pair in one)
    assert (counts["i41"], counts["i13"]) == (2, 2 * bought + looked)
    rows = [  # purchase, view, remove are 0, 1, 2
        ("u01", "i10", AT + 500_000, 1), ("u01", "i41", AT + 500_001, 2), ("u01", "i50", AT + 500_002, 1),
        ("u01", "i50", AT + 500_003, 2), ("u02", "i51", AT + 500_004, 0), ("new", "i52", AT + 500_005, 2),
    ]  # fmt: skip
    columns = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64, "event": pl.Int8}
    later = pl.DataFrame([(user, item, 1000 * time, event) for user, item, time, event in rows], schema=columns,
                         orient="row")  # fmt: skip
    found, told = extend(known, data, later, keep_repeats=keep)
    joined = shown(found, data)
    if keep:  # a history is all that happened
        assert joined["u01"] == [*before["u01"], ("i10", "view"), ("i50", "view")]
    else:  # i10 was rejected before, and is looked at again; i41 and i50 are rejected now
        assert joined["u01"] == [*before["u01"][:3], ("i10", "view")]
    assert joined["u02"] == [*before["u02"], ("i51", "purchase")]
    assert "new" not in joined
    items = found.items.to_pylist()
    assert sorted((user, items[code]) for user, code in told.filtered.iter_rows()) == [
        ("new", "i52"), ("u01", "i41"), ("u01", "i50"),
    ]  # fmt: skip
    assert {user: joined[user] for user in joined if user not in ("u01", "u02")} == {
        user: before[user] for user in before if user not in ("u01", "u02")
    }
    assert found.events is not None
    assert len(found.events) == len(found.codes) == found.offsets[-1]
    assert np.all(np.diff(found.offsets) >= 0)
