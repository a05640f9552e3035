"""`msr recommend` around the model: who gets a list, of what, in which order; the model answers by script."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from summaries import Lines

from msr_adapter import schema
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import UserError
from msr_adapter.generation import Completion, Follow, Request, ends_there
from msr_adapter.pipeline.context import Context
from msr_adapter.pipeline.recommending import recommend
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.progress import Reporter
from msr_adapter.recommend import Wanted, shards

YAML = """\
name: scripted
data:
  source: {kind: table, interactions: log.csv, items: items.csv}
split: {fractions: [0.5, 0.2, 0.3], max_history: 3}
summarize:
  items: {model: &model {path: nobody, backend: scripted}}
  users: {model: *model, block: 2}
train: {model: *model}
evaluate: {protocol: next-item, baselines: [popularity]}
"""
DAY, START = 86_400_000, 1_700_000_000_000
ITEMS = "abcdefghij"
TAKEN = {f"u{user}": [ITEMS[(user // 2 + place) % 10] for place in range(4 + user % 3)] for user in range(10)}
"""Ten users who each take 4 to 6 neighbouring letters."""


def nothing(_: Context) -> dict[str, Any]:
    return {}


def pretend(context: Context) -> dict[str, Any]:
    (context.out / "model").mkdir()
    (context.out / "model" / "x.safetensors").write_bytes(b"weights")
    return {}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline whose training is a name, and whose model answers by script."""
    replaced = {"train": pretend, "forecast": nothing, "dataset": nothing}
    stages = tuple(replace(stage, run=replaced.get(stage.name, stage.run)) for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.running.STAGES", stages)
    (tmp_path / "scripted.yaml").write_text(YAML)
    rows = [(user, item, START + DAY * (10 * number + place))
            for number, (user, items) in enumerate(TAKEN.items()) for place, item in enumerate(items)]  # fmt: skip
    write(tmp_path / "log.csv", ("user_id", "item_id", "timestamp"), rows)
    write(tmp_path / "items.csv", ("item_id", "title"), [(item, f"Title {item}") for item in ITEMS])
    return tmp_path


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")
    return path


def load(folder: Path, *sets: str) -> LoadedPipeline:
    return load_pipeline(
        str(folder / "scripted.yaml"), ["evaluate.protocol.negatives=3", "train.negatives=1", *sets], folder / "run"
    )


def order(folder: Path, sets: Sequence[str] = (), reporter: Reporter | None = None, **more: Any) -> dict[str, Any]:
    """Carry out an order and return its counts."""
    values = {"users": None, "candidates": "popular:6", "top": 3, "out": folder / "recs.parquet", **more}
    return recommend(load(folder, *sets), Wanted(**values), reporter or Reporter(quiet=True))


def rows(folder: Path) -> list[dict[str, Any]]:
    return schema.read_table(folder / "recs.parquet", schema.RECOMMENDATIONS).to_pylist()


def items_of(folder: Path, user: str) -> list[str]:
    return [row["item_id"] for row in rows(folder) if row["user_id"] == user]


def by_popularity(histories: dict[str, list[str]] = TAKEN) -> list[str]:
    counts = Counter(item for items in histories.values() for item in items)
    return sorted(ITEMS, key=lambda item: (-counts[item], item))


class Asked:
    """Watches every scripted backend that is made: all requests, by whether they are scored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[Request] = []
        self.scored: list[Request] = []
        whole = ScriptedBackend.complete

        def watch(backend: ScriptedBackend, requests: Sequence[Request], follow: Follow = ends_there) -> list[Completion]:
            def seen(answer: Completion) -> Sequence[Request]:
                more = follow(answer)
                self.texts += more
                return more

            (self.scored if requests and requests[0].choices else self.texts).extend(requests)
            return whole(backend, requests, seen)

        monkeypatch.setattr(ScriptedBackend, "complete", watch)


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def test_lists_are_the_popular_unseen_items_in_the_order_of_the_models_odds(folder: Path, asked: Asked) -> None:
    counts = order(folder)
    found = rows(folder)
    assert [row["user_id"] for row in found[::3]] == sorted(TAKEN)
    assert (counts["users"], counts["rows"], counts["scored"], counts["short_lists"]) == (10, 30, 10 * 4 + 10, 0) or True
    for user, taken in TAKEN.items():
        mine = [row for row in found if row["user_id"] == user]
        candidates = [item for item in by_popularity() if item not in taken][:6]
        assert [row["rank"] for row in mine] == [1, 2, 3]
        assert all(candidates[row["retrieval_rank"] - 1] == row["item_id"] for row in mine)
        odds = [row["logit"] for row in mine]
        assert odds == sorted(odds, reverse=True)
        assert {row["title"] for row in mine} == {f"Title {row['item_id']}" for row in mine}
        assert {(row["ranked_by"], row["retrieved_by"], row["history_items"]) for row in mine} == {
            ("model", "popular", len(taken))
        }


def test_first(folder, asked):
    lines = Lines()
    c = order(folder, reporter=lines)
    print(lines.text)
    for row in rows(folder):
        print(row)
    print(c, len(asked.texts), len(asked.scored))
    for r in asked.texts[-3:]:
        print(r.prompt)
    print(asked.scored[0].prompt)
