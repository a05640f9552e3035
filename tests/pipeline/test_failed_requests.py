"""Requests that failed under a lenient policy: asked again by the next run, they alone, and said."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import StageError
from msr_adapter.generation import Failure, Request
from msr_adapter.pipeline import plan, run
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.schema import ITEM_SUMMARIES, read_table
from tests.support.scripted_pipeline import pretend_to_train_stages, scripted
from tests.support.summaries import Lines

YAML = scripted(30, "[0.5, 0.1, 0.4]", "{protocol: {name: quick, confidence: {samples: 100}}, baselines: [popularity]}")
LATER = ("dataset", "train", "score", "evaluate")


class Moody(ScriptedBackend):
    """Answers as scripted, but for one item in three while ``ill``; answers nothing at all while ``down``."""

    def __init__(self) -> None:
        super().__init__()
        self.ill, self.down, self.fails = True, False, "items"
        self.asked: list[Request] = []

    def complete(self, requests: Any, follow: Any = lambda _: ()) -> Any:
        self.asked += requests
        if self.down:
            raise StageError("nobody answers")
        return super().complete(requests, follow)

    def _answer(self, request: Request) -> Any:
        kind = "choices" if request.choices else "items" if request.images else "users"
        bad = self.ill and kind == self.fails and int(request.key[:8], 16) % 3 == 0
        return Failure(request.key, "no luck") if bad else super()._answer(request)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Moody:
    moody = Moody()
    monkeypatch.setattr(Context, "backend", lambda *_: nullcontext(moody))
    pretend_to_train_stages(monkeypatch)
    (tmp_path / "scripted.yaml").write_text(YAML)
    return moody


def load(folder: Path, *sets: str, run_dir: str = "run") -> LoadedPipeline:
    policies = ("summarize.items.on_failure=skip", "summarize.users.on_failure=skip")
    return load_pipeline(str(folder / "scripted.yaml"), (*policies, *sets), folder / run_dir)


def brought(loaded: LoadedPipeline, *donors: Path, target: str = "evaluate") -> tuple[dict[str, str], str]:
    """Bring the pipeline up to date; return what became of each stage, and what was said."""
    reporter = Lines()
    result = run(loaded, (target,), reporter=reporter, donors=donors)
    return {stage.name: stage.state for stage in result.stages}, reporter.text


def rows(folder: Path) -> int:
    return read_table(folder / "run" / "items" / "items.parquet", ITEM_SUMMARIES).num_rows


@pytest.mark.parametrize("stage", ["items", "users"])
def test_another_policy_is_another_stage(backend: Moody, tmp_path: Path, stage: str) -> None:
    backend.fails = stage
    brought(load(tmp_path), target="users")
    titled = load(tmp_path, f"summarize.{stage}.on_failure=title")
    assert plan(titled)[stage] == "config changed"
    before = rows(tmp_path)
    assert brought(titled, target="users")[0][stage] == "done"
    assert (rows(tmp_path) > before) == (stage == "items")
    with pytest.raises(StageError, match="requests failed"):
        brought(load(tmp_path, f"summarize.{stage}.on_failure=error"), target="users")


@pytest.mark.parametrize("stage", ["items", "users"])
def test_the_next_run_asks_the_failed_requests_again_and_no_others(backend: Moody, tmp_path: Path, stage: str) -> None:
    backend.fails = stage
    brought(load(tmp_path))
    failed = RunFolder(tmp_path / "run").failed(stage)
    assert failed > 1
    assert plan(load(tmp_path))[stage] == f"{failed} failed requests are asked again"
    assert set(plan(load(tmp_path), asking_again=False).values()) == {"up to date"}
    backend.asked.clear()
    states, said = brought(load(tmp_path))  # in vain
    assert {name for name, state in states.items() if state == "done"} == {stage}
    assert f"{stage:<11} running ({failed} failed requests are asked again)" in said
    assert len({request.key for request in backend.asked}) == len(backend.asked) <= failed
    again = len(backend.asked)
    brought(load(tmp_path))  # and as often as it is run
    assert len(backend.asked) == 2 * again


def test_a_recovered_backend_mends_the_run(backend: Moody, tmp_path: Path) -> None:
    brought(load(tmp_path))
    failed, before = RunFolder(tmp_path / "run").failed("items"), rows(tmp_path)
    backend.ill = False
    states, _ = brought(load(tmp_path))
    assert rows(tmp_path) == before + failed
    assert {states[name] for name in ("items", "users", *LATER)} == {"done"}
    assert set(plan(load(tmp_path)).values()) == {"up to date"}


def test_a_backend_that_is_gone_stops_no_run_that_could_do_without_it(backend: Moody, tmp_path: Path) -> None:
    brought(load(tmp_path), target="users")
    before = rows(tmp_path)
    backend.down = True
    states, said = brought(load(tmp_path), target="dataset")
    assert "items       stays as it is, without them: nobody answers" in said
    assert (states["items"], states["dataset"], rows(tmp_path)) == ("up to date", "done", before)
    assert not list((tmp_path / "run").glob(".*.partial"))
    with pytest.raises(StageError, match="nobody answers"):
        run(load(tmp_path), ("items",), force=("items",), reporter=Lines())


def test_a_stage_of_another_run_is_taken_over_with_its_failures(backend: Moody, tmp_path: Path) -> None:
    brought(load(tmp_path), target="users")
    failed = RunFolder(tmp_path / "run").failed("items")
    backend.asked.clear()
    for _ in range(2):  # a run of its own would have none of the other answers
        states, said = brought(load(tmp_path, run_dir="other"), tmp_path / "run", target="items")
        assert states["items"] == "up to date"
        assert f"as in {tmp_path / 'run'}, where {failed} failed requests are asked again" in said
    assert backend.asked == []
    backend.ill = False
    brought(load(tmp_path), target="items")
    brought(load(tmp_path, run_dir="other"), tmp_path / "run", target="items")
    assert RunFolder(tmp_path / "other").failed("items") == 0
