"""What is written for LLaMA-Factory: data set, dataset_info.json, YAML, versions."""

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import UserError
from msr_adapter.llamafactory import dataset, versions
from msr_adapter.llamafactory.dataset import TrainingRows, count_rows, json_text, write_info, write_rows
from msr_adapter.llamafactory.training_yaml import (
    REFUSED,
    check_overrides,
    expected_steps,
    training_config,
    unknown_overrides,
    write_yaml,
)
from tests.support.tiny_run import model_ref, stages, train_config
from tests.support.training_rows import TrainingRow, training_rows

ROWS = [TrainingRow("first, no image", "No"), TrainingRow("<image>\nsecond", "Yes", ("images/é.png",))]


def by_column(rows: list[TrainingRow], quote: Callable[[str], str] = str) -> TrainingRows:
    prompts, answers = [quote(row.prompt) for row in rows], [row.answer for row in rows]
    images = [quote(row.images[0]) if row.images else None for row in rows]
    return TrainingRows(*(pl.Series(column, dtype=pl.String) for column in (prompts, answers, images)))


def test_json_lines_come_back_as_written_and_as_huggingface_reads_them(tmp_path: Path) -> None:
    hostile = TrainingRow('"quotes" \\ \u2028 \x7f 日本 \t {{x}}', "No", ('images/"é".png',))
    rows = [ROWS[1], hostile, *ROWS[:1] * 3]
    assert write_rows(tmp_path / "rows", [by_column(rows, json_text)] * 2, "jsonl") == 10
    assert count_rows(tmp_path / "rows") == 10
    assert list(training_rows(tmp_path / "rows")) == rows * 2
    read = datasets.Dataset.from_json(str(tmp_path / "rows" / "part-00000.jsonl"), cache_dir=str(tmp_path / "cache"))
    assert [row["messages"][0]["content"] for row in read] == [row.prompt for row in rows * 2]
    assert [tuple(row["images"]) for row in read] == [row.images for row in rows * 2]


def test_rows_come_back_as_written_under_the_explicit_schema(tmp_path: Path) -> None:
    assert write_rows(tmp_path / "rows", [by_column(ROWS)]) == 2
    assert list(training_rows(tmp_path / "rows")) == ROWS
    written = pq.read_schema(tmp_path / "rows" / "part-00000.parquet")
    assert written.equals(dataset.SCHEMAS["answers"])
    assert str(written.field("messages").type) == "list<element: struct<role: string, content: string>>"


def test_many_rows_are_split_over_files_alone_in_their_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "ROWS_PER_FILE", 3)
    monkeypatch.setattr(dataset, "_ROWS_PER_GROUP", 2)
    rows = [TrainingRow(str(number), "Yes") for number in range(8)]
    chunks = (by_column(rows[begin : begin + 3]) for begin in range(0, 8, 3))
    assert write_rows(tmp_path / "rows", chunks) == count_rows(tmp_path / "rows") == 8
    assert sorted(path.name for path in (tmp_path / "rows").iterdir()) == [f"part-0000{n}.parquet" for n in range(3)]
    assert list(training_rows(tmp_path / "rows")) == rows


def test_dataset_info_names_every_column_and_tag_in_ascii(tmp_path: Path) -> None:
    write_info(tmp_path, [dataset.TRAIN])
    text = (tmp_path / "dataset_info.json").read_text(encoding="ascii")
    assert json.loads(text) == {
        "msr_train": {
            "file_name": "msr_train",
            "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"},
            "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                     "assistant_tag": "assistant", "system_tag": "system"},
        }
    }  # fmt: skip


def config(tmp_path: Path, **settings: Any) -> dict[str, Any]:
    made = stages()
    return training_config(train_config(**settings), made.data, made.dataset, tmp_path / "out", 7)


