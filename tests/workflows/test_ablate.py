"""The ablation runs: what differs, what is shared, what is refused. The models are scripted, the rest is real."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.config.loader import load_pipeline
from msr_adapter.errors import StageError, UserError
from msr_adapter.evaluate.ablation_table import AblationRow, ablation_table
from msr_adapter.pipeline import RunResult, run
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGE_NAMES, STAGES
from msr_adapter.progress import Reporter
from msr_adapter.workflows.ablate import VARIANTS, Ablation, ablate
from tests.support.scripted_pipeline import pretend_to_train, scripted

YAML = scripted(
    30, "[0.5, 0.1, 0.4]", "{protocol: {name: quick, confidence: {samples: 100}, slices: []}, baselines: [popularity]}"
)
QUIET = Reporter(quiet=True)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that ran, in order, as ``<folder>/<stage>``."""
    names: list[str] = []

    def noted(name: str, stage_run: Any) -> Any:
        def run_it(c: Context) -> dict[str, Any]:
            names.append(f"{c.folder.root.name}/{name}")
            return dict((pretend_to_train if name == "train" else stage_run)(c))

        return run_it

    stages = tuple(replace(stage, run=noted(stage.name, stage.run)) for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)
    return names


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    (tmp_path / "scripted.yaml").write_text(YAML)
    return tmp_path / "scripted.yaml"


def ablated(pipeline: Path, *only: str, sets: tuple[str, ...] = ()) -> list[Ablation]:
    return ablate(str(pipeline), sets, pipeline.parent / "run", only, QUIET)


def test_every_variant_is_run_on_the_same_candidates_and_nothing_equal_is_done_twice(
    pipeline: Path, ran: list[str]
) -> None:
    found = ablated(pipeline)
    assert [one.name for one in found] == list(VARIANTS)
    assert {one.name: one.model for one in found if one.model != "trained"} == {"no-sft": "base"}
    root = pipeline.parent / "run"
    assert {one.name: one.run_dir for one in found if one.run_dir == root}.keys() == {"full", "no-sft"}
    slow = [name for name in ran if not name.endswith("/lengths")]
    unneeded = ("mine", "score-validation", "baselines", "lengths", "truncate", "embed", "retrieve", "rerank",
                "rerank-base")  # fmt: skip
    assert slow[:8] == [f"run/{name}" for name in STAGE_NAMES if name not in unneeded]
    assert slow[8:] == [
        *(f"direct/{name}" for name in ("users", "dataset", "train", "score", "evaluate")),
        *(f"no-image-summary/{name}" for name in ("items", "users", "dataset", "train", "score", "evaluate")),
        *(f"no-image/{name}" for name in ("dataset", "train", "score", "evaluate")),
        *(f"text-only/{name}" for name in ("dataset", "train", "score", "evaluate")),
        *(f"no-summary/{name}" for name in ("users", "dataset", "train", "score", "evaluate")),
    ]
    metrics = [json.loads((one.run_dir / "evaluate" / "metrics.json").read_text()) for one in found]
    assert len({each["candidates"]["digest"] for each in metrics}) == 1
    assert len({each["protocol_digest"] for each in metrics}) == 1
    assert len({json.dumps(each["models"]["trained"]) for each in metrics}) == len(found) - 1  # no-sft is the full run


def test_a_served_model_stands_in_for_no_variant(pipeline: Path, ran: list[str]) -> None:
    with pytest.raises(UserError, match=r"one served model cannot stand in(.|\n)*evaluate\.scorer=null"):
        ablated(pipeline, "direct", sets=("evaluate.scorer={path: ours, backend: scripted}",))
    assert ran == []


def test_a_second_time_nothing_runs(pipeline: Path, ran: list[str]) -> None:
    first = ablated(pipeline, "direct", "no-image")
    ran.clear()
    assert ablated(pipeline, "direct", "no-image") == first
    assert ran == []


