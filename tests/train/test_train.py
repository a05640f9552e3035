"""The data set stage and a real LLaMA-Factory training of a tiny Qwen2-VL, LoRA and full."""

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from msr_adapter import schema
from msr_adapter.candidate_rows import CandidateRows
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError, UserError
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import build_dataset, preflight, train, write_training_yaml
from tests.support.tiny_models import tiny_model
from tests.support.tiny_run import QUIET, stages, train_config, trained, write_upstream
from tests.support.training_rows import TrainingRow, training_rows


def build(made: StageDirs, seed: int = 0, **settings: Any) -> dict[str, Any]:
    made.dataset.mkdir(exist_ok=True)
    return build_dataset(train_config(**settings), made, Prompts(), Job(made.dataset, QUIET, seed))


def test_every_training_candidate_is_one_row_with_its_answer_and_image(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    counts = build(made)
    rows = list(training_rows(made.dataset / TRAIN))
    asked = CandidateRows(made.data, made.users, Prompts(), "train", images=True)
    expected = [
        TrainingRow(
            row.prompt,
            "Yes" if row.label else "No",
            (row.image.path.relative_to(made.data).as_posix(),) if row.image else (),
        )
        for row in asked
    ]
    assert sorted(rows, key=repr) == sorted(expected, key=repr)
    assert rows != expected  # shuffled
    assert counts == {
        "train_rows": 32, "train_positives": 8, "train_with_image": sum(bool(row.images) for row in rows),
        "validation_rows": 12, "validation_positives": 3, "validation_with_image": counts["validation_with_image"],
    }  # fmt: skip
    assert 0 < counts["train_with_image"] < 32
    assert all(row.prompt.count("<image>") == len(row.images) for row in rows)


def test_of_long_validation_lists_some_rows_are_written_and_the_others_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msr_adapter.train.dataset._LONGEST_LIST", 3)
    made = write_upstream(tmp_path)
    counts = build(made)
    assert (counts["train_rows"], "train_rows_left_out" in counts) == (32, False)
    assert (counts["validation_rows"], counts["validation_rows_left_out"], counts["validation_positives"]) == (9, 3, 3)
    rows = list(training_rows(made.dataset / VALIDATION))
    assert (len(rows), [row.answer for row in rows].count("Yes")) == (9, 3)
    asked = {row.prompt for row in CandidateRows(made.data, made.users, Prompts(), "validation", images=True)}
    assert {row.prompt for row in rows} <= asked


def test_every_candidate_is_asked_as_the_single_renderer_asks(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    read = {name: schema.read_table(made.data / f"{name}.parquet", getattr(schema, name.upper())).to_pylist()
            for name in ("items", "candidates", "examples")}  # fmt: skip
    items = {item["item_id"]: item for item in read["items"]}
    test = {example["example_id"] for example in read["examples"] if example["split"] == "test"}
    texts = schema.read_table(made.users / "users.parquet", schema.USER_SUMMARIES).to_pylist()
    told = {text["example_id"]: text["summary"] for text in texts}
    asked = CandidateRows(made.data, made.users, Prompts(), "test", images=True)
    expected = [row for row in read["candidates"] if row["example_id"] in test]
    assert [(row.example_id, row.item_id, row.label) for row in asked] == [tuple(row.values()) for row in expected]
    assert [row.prompt for row in asked] == [
        Prompts().recommend(told[row["example_id"]], item["title"], item["image"] is not None)
        for row in expected
        for item in [items[row["item_id"]]]
    ]
    assert [row.image and row.image.digest for row in asked] == [items[r["item_id"]]["image_digest"] for r in expected]
    assert asked[-1] == list(asked)[-1]
    with pytest.raises(IndexError):
        asked[len(asked)]


def test_rows_of_one_validation_example_stay_together(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    build(made)
    rows = list(training_rows(made.dataset / VALIDATION))
    prefixes = [row.prompt.split("Candidate:")[0] for row in rows]
    assert len(set(prefixes)) == 3
    assert [len(list(group)) for _, group in itertools.groupby(prefixes)] == [4, 4, 4]


def test_json_lines_hold_the_same_rows_and_begin_with_an_image(tmp_path: Path) -> None:
    made, other = write_upstream(tmp_path / "a"), write_upstream(tmp_path / "b")
    assert build(made) == build(other, rows="jsonl")
    for name in (TRAIN, VALIDATION):
        first, *rest = training_rows(other.dataset / name)
        assert first.images
        assert sorted([first, *rest], key=repr) == sorted(training_rows(made.dataset / name), key=repr)
        assert [path.suffix for path in (other.dataset / name).iterdir()] == [".jsonl"]
    longest = preflight(train_config(), made, QUIET)
    assert preflight(train_config(rows="jsonl"), other, QUIET) == longest


def test_rows_are_shuffled_by_the_seed_alone(tmp_path: Path) -> None:
    first, again, other = (write_upstream(tmp_path / name) for name in "abc")
    build(first, 1), build(again, 1), build(other, 2)
    rows = [list(training_rows(made.dataset / TRAIN)) for made in (first, again, other)]
    assert rows[0] == rows[1] != rows[2]


def test_the_stage_holds_nothing_beside_its_data_sets(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    build(made)
    assert sorted(path.name for path in made.dataset.iterdir()) == ["dataset_info.json", TRAIN, VALIDATION]


def test_without_images_no_row_has_one(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    assert build(made, images=False)["train_with_image"] == 0
    assert all(not row.images and "<image>" not in row.prompt for row in training_rows(made.dataset / TRAIN))


def without_split(made: StageDirs, split: str) -> None:
    """Take all examples of ``split`` out of the data stage."""
    table = schema.read_table(made.data / "examples.parquet", schema.EXAMPLES)
    rows = [row for row in table.to_pylist() if row["split"] != split]
    schema.write_table(pa.Table.from_pylist(rows, schema.EXAMPLES), schema.EXAMPLES, made.data / "examples.parquet")


def test_without_validation_examples_there_is_no_validation_set(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    without_split(made, "validation")
    assert build(made)["validation_rows"] == 0
    assert list(json.loads((made.dataset / "dataset_info.json").read_text())) == [TRAIN]
    path = write_training_yaml(train_config(), made, Job(tmp_path, QUIET))
    assert "eval_dataset" not in yaml.safe_load(path.read_text())


def test_no_training_examples_is_the_users_fault(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    without_split(made, "train")
    with pytest.raises(UserError, match="no training examples are left"):
        build(made)


def test_stages_of_different_runs_are_refused(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    table = schema.read_table(made.users / "users.parquet", schema.USER_SUMMARIES)
    schema.write_table(table.slice(2), schema.USER_SUMMARIES, made.users / "users.parquet")
    with pytest.raises(StageError, match="2 examples have no user summary"):
        build(made)


def test_too_long_rows_are_counted_before_anything_is_trained() -> None:
    made = stages()
    longest = preflight(train_config(), made, QUIET)["longest_row"]
    assert preflight(train_config(cutoff_len=longest), made, QUIET)["rows"] == 44
    with pytest.raises(UserError) as caught:
        preflight(train_config(cutoff_len=longest - 1), made, QUIET)
    (problem,) = caught.value.problems
    assert problem.field == "train.cutoff_len"
    assert problem.found.startswith("1 of 44 rows") or problem.found.startswith("2 of 44 rows")
    assert f"Set train.cutoff_len: {longest}" in problem.next_step


def test_all_damaged_images_are_reported_at_once(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    build(made)
    used = sorted({image for row in training_rows(made.dataset / TRAIN) for image in row.images})
    (made.data / used[0]).write_bytes(b"")
    (made.data / used[1]).write_text("a text named .png")
    (made.data / used[2]).unlink()
    whole = (made.data / used[3]).read_bytes()
    (made.data / used[3]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError) as caught:
        preflight(train_config(overrides={"lerning_rate": 1}), made, QUIET)
    fields = {problem.where for problem in caught.value.problems}
    assert fields == {"", *(str(made.data / path) for path in used[:4])}
    assert "did you mean learning_rate" in str(caught.value)


def test_a_template_without_images_is_refused_for_rows_with_images() -> None:
    made = stages()
    model = ModelConfig(path=str(tiny_model("qwen2.5")))
    with pytest.raises(UserError, match="takes no images"):
        preflight(train_config(model=model), made, QUIET)


def test_a_dry_run_writes_the_yaml_and_trains_nothing(tmp_path: Path) -> None:
    made = stages()
    path = write_training_yaml(train_config(), made, Job(tmp_path, QUIET, 5))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name] == ["train.yaml"]
    config = yaml.safe_load(path.read_text())
    assert (config["output_dir"], config["seed"], config["dataset"]) == (str(tmp_path / "model"), 5, TRAIN)
    assert all(Path(config[key]).is_absolute() for key in ("dataset_dir", "media_dir", "model_name_or_path"))


@pytest.mark.parametrize(("method", "weights"), [("lora", "adapter_model.safetensors"), ("full", "model.safetensors")])
def test_llamafactory_trains(method: str, weights: str) -> None:
    done = trained(method)
    assert (done.out / "model" / weights).stat().st_size > 0
    assert done.summary["steps"] == 3
    assert done.summary["last_loss"] < done.summary["first_loss"]
    assert done.summary["validation_loss"] is None  # nobody asked for it: keep is last
    assert (done.summary["rows"], done.summary["images"]) == (44, len(_images_used()))
    took = done.summary["measured"]
    assert 0 < took["trainable_parameters"] < took["parameters"]
    assert took["rows_per_second"] == pytest.approx(12 / took["seconds"])
    assert took["tokens_per_second"] > 12 * 20 / took["seconds"]
    assert took["peak_bytes"] is None or took["peak_bytes"] > 2**27
    assert (took["from_step"], took["peak_gpu_bytes"]) == (0, None)
    log = [json.loads(line) for line in (done.out / "model" / "trainer_log.jsonl").read_text().splitlines()]
    assert [line["current_steps"] for line in log if "loss" in line] == [1, 2, 3]
    assert sorted(path.name for path in done.out.iterdir()) == ["model", "train.log", "train.yaml"]


def _images_used() -> set[str]:
    made = stages()
    return {image for name in (TRAIN, VALIDATION) for row in training_rows(made.dataset / name) for image in row.images}


def test_the_kept_yaml_does_not_point_into_the_temporary_folder() -> None:
    config = yaml.safe_load((trained("lora").out / "train.yaml").read_text())
    assert ".partial" not in str(config)
    assert not Path(config["output_dir"]).exists()


def test_training_twice_gives_the_same_weights(tmp_path: Path) -> None:
    made, first = stages(), trained("lora")
    summary = train(train_config(), made, Job(tmp_path, QUIET))
    weights = "model/adapter_model.safetensors"
    assert (tmp_path / weights).read_bytes() == (first.out / weights).read_bytes()
    differ = {"measured": None, "pruned_bytes": 0}  # states hold paths
    assert summary | differ == first.summary | differ


def test_the_first_spellings_are_what_is_trained(tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    made.dataset.mkdir()
    build(made, answers={"yes": ["Ja", "ja"], "no": ["Nein"]})
    told = {row.answer for row in training_rows(made.dataset / TRAIN)}
    assert told == {"Ja", "Nein"}


def test_spellings_of_both_sides_that_begin_alike_stop_before_training(tmp_path: Path) -> None:
    made = stages()
    with pytest.raises(StageError, match="begin with the same token"):
        preflight(train_config(answers={"yes": ["Yes"], "no": ["No", "Yes, but no"]}), made, QUIET)