@pytest.mark.parametrize(
    "settings",
    [{}, {"method": "full"}, {"model": model_ref(dtype="bfloat16")}, {"model": model_ref(default_system="")},
     {"max_steps": None, "epochs": 0.5, "warmup_ratio": 0.1, "scheduler": "linear"}, {"batches": "similar-length"},
     {"overrides": {"optim": "adamw_torch", "adam_beta2": 0.95, "accelerator_config": {"dispatch_batches": False}}}],
)  # fmt: skip
def test_llamafactory_accepts_the_yaml_as_it_is(tmp_path: Path, settings: dict[str, Any]) -> None:
    from llamafactory.hparams import get_train_args

    made = config(tmp_path, **settings)
    path = tmp_path / "train.yaml"
    write_yaml(path, made, "a comment")
    read = OmegaConf.to_container(OmegaConf.load(path))
    assert read == made == yaml.safe_load(path.read_text())
    model_args, data_args, training_args, finetuning_args, _ = get_train_args(read)
    train = train_config(**settings)
    assert training_args.learning_rate == train.learning_rate
    grouped = train.batches == "similar-length"
    assert training_args.train_sampling_strategy == ("group_by_length" if grouped else "random")
    assert training_args.seed == 7
    assert data_args.default_system == train.model.default_system
    assert data_args.eval_dataset is None
    assert not training_args.do_eval
    assert model_args.image_max_pixels == train.model.image_max_pixels
    assert finetuning_args.finetuning_type == train.method
    assert training_args.bf16 == (train.model.dtype == "bfloat16")