def test_a_variant_that_failed_resumes_where_it_stopped(
    pipeline: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from msr_adapter.pipeline import planning

    def fail(_: Context) -> dict[str, Any]:
        raise StageError("no memory")

    whole = planning.STAGES
    ablated(pipeline, "full")
    broken = tuple(replace(stage, run=fail) if stage.name == "score" else stage for stage in whole)
    monkeypatch.setattr(planning, "STAGES", broken)
    with pytest.raises(StageError, match="no memory"):
        ablated(pipeline, "direct")
    monkeypatch.setattr(planning, "STAGES", whole)
    ran.clear()
    ablated(pipeline, "direct")
    assert ran == ["direct/score", "direct/evaluate"]


def test_finished_runs_are_used(pipeline: Path, ran: list[str]) -> None:
    run(load_pipeline(str(pipeline), (), pipeline.parent / "run"), STAGE_NAMES, reporter=QUIET)
    ran.clear()
    assert [one.name for one in ablated(pipeline, "no-sft")] == ["full", "no-sft"]
    assert ran == ["run/score-base", "run/evaluate"]


def test_the_variants_share_one_cache(pipeline: Path, ran: list[str]) -> None:
    ablated(pipeline, "direct")
    root = pipeline.parent / "run"
    assert (root / "ablations" / "direct" / "cache").resolve() == (root / "cache").resolve()
    assert (root / "ablations" / "direct" / "cache" / "completions.sqlite").is_file()


def with_donor(pipeline: Path, folder: str, donor: str, *sets: str) -> RunResult:
    loaded = load_pipeline(str(pipeline), sets, pipeline.parent / folder)
    return run(loaded, ("users",), reporter=QUIET, donors=[pipeline.parent / donor])


def test_a_stage_of_another_run_is_reused_only_whole_and_with_an_equal_fingerprint(
    pipeline: Path, ran: list[str]
) -> None:
    run(load_pipeline(str(pipeline), (), pipeline.parent / "one"), ("users",), reporter=QUIET)
    ran.clear()
    with_donor(pipeline, "two", "one", "summarize.users.block=2")
    assert ran == ["two/users"]
    ours, theirs = (pipeline.parent / name / "items" / "items.parquet" for name in ("two", "one"))
    assert ours.samefile(theirs)
    damaged = pipeline.parent / "one" / "users" / "users.parquet"
    damaged.write_bytes(damaged.read_bytes() + b"x")
    ran.clear()
    with_donor(pipeline, "three", "one")
    assert ran == ["three/users"]


def test_another_disk_gets_a_copy(pipeline: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(self: Path, target: Path) -> None:
        raise OSError("cross-device link")

    run(load_pipeline(str(pipeline), (), pipeline.parent / "one"), ("users",), reporter=QUIET)
    monkeypatch.setattr(Path, "hardlink_to", no_links)
    ran.clear()
    with_donor(pipeline, "two", "one")
    assert ran == []
    ours, theirs = (pipeline.parent / name / "items" / "items.parquet" for name in ("two", "one"))
    assert not ours.samefile(theirs)
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_forced_stage_is_not_reused(pipeline: Path, ran: list[str]) -> None:
    run(load_pipeline(str(pipeline), (), pipeline.parent / "one"), ("data",), reporter=QUIET)
    ran.clear()
    loaded = load_pipeline(str(pipeline), (), pipeline.parent / "two")
    run(loaded, ("data",), force=("data",), reporter=QUIET, donors=[pipeline.parent / "one"])
    assert ran == ["two/data"]


def test_unknown_variants_are_named_all_at_once(pipeline: Path, ran: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        ablated(pipeline, "dirct", "no-images")
    assert [problem.next_step for problem in caught.value.problems] == [
        "Did you mean `direct`?",
        "Did you mean `no-image`?",
    ]
    assert not ran


def test_a_variant_that_is_the_pipeline_itself_is_refused_before_anything_runs(pipeline: Path, ran: list[str]) -> None:
    sets = ("summarize.users.mode=direct", "train.images=false")
    with pytest.raises(UserError) as caught:
        ablated(pipeline, sets=sets)
    assert [problem.field for problem in caught.value.problems] == ["direct", "no-image"]
    assert not ran
    assert [one.name for one in ablated(pipeline, "no-summary", sets=sets)] == ["full", "no-summary"]


def msr(pipeline: Path, *arguments: str) -> Result:
    given = ["ablate", str(pipeline), "--run-dir", str(pipeline.parent / "run"), "--quiet", *arguments]
    return CliRunner().invoke(app, given)


def test_the_command_prints_and_writes_the_table(pipeline: Path, ran: list[str]) -> None:
    done = msr(pipeline, "--only", "direct,no-sft", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    folder = pipeline.parent / "run" / "ablations"
    assert found == json.loads((folder / "ablation.json").read_text())
    assert list(found["variants"]) == ["full", "direct", "no-sft"]
    assert list(found["variants"]["full"]["metrics"]) == ["ndcg@10", "auc", "hr@5", "mrr@5"]
    for name, variant in found["variants"].items():
        metrics = json.loads((Path(variant["run"]) / "evaluate" / "metrics.json").read_text())
        theirs = metrics["models"]["base" if name == "no-sft" else "trained"]["metrics"]
        assert variant["metrics"]["auc"] == theirs["auc"]
    assert {(row["model"], row["metric"]) for row in found["differences"]} == {
        (name, metric) for name in ("direct", "no-sft") for metric in ("ndcg@10", "auc", "hr@5", "mrr@5")
    }
    for row in found["differences"]:
        ours, full = (found["variants"][name]["metrics"][row["metric"]]["mean"] for name in (row["model"], "full"))
        assert row["mean"] == pytest.approx(ours - full)
        assert 0 < row["p"] <= row["p_adjusted"] <= 1
    shown = msr(pipeline, "--only", "direct,no-sft", "--markdown").stdout
    assert shown == (folder / "ablation.md").read_text()
    assert "| direct | the whole history in one prompt, not block by block |" in shown
    assert "was trained once" in shown
    assert "minus full" in msr(pipeline, "--only", "direct,no-sft").stdout


def test_the_full_run_alone_has_no_differences(pipeline: Path, ran: list[str]) -> None:
    found = json.loads(msr(pipeline, "--only", "full", "--json").stdout)
    assert list(found["variants"]) == ["full"]
    assert found["differences"] == []


def test_wrong_input_ends_with_2(pipeline: Path, ran: list[str]) -> None:
    done = msr(pipeline, "--only", "dirct")
    assert done.exit_code == 2
    assert "Did you mean `direct`?" in done.output
    assert not ran


def test_runs_on_other_candidates_are_refused(pipeline: Path, ran: list[str]) -> None:
    found = ablated(pipeline, "direct")
    other = run(load_pipeline(str(pipeline), ("seed=1",), pipeline.parent / "other"), STAGE_NAMES, reporter=QUIET)
    rows = {one.name: AblationRow(one.run_dir, one.model, one.what) for one in found}
    with pytest.raises(UserError, match="candidates"):
        ablation_table(rows | {"direct": replace(rows["direct"], run_dir=other.run_dir)})


def test_the_full_training_is_never_made_again_unasked_and_a_variants_is(pipeline: Path, ran: list[str]) -> None:
    ablated(pipeline, "no-image")
    ran.clear()
    with pytest.raises(UserError, match=r"train: the trained model is out of date \(train.max_steps: unset, now 20"):
        ablated(pipeline, "no-image", sets=("train.max_steps=20",))
    assert ran == []
    ablate(str(pipeline), ("train.max_steps=20",), pipeline.parent / "run", ["no-image"], QUIET, "make")
    assert [name for name in ran if name.endswith("/train")] == ["run/train", "no-image/train"]
    ran.clear()
    ablated(pipeline, "no-image")
    assert [name for name in ran if name.endswith("/train")] == []  # both are found again
