"""Objectives, methods and starts: the rows of each shape, the YAML of each combination, and what is refused and why."""

import ast
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any, get_args

import datasets
import pyarrow.parquet as pq
import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import ModelConfig, TrainConfig
from msr_adapter.config.schema.train import Method, Objective
from msr_adapter.errors import Problem, UserError
from msr_adapter.llamafactory import dataset
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION, count_rows
from msr_adapter.llamafactory.families import PROJECTORS
from msr_adapter.llamafactory.finetuning_methods import METHODS, check_method, check_start, method_arguments
from msr_adapter.llamafactory.model_weights import BASE, Weights, trained_weights, write_origin
from msr_adapter.llamafactory.objectives import OBJECTIVES, check_objective, objective_arguments
from msr_adapter.llamafactory.training_yaml import training_config
from msr_adapter.pipeline.checks import check
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job
from msr_adapter.train import build_dataset
from tests.support.objectives import data_for
from tests.support.tiny_models import tiny_model
from tests.support.tiny_run import QUIET, model_ref, stages, train_config, write_upstream
from tests.support.training_rows import TrainingRow, training_rows

OTHER = {"Yes": "No", "No": "Yes"}


def sorted_rows(folder: Path) -> list[TrainingRow]:
    return sorted(training_rows(folder), key=repr)


def test_a_pair_prefers_the_right_answer_to_the_wrong_one() -> None:
    supervised, pairs = data_for("sft").dataset, data_for("dpo").dataset
    for name in (TRAIN, VALIDATION):
        expected = [
            TrainingRow(r.prompt, r.answer, r.images, rejected=OTHER[r.answer])
            for r in training_rows(supervised / name)
        ]
        assert list(training_rows(pairs / name)) == expected  # in the same order: the same draw
        assert {row.answer for row in expected} == {"Yes", "No"}
        assert all(row.answers == (row.answer, row.rejected) for row in expected)