@settings(deadline=None)
@given(
    st.dictionaries(
        st.text("abcdefgh_", min_size=1),
        st.text(st.characters(codec="utf-8"), max_size=30).filter(lambda text: "${" not in text)
        | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9) | st.booleans()
        | st.sampled_from(["1e5", "no", "null", "~", "0x1f", "1_000", "12:30", "2024-01-01", "- a", "a: b", "#x", ""]),
    )
)  # fmt: skip
def test_two_yaml_readers_read_the_same_values(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("yaml") / "x.yaml"
    write_yaml(path, values, "x")
    read = OmegaConf.to_container(OmegaConf.load(path))
    # Types count: 1e-4 must not become text for one reader and a number for the other.
    assert [(type(value), value) for value in read.values()] == [(type(value), value) for value in values.values()]
    assert (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) == values


def test_small_learning_rates_have_a_point(tmp_path: Path) -> None:
    write_yaml(tmp_path / "x.yaml", {"learning_rate": 1e-5}, "x")
    assert "learning_rate: 1.0e-05\n" in (tmp_path / "x.yaml").read_text()


def test_every_own_key_is_refused_with_its_reason(tmp_path: Path) -> None:
    own = config(tmp_path)
    free = {"use_cpu", "logging_steps", "plot_loss",
            "report_to", "ddp_timeout", "disable_gradient_checkpointing", "include_num_input_tokens_seen"}  # fmt: skip
    assert set(own) - free <= set(REFUSED)
    assert not unknown_overrides(REFUSED)  # no name is misspelt
    problems = check_overrides(
        {"learning_rate": 1, "optim": "sgd", "resize_vocab": True, "run_name": "${oops}"}, "p.yaml"
    )
    assert [problem.field for problem in problems] == [
        "train.overrides.learning_rate", "train.overrides.resize_vocab", "train.overrides.run_name",
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"template.*set it under train\.model"):
        config(tmp_path, overrides={"template": "llava"})


def test_validation_rows_are_read_where_an_override_asks_for_their_loss(tmp_path: Path) -> None:
    from llamafactory.hparams import get_train_args

    asked = config(tmp_path, overrides={"eval_strategy": "steps", "eval_steps": 2})
    assert get_train_args(asked)[1].eval_dataset == [dataset.VALIDATION]
    assert config(tmp_path, overrides={"do_eval": True})["eval_dataset"] == dataset.VALIDATION
    assert "eval_dataset" not in config(tmp_path, overrides={"eval_strategy": "no"})


def test_all_weights_stay_where_the_best_are_chosen(tmp_path: Path) -> None:
    assert config(tmp_path)["save_total_limit"] == 2
    assert config(tmp_path, keep="best")["save_total_limit"] is None


def test_overrides_replace_defaults(tmp_path: Path) -> None:
    assert (
        config(tmp_path, overrides={"logging_steps": 9, "optim": "sgd"}).items()
        >= {"logging_steps": 9, "optim": "sgd"}.items()
    )


@pytest.mark.parametrize(
    ("settings", "logged", "saved"),
    [
        ({"max_steps": 300, "checkpoints": 5}, 6, 60),
        ({"max_steps": 299, "checkpoints": 10}, 5, 30),  # never more often than asked
        ({"max_steps": 3}, 1, 1),
        ({"max_steps": 300, "checkpoint_steps": 50}, 5, 50),  # a log line falls on every checkpoint
        ({"max_steps": 300, "checkpoint_steps": 7}, 1, 7),
        ({"max_steps": 300, "checkpoints": 10, "overrides": {"logging_steps": 20}}, 20, 40),
    ],
)
def test_states_are_saved_with_a_line_of_the_log(
    tmp_path: Path, settings: dict[str, Any], logged: int, saved: int
) -> None:
    made = config(tmp_path, **settings)
    assert (made["logging_steps"], made["save_strategy"], made["save_steps"]) == (logged, "steps", saved)


def test_no_state_is_saved_where_none_is_wanted(tmp_path: Path) -> None:
    assert config(tmp_path, checkpoints=0)["save_strategy"] == "no"


def test_misspelt_overrides_name_the_nearest() -> None:
    problems = unknown_overrides({"lerning_rate": 1, "optim": "sgd", "zzzz": 2})
    assert [(problem.field, problem.allowed) for problem in problems] == [
        ("train.overrides.lerning_rate", "did you mean learning_rate"), ("train.overrides.zzzz", ""),
    ]  # fmt: skip


def test_paths_that_would_be_interpolated_are_refused(tmp_path: Path) -> None:
    made = stages()
    with pytest.raises(UserError, match=r"output_dir.*interpolate"):
        training_config(train_config(), made.data, made.dataset, tmp_path / "${HOME}", 0)


@pytest.mark.parametrize(
    ("rows", "batch", "accumulation", "epochs", "steps"),
    [(32, 4, 1, 1.0, 8), (33, 4, 1, 1.0, 9), (33, 4, 2, 1.0, 5), (33, 4, 2, 0.5, 3), (1, 8, 8, 2.0, 2)],
)
def test_expected_steps(rows: int, batch: int, accumulation: int, epochs: float, steps: int) -> None:
    train = TrainConfig(model=model_ref(), batch_size=batch, gradient_accumulation=accumulation, epochs=epochs)
    assert expected_steps(train, rows) == steps
    assert expected_steps(train.model_copy(update={"max_steps": 5}), rows) == 5


def test_short_runs_log_often(tmp_path: Path) -> None:
    assert config(tmp_path)["logging_steps"] == 1
    assert config(tmp_path, max_steps=1000)["logging_steps"] == 20


def fake_versions(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    found = {**versions.PINNED, **changes}

    def version(name: str) -> str:
        if (value := found[name]) is None:
            raise metadata.PackageNotFoundError(name)
        return value

    monkeypatch.setattr(metadata, "version", version)


def test_fitting_versions_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_versions(monkeypatch, torch="2.10.0+cu128", torchaudio="2.10.0", torchvision="0.25.0")
    versions.require_versions()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"llamafactory": "0.9.4"}, "llamafactory: version 0.9.4; needs 0.9.5"),
        ({"llamafactory": None}, "llamafactory: not installed; needs 0.9.5"),
        ({"torchaudio": None}, "torchaudio: not installed"),
        ({"torch": "2.12.0"}, "torchaudio: version 2.11.0; the version of torch, which is 2.12.0"),
    ],
)
def test_other_versions_are_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str | None], said: str
) -> None:
    fake_versions(monkeypatch, **changes)
    with pytest.raises(UserError) as caught:
        versions.require_versions()
    assert said in str(caught.value)
    assert "pip install llamafactory==0.9.5 torch==2.11.0" in str(caught.value)


def test_every_known_failure_has_a_next_step() -> None:
    from msr_adapter.llamafactory.failures import KNOWN

    assert all(known.cause and known.next_step for known in KNOWN)
    assert len({known.pattern for known in KNOWN}) == len(KNOWN)
