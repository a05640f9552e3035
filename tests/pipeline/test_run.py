"""Fingerprints: what is done again, what is left alone, and what is said about it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import StageError, UserError
from msr_adapter.pipeline import RunResult, plan, run
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.progress import Reporter
from tests.support.scripted_pipeline import SCRIPTED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scripted.yaml").write_text(SCRIPTED)
    return tmp_path


def load(folder: Path, *sets: str) -> LoadedPipeline:
    return load_pipeline(str(folder / "scripted.yaml"), sets, folder / "run")


def summaries(loaded: LoadedPipeline, *force: str) -> RunResult:
    return run(loaded, ("users",), force=force, reporter=Reporter(quiet=True))


def states(result: RunResult) -> dict[str, str]:
    return {stage.name: stage.state for stage in result.stages}


def test_upstream_stages_run_first_and_a_second_run_does_nothing(folder: Path) -> None:
    assert states(summaries(load(folder))) == {"data": "done", "items": "done", "users": "done"}
    assert set(states(summaries(load(folder))).values()) == {"up to date"}


def test_only_stages_that_depend_on_a_change_run_again(folder: Path) -> None:
    summaries(load(folder))
    again = summaries(load(folder, "summarize.users.block=2"))
    assert states(again) == {"data": "up to date", "items": "up to date", "users": "done"}


def test_batch_size_never_makes_a_stage_out_of_date(folder: Path) -> None:
    summaries(load(folder))
    assert set(states(summaries(load(folder, "summarize.users.model.batch_size=2"))).values()) == {"up to date"}


def test_the_answers_count_for_a_training_whose_best_checkpoint_they_choose(folder: Path) -> None:
    stage = next(stage for stage in STAGES if stage.name == "train")

    def configs(*sets: str) -> list[object]:
        answers = ("", 'train.answers.yes=["Yes","Yeah"]')
        return [stage.config(load(folder, *sets, *filter(None, [answer])).pipeline) for answer in answers]

    assert len({str(one) for one in configs("train.keep=last")}) == 1
    assert len({str(one) for one in configs("train.keep=best")}) == 2


def test_an_edited_template_makes_its_stage_out_of_date(folder: Path) -> None:
    mine = folder / "mine"
    mine.mkdir()
    template = "{% if image %}<image>{% endif %}Item {{ title }}"
    (mine / "item_summary.j2").write_text(template)
    summaries(load(folder, f"templates={mine}"))
    (mine / "item_summary.j2").write_text(template + " What is it?")
    again = states(summaries(load(folder, f"templates={mine}")))
    assert again == {"data": "up to date", "items": "done", "users": "done"}


def test_only_the_templates_of_the_chosen_mode_count(folder: Path) -> None:
    mine = folder / "mine"
    mine.mkdir()
    sets = (f"templates={mine}", "summarize.items.mode=fusion")
    (mine / "item_summary.j2").write_text("{% if image %}<image>{% endif %}Item {{ title }}")
    summaries(load(folder, *sets))
    (mine / "item_summary.j2").write_text("{% if image %}<image>{% endif %}Item {{ title }}?")
    assert states(summaries(load(folder, *sets)))["items"] == "up to date"
    (mine / "item_fusion.j2").write_text("{{ text_summary }} and {{ image_summary }}")
    assert states(summaries(load(folder, *sets)))["items"] == "done"


def test_another_noun_is_another_prompt(folder: Path) -> None:
    summaries(load(folder))
    assert plan(load(folder, "summarize.noun=film"))["items"] == "templates changed"
    demo = load(folder, "summarize.noun=film", "templates=demo")  # whose templates do not say the noun
    assert plan(demo) == plan(load(folder, "templates=demo"))
    with pytest.raises(UserError, match=r"summarize.noun: .* expected a word or two"):
        load(folder, "summarize.noun='<image>'")


def test_a_forced_stage_that_comes_out_equal_leaves_later_ones_alone(folder: Path) -> None:
    summaries(load(folder))
    assert states(summaries(load(folder), "data")) == {"data": "done", "items": "up to date", "users": "up to date"}


def test_a_damaged_output_is_made_again(folder: Path) -> None:
    summaries(load(folder))
    (folder / "run" / "items" / "items.parquet").unlink()
    assert states(summaries(load(folder)))["items"] == "done"


def test_plan_says_why_without_touching_anything(folder: Path) -> None:
    assert plan(load(folder))["data"] == "new"
    assert not (folder / "run").exists()
    summaries(load(folder))
    reasons = plan(load(folder, "summarize.items.max_new_tokens=9"))
    assert reasons["data"] == "up to date"
    assert reasons["items"] == "config changed"
    assert reasons["users"] == "after items"


def test_a_failed_stage_keeps_what_was_finished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> dict[str, object]:
        raise StageError("the model fell over")

    broken = tuple(replace(stage, run=fail) if stage.name == "users" else stage for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", broken)
    with pytest.raises(StageError, match="fell over"):
        summaries(load(folder))
    assert json.loads((folder / "run" / "items" / "manifest.json").read_text())["stage"] == "items"
    assert not (folder / "run" / "users").exists()
    monkeypatch.undo()
    assert states(summaries(load(folder))) == {"data": "up to date", "items": "up to date", "users": "done"}


def test_wrong_input_leaves_the_finished_stage_and_no_half_of_another(folder: Path) -> None:
    summaries(load(folder))
    with pytest.raises(UserError, match="leaves nothing of"):
        summaries(load(folder, "data.k_core.users=1000"))
    assert not list((folder / "run").glob(".*.partial"))
    assert set(states(summaries(load(folder))).values()) == {"up to date"}


def test_the_log_file_has_plain_lines(folder: Path) -> None:
    summaries(load(folder))
    lines = (folder / "run" / "run.log").read_text().splitlines()
    assert any("items" in line and "running (new)" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


def test_the_table_of_stages_is_whole_and_in_order() -> None:
    names = [stage.name for stage in STAGES]
    assert len(set(names)) == len({stage.label for stage in STAGES}) == len(names)
    for place, stage in enumerate(STAGES):
        assert set(stage.inputs) <= set(names[:place]), stage.name
        assert stage.label
        assert all(stage.product)
