"""`msr recommend` around the model: a pipeline that was "trained", whose model answers by script, and its orders."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msr_adapter import schema
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.generation import Answer, Completion, Follow, Request, ends_there
from msr_adapter.pipeline import run
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.progress import Reporter
from msr_adapter.workflows.recommend import RecommendRequest
from msr_adapter.workflows.recommend.workflow import recommend

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


def without_training() -> tuple[Any, ...]:
    """Return the stages, the training being a name only."""
    replaced = {"train": pretend, "lengths": nothing, "dataset": nothing}
    return tuple(replace(stage, run=replaced.get(stage.name, stage.run)) for stage in STAGES)


def write_pipeline(folder: Path) -> None:
    (folder / "scripted.yaml").write_text(YAML)
    rows = [(user, item, START + DAY * (10 * number + place))
            for number, (user, items) in enumerate(TAKEN.items()) for place, item in enumerate(items)]  # fmt: skip
    write(folder / "log.csv", ("user_id", "item_id", "timestamp"), rows)
    write(folder / "items.csv", ("item_id", "title"), [(item, f"Title {item}") for item in ITEMS])


def write_rated(folder: Path, yaml: str, rows: Sequence[Sequence[object]], items: str) -> None:
    """Write a pipeline whose log has ratings, and a table of its items."""
    (folder / "scripted.yaml").write_text(yaml)
    write(folder / "log.csv", ("user_id", "item_id", "timestamp", "rating"), rows)
    write(folder / "items.csv", ("item_id", "title"), [(item, f"Title {item}") for item in items])


@contextlib.contextmanager
def trained(folder: Path) -> Iterator[Path]:
    """Bring the pipeline in ``folder`` as far as its "training"; the stages stay replaced meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("msr_adapter.pipeline.planning.STAGES", without_training())
        run(load(folder, folder), ("train",), reporter=Reporter(quiet=True))
        yield folder


def own_run(finished: Path, folder: Path) -> Path:
    """Give ``folder`` a run of its own of a finished pipeline."""
    shutil.copytree(finished / "run", folder / "run")
    (folder / "pipeline").symlink_to(finished)
    return folder


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    path.write_text("\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n")
    return path


def load(pipeline: Path, folder: Path, *sets: str) -> LoadedPipeline:
    sets = ("evaluate.protocol.negatives=3", "train.negatives=1", *sets)
    return load_pipeline(str((pipeline / "scripted.yaml").resolve()), sets, folder / "run")


def order(folder: Path, sets: Sequence[str] = (), reporter: Reporter | None = None, **more: Any) -> dict[str, Any]:
    """Carry out an order and return its counts."""
    values = {
        "users": None,
        "candidates": "popular:6",
        "top": 3,
        "out": folder / "recs.parquet",
        "overwrite": True,
        **more,
    }
    return recommend(
        load(folder / "pipeline", folder, *sets), RecommendRequest(**values), reporter or Reporter(quiet=True)
    )


def rows(folder: Path) -> list[dict[str, Any]]:
    return schema.read_table(folder / "recs.parquet", schema.RECOMMENDATIONS).to_pylist()


def items_of(folder: Path, user: str) -> list[str]:
    return [row["item_id"] for row in rows(folder) if row["user_id"] == user]


class Asked:
    """Watches every scripted backend that is made: all requests, by whether they are scored."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[Request] = []
        self.scored: list[Request] = []
        whole = ScriptedBackend.complete

        def watch(
            backend: ScriptedBackend, requests: Sequence[Request], follow: Follow = ends_there
        ) -> list[Completion]:
            def seen(answer: Answer) -> Sequence[Request]:
                more = follow(answer)
                self.texts += more
                return more

            (self.scored if requests and requests[0].choices else self.texts).extend(requests)
            return whole(backend, requests, seen)

        monkeypatch.setattr(ScriptedBackend, "complete", watch)