def test_every_candidate_is_judged_twice_once_right_and_once_wrong() -> None:
    supervised, judged = data_for("sft").dataset, data_for("kto").dataset
    for name in (TRAIN, VALIDATION):
        rows = list(training_rows(supervised / name))
        right = [TrainingRow(r.prompt, r.answer, r.images, right=True) for r in rows]
        wrong = [TrainingRow(r.prompt, OTHER[r.answer], r.images, right=False) for r in rows]
        assert sorted_rows(judged / name) == sorted([*right, *wrong], key=repr)
        assert count_rows(judged / name) == 2 * len(rows)
    tags = [row.right for row in training_rows(judged / TRAIN)]
    assert tags != [True, False] * (len(tags) // 2)  # shuffled one by one
    info = json.loads((judged / "dataset_info.json").read_text())
    assert info[TRAIN]["columns"] == {"messages": "messages", "kto_tag": "kto_tag", "images": "images"}


def test_llamafactory_is_told_every_column_and_the_types_it_asks_for() -> None:
    info = json.loads((data_for("dpo").dataset / "dataset_info.json").read_text())
    assert info[TRAIN]["ranking"] is True
    assert set(info[TRAIN]["columns"]) == {"messages", "chosen", "rejected", "images"}
    assert "ranking" not in json.loads((data_for("sft").dataset / "dataset_info.json").read_text())[TRAIN]
    schema = pq.read_schema(data_for("kto").dataset / TRAIN / "part-00000.parquet")
    assert str(schema.field("kto_tag").type) == "bool"
    schema = pq.read_schema(data_for("dpo").dataset / TRAIN / "part-00000.parquet")
    assert (
        str(schema.field("chosen").type)
        == str(schema.field("rejected").type)
        == "struct<role: string, content: string>"
    )


@pytest.mark.parametrize("objective", ["dpo", "kto", "reward"])
def test_json_lines_of_every_shape_hold_the_same_rows(tmp_path: Path, objective: Any) -> None:
    made = write_upstream(tmp_path)
    config = train_config(objective=objective, rows="jsonl")
    build_dataset(config, made, Prompts(), Job(tmp_path / "dataset", QUIET))
    for name in (TRAIN, VALIDATION):
        assert sorted_rows(tmp_path / "dataset" / name) == sorted_rows(data_for(objective).dataset / name)
    file = str(tmp_path / "dataset" / TRAIN / "part-00000.jsonl")
    read = datasets.Dataset.from_json(file, cache_dir=str(tmp_path / "cache"))
    assert set(read.column_names) == set(dataset.SCHEMAS["judged" if objective == "kto" else "pairs"].names)


def arguments(**settings: Any) -> dict[str, Any]:
    config = train_config(**settings)
    return objective_arguments(config) | method_arguments(config)


def test_objectives_in_llamafactorys_words() -> None:
    assert arguments()["stage"] == "sft"
    assert arguments(train_on_prompt=True)["train_on_prompt"] is True
    dpo = arguments(objective="dpo", preference={"beta": 0.3, "label_smoothing": 0.1, "supervised": 0.2})
    expected = {"stage": "dpo", "pref_beta": 0.3, "pref_loss": "sigmoid", "dpo_label_smoothing": 0.1, "pref_ftx": 0.2}
    assert dpo.items() >= expected.items()
    kto = arguments(objective="kto", preference={"right_weight": 1.5})
    assert kto.items() >= {"stage": "kto", "kto_chosen_weight": 1.5, "kto_rejected_weight": 1.0}.items()
    assert arguments(objective="reward")["stage"] == "rm"
    assert all("train_on_prompt" not in arguments(objective=each) for each in ("dpo", "kto", "reward"))


def test_methods_in_llamafactorys_words() -> None:
    assert "lora_rank" not in arguments(method="full")
    assert arguments(method="dora")["use_dora"] is True
    assert arguments(method="rslora").items() >= {"use_rslora": True, "use_dora": False}.items()
    assert arguments(method="qlora")["quantization_bit"] == 4
    assert arguments(method="qlora", model=model_ref(quantization=8))["quantization_bit"] == 8
    assert "quantization_bit" not in arguments()
    assert train_config(method="qlora").model.quantization == 4  # wherever the model is loaded
    frozen = {"freeze_vision_tower": True, "freeze_multi_modal_projector": True, "freeze_language_model": False}
    assert arguments().items() >= frozen.items()
    assert "additional_target" not in arguments()
    assert arguments(freeze={"projector": False})["additional_target"] == "visual.merger"
    assert "additional_target" not in arguments(method="full", freeze={"projector": False})


def fields(problems: list[Problem]) -> list[str]:
    return [problem.field for problem in problems]


def test_the_objectives_and_methods_of_the_config_are_the_rows_of_the_tables() -> None:
    assert get_args(Objective) == tuple(row.name for row in OBJECTIVES)
    assert get_args(Method) == tuple(row.name for row in METHODS)


def test_what_an_objective_cannot_use_is_refused() -> None:
    assert not check_objective(train_config())
    config = train_config("llava", objective="kto", batch_size=1, train_on_prompt=True,
                          preference={"label_smoothing": 0.1})  # fmt: skip
    assert fields(check_objective(config)) == [
        "train.train_on_prompt", "train.preference.label_smoothing", "train.batch_size",
    ]  # fmt: skip
    config = train_config(objective="dpo", preference={"loss": "simpo", "label_smoothing": 0.1})
    assert fields(check_objective(config)) == ["train.preference.label_smoothing"]
    config = train_config(objective="dpo", batches="similar-length", batch_size=2)
    assert fields(check_objective(config)) == ["train.batches"]


@pytest.mark.parametrize("model", [model_ref(), ModelConfig(path="Org/Absent", template="qwen3_vl_nothink")])
def test_kto_is_refused_where_positions_are_lost(model: ModelConfig) -> None:
    (problem,) = check_objective(TrainConfig(model=model, objective="kto", batch_size=2))
    assert problem.field == "train.objective"
    assert "drops the M-RoPE positions" in problem.found
    assert not check_objective(train_config("llava", objective="kto"))


def test_a_reward_model_of_llava_is_refused() -> None:
    (problem,) = check_objective(train_config("llava", objective="reward"))
    assert (problem.field, "names that transformers 5 no longer has" in problem.found) == ("train.objective", True)
    assert not check_objective(train_config(objective="reward", keep="best"))


def test_a_reward_model_is_not_judged_while_it_trains() -> None:
    problems = check_objective(train_config(objective="reward", keep="best", selection={"patience": 2}))
    assert fields(problems) == ["train.selection.patience"]


def test_llamafactory_trains_no_other_preference_loss_than_sigmoid() -> None:
    # LLaMA-Factory calls trl's loss without its name, which trl then takes to be sigmoid: hinge and ipo are refused.
    from llamafactory.train.dpo.trainer import CustomDPOTrainer
    from trl import DPOTrainer

    assert inspect.signature(DPOTrainer.dpo_loss).parameters["loss_type"].default == "sigmoid"
    tree = ast.parse(textwrap.dedent(inspect.getsource(CustomDPOTrainer.compute_preference_loss)))
    calls = [
        node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "self.dpo_loss"
    ]
    assert [(len(call.args), call.keywords) for call in calls] == [(4, [])]
    with pytest.raises(ValueError, match=r"preference\.loss"):
        train_config(preference={"loss": "ipo"})


def test_the_parts_of_models_are_those_llamafactory_knows() -> None:
    from llamafactory.model.model_utils.visual import COMPOSITE_MODELS

    assert {kind: tuple(parts.projector_keys) for kind, parts in COMPOSITE_MODELS.items()} == PROJECTORS


def folder_with(tmp_path: Path, **config: Any) -> ModelConfig:
    (tmp_path / "config.json").write_text(json.dumps(config))
    return ModelConfig(path=str(tmp_path), template="qwen2_vl")


def test_a_model_whose_parts_are_unknown_is_frozen_nowhere(tmp_path: Path) -> None:
    model = folder_with(tmp_path, model_type="lfm2_vl", vision_config={})
    (problem,) = check_method(TrainConfig(model=model))
    assert "does not know the parts of lfm2_vl" in problem.found
    free = {"vision": False, "projector": False, "language": False}
    assert not check_method(TrainConfig(model=model, freeze=free))
    text = folder_with(tmp_path, model_type="qwen2")
    assert not check_method(TrainConfig(model=text))
    (problem,) = check_method(TrainConfig(model=text, freeze={"language": True, "vision": False}))
    assert problem.field == "train.freeze.language"


def test_a_training_without_anything_to_train_is_refused() -> None:
    everything = {"vision": True, "projector": True, "language": True}
    assert fields(check_method(train_config(freeze=everything))) == ["train.freeze"]
    projector = everything | {"projector": False}
    assert fields(check_method(train_config(freeze=projector))) == ["train.freeze"]
    assert not check_method(train_config(method="full", freeze=projector))
    config = train_config(method="full", model=model_ref(quantization=4))
    assert fields(check_method(config)) == ["train.method"]


def test_going_on_from_an_adapter(tmp_path: Path) -> None:
    chain = Weights(adapters=(tmp_path / "sft",))
    assert not check_start(train_config(method="full"), Weights(tmp_path))
    assert not check_start(train_config(objective="dpo"), chain)
    for changes, field, why in (
        ({"method": "full"}, "train.method", "without adapters"),
        ({"method": "qlora"}, "train.model.quantization", "cannot be merged"),
        ({"launch": {"strategy": "zero-3"}}, "train.launch.strategy", "compare with the base model"),
    ):
        (problem,) = check_start(train_config(objective="dpo", **changes), chain)
        assert problem.field == field
        assert why in problem.found
    own = train_config(method="full", model=model_ref(adapter=tmp_path))
    assert fields(check_start(own, BASE)) == ["train.method"]
    assert "a comma" in check_start(train_config(), Weights(adapters=(tmp_path / "a,b",)))[0].found


def save(folder: Path, content: bytes, *, full: bool = False) -> Path:
    """Write what a training leaves, without a training."""
    (folder / "model").mkdir(parents=True)
    name, config = ("model", "config") if full else ("adapter_model", "adapter_config")
    (folder / "model" / f"{name}.safetensors").write_bytes(content)
    (folder / "model" / f"{config}.json").write_text("{}")
    return folder


def test_weights_are_a_chain_that_notices_what_changed(tmp_path: Path) -> None:
    full, sft, dpo, again = (save(tmp_path / name / "train", name.encode(), full=name in "fg") for name in "fsdg")
    assert trained_weights(full) == Weights(full / "model")
    write_origin(sft, trained_weights(full))
    write_origin(dpo, trained_weights(sft))
    assert trained_weights(dpo) == Weights(full / "model", (sft / "model", dpo / "model"))
    assert trained_weights(dpo).stamps() == [*trained_weights(sft).stamps(), *Weights(dpo / "model").stamps()]
    write_origin(again, trained_weights(full))
    assert trained_weights(again) == Weights(again / "model")  # all weights trained: what was before is in them
    (sft / "model" / "adapter_model.safetensors").write_bytes(b"trained again")
    with pytest.raises(UserError, match="changed since"):
        trained_weights(dpo)
    (sft / "model").rename(sft / "elsewhere")
    with pytest.raises(UserError, match="gone, but"):
        trained_weights(dpo)


def run_folder(tmp_path: Path, model: ModelConfig, *, full: bool = False) -> Path:
    save(tmp_path / "train", b"w", full=full)
    text = json.dumps({"train": {"model": model.model_dump(mode="json")}})
    (tmp_path / "pipeline.json").write_text(text)
    return tmp_path


def test_a_training_that_goes_on_loads_merges_and_adds(tmp_path: Path) -> None:
    made, run = stages(), run_folder(tmp_path, model_ref())
    config = training_config(train_config(start=run), made.data, made.dataset, tmp_path / "out", 0)
    assert config["adapter_name_or_path"] == str(run / "train" / "model")
    assert config["create_new_adapter"] is True
    assert config["model_name_or_path"] == str(tiny_model("qwen2_vl"))
    full = run_folder(tmp_path / "full", model_ref(), full=True)
    config = training_config(train_config(start=full), made.data, made.dataset, tmp_path / "out", 0)
    assert config["model_name_or_path"] == str(full / "train" / "model")
    assert not {"adapter_name_or_path", "create_new_adapter", "ref_model"} & set(config)


def pipeline(tmp_path: Path, *sets: str) -> Any:
    return load_pipeline("demo", [f"train.start={tmp_path}", *sets], tmp_path / "own")


def starts(tmp_path: Path, *sets: str) -> list[Problem]:
    return [problem for problem in check(pipeline(tmp_path, *sets)) if problem.field.startswith("train")]


def test_a_start_is_found_beside_the_yaml_or_by_the_name_of_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_pipeline("demo", ["train.start=earlier"]).pipeline.train.start == tmp_path / "runs" / "earlier"
    (tmp_path / "mine").mkdir()
    assert load_pipeline("demo", ["train.start=mine"]).pipeline.train.start == tmp_path / "mine"


def test_a_start_that_is_no_run_is_refused_with_the_command(tmp_path: Path) -> None:
    (problem,) = starts(tmp_path / "absent")
    assert (problem.field, problem.where) == ("train.start", "--set")
    assert problem.next_step == "Run `msr run absent` first, or name another run"


def test_a_start_with_another_model_is_refused(tmp_path: Path) -> None:
    tiny = load_pipeline("demo").pipeline.train.model
    run_folder(tmp_path, tiny, full=True)
    assert not starts(tmp_path)
    assert not starts(tmp_path, "train.model.batch_size=3", "train.method=lora", "train.objective=dpo")
    found = starts(tmp_path, "train.model.default_system=null", "train.model.image_max_pixels=6272")
    assert fields(found) == ["train.model.default_system", "train.model.image_max_pixels"]
    assert found[1].allowed.startswith("3136 in ")


def test_a_run_does_not_start_from_itself(tmp_path: Path) -> None:
    run_folder(tmp_path, load_pipeline("demo").pipeline.train.model, full=True)
    own = load_pipeline("demo", [f"train.start={tmp_path}"], tmp_path)
    (problem,) = [problem for problem in check(own) if problem.field.startswith("train")]
    assert "go on from itself" in problem.found


def test_a_reward_model_is_no_start(tmp_path: Path) -> None:
    run_folder(tmp_path, load_pipeline("demo").pipeline.train.model, full=True)
    (tmp_path / "train" / "model" / "value_head.safetensors").write_bytes(b"v")
    assert fields(starts(tmp_path)) == ["train.start"]


def test_an_adapter_that_is_none_is_refused(tmp_path: Path) -> None:
    found = check(load_pipeline("demo", [f"train.model.adapter={tmp_path / 'x'}"]))
    assert "train.model.adapter" in fields(found)


def test_weights_in_few_bits_need_their_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    known = metadata.version
    for version, said in ((None, "not installed"), ("0.45.0", "version 0.45.0"), ("0.46.1", "")):

        def fake(name: str, version: str | None = version) -> str:
            if name != "bitsandbytes":
                return known(name)
            if version is None:
                raise metadata.PackageNotFoundError(name)
            return version

        monkeypatch.setattr(metadata, "version", fake)
        found = [p for p in check(load_pipeline("demo", ["train.method=qlora"])) if "quantization" in p.field]
        assert [said in problem.found for problem in found] == ([True] if said else [])
