"""Each trap of LLaMA-Factory 0.9.5 that could bite a user, and the test that shows that it cannot.

Where LLaMA-Factory itself can be asked cheaply, a test here first shows the trap in its own code, then the guard.

1. `cutoff_len` cuts the right end of the prompt, title and assistant header, without a word
   -> `test_llamafactory_cuts_the_prompt_and_msr_does_not_train_such_rows` here, tests/test_fit.py
2. a tokenised cache or an output folder that is used again ignores all settings, or trains no step and exits with 0
   -> `test_no_cache_and_no_output_folder_is_used_again` here, `test_exit_code_zero_proves_nothing`
3. reasoning templates put `<think>` before the answer
   -> `test_reasoning_templates_are_refused_with_the_plain_one_named`
4. pixel limits are not saved with the model
   -> `test_pixel_limits_are_those_of_the_run_not_of_the_model_folder` here,
   `test_pixel_limits_reach_the_image_processor`
5. LLaMA-Factory's template and the tokenizer's chat template differ
   -> `test_prompts_never_pass_through_the_tokenizers_chat_template` here, `test_scored_tokens_are_trained_tokens`
6. partial columns or tags null the rest, and rows are dropped with a line in a log
   -> `test_what_its_loader_reads_otherwise_is_refused`, `test_rows_come_back_through_llamafactorys_loader`,
   `test_llamafactory_is_told_every_column_and_the_types_it_asks_for` (`kto_tag` is a real bool)
7. `max_samples` takes the first rows, `val_size` splits users and time at random
   -> `test_rows_are_neither_sampled_nor_split_by_llamafactory` here, `test_rows_are_shuffled_by_the_seed_alone`
8. placeholders and control tokens in titles end the run or are injected; a bad image ends it hours later
   -> `test_no_title_can_act`, `test_all_damaged_images_are_reported_at_once`
9. types inferred from the first rows; a stray file in the folder; `openai` formatting adds a system text
   -> `test_rows_whose_first_thousands_have_no_image_are_read` and
   `test_an_image_comes_early_if_there_is_any` here, `test_a_stray_file_ends_the_preflight`,
   `test_what_its_loader_reads_otherwise_is_refused`, `test_json_lines_hold_the_same_rows_and_begin_with_an_image`
10. M-RoPE: KTO is broken, a forward pass without positions fails; freeze switches are ignored where parts are unknown
   -> `test_kto_is_refused_where_positions_are_lost`, `test_a_model_whose_parts_are_unknown_is_frozen_nowhere`,
   `test_scores_equal_a_plain_forward_pass_and_training_changed_them`

11. a fully trained vision-language model that is resumed is the base model again, under the old optimizer
   -> `test_killed_in_every_stage_then_completed_equals_undisturbed`

Further silent failures: environment variables (`test_the_trainer_environment`,
`test_variables_that_change_a_run_are_named` and here), `${` in values
(`test_paths_that_would_be_interpolated_are_refused`), 1e-4 read as text
(`test_small_learning_rates_have_a_point`), unknown keys (`test_misspelt_overrides_name_the_nearest`), blanks in paths,
missing images and images elsewhere (here).
"""

import ast
import re
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from msr_adapter.errors import UserError
from msr_adapter.llamafactory import dataset_check
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION, TrainingRows, read_rows, write_info, write_rows
from msr_adapter.llamafactory.launcher import child_environment
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.training_yaml import check_overrides, training_config, write_yaml
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job
from msr_adapter.train import build_dataset, preflight
from msr_adapter.train.dataset import _IMAGE_WITHIN, _image_early, measure_request
from tests.support.paths import ROOT
from tests.support.tiny_run import QUIET, model_ref, stages, train_config, write_upstream

TESTS = ROOT / "tests"


def config(out: Path, **settings: Any) -> dict[str, Any]:
    made = stages()
    return training_config(train_config(**settings), made.data, made.dataset, out, 7)


def test_every_test_that_is_named_above_exists() -> None:
    defined = {
        node.name
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }
    named = set(re.findall(r"`(test_\w+)`", __doc__ or ""))
    assert len(named) > 20
    assert named <= defined


def test_llamafactory_cuts_the_prompt_and_msr_does_not_train_such_rows() -> None:
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor

    made, encoder = stages(), Encoder(model_ref())
    rows = [measure_request(row, made.data) for row in read_rows(made.dataset / TRAIN)]
    row = max(rows, key=lambda one: encoder.row_length(one.prompt, one.images, one.answers[0]))
    limit = encoder.row_length(row.prompt, row.images, row.answers[0]) - 20
    arguments = namedtuple("arguments", "cutoff_len train_on_prompt mask_history")(limit, False, False)
    processor = SupervisedDatasetProcessor(encoder.template, encoder.tokenizer, encoder.processor, arguments)
    turns = [{"role": "user", "content": row.prompt}], [{"role": "assistant", "content": row.answers[0]}]
    ids, _ = processor._encode_data_example(*turns, None, None, [str(path) for path in row.images], [], [])
    trained = encoder.tokenizer.decode(ids)
    assert row.prompt.splitlines()[-1] not in trained  # the title's end is gone, the answer is still there
    assert "<|im_start|>assistant" not in trained
    assert row.answers[0] in trained.split("\n")[-2]
    with pytest.raises(UserError, match="rows are longer than"):
        preflight(train_config(cutoff_len=limit), made, QUIET)


def test_no_cache_and_no_output_folder_is_used_again(tmp_path: Path) -> None:
    written = config(tmp_path / "out")
    assert "tokenized_path" not in written
    assert written["overwrite_cache"] is True
    refused = {
        problem.field
        for problem in check_overrides(
            dict.fromkeys(
                ("tokenized_path", "overwrite_cache", "output_dir", "overwrite_output_dir", "resume_from_checkpoint"),
                "x",
            )
        )
    }
    assert len(refused) == 5
    environment = child_environment({"HF_DATASETS_CACHE": "/shared"}, tmp_path / "own", small=False)
    assert environment["HF_DATASETS_CACHE"] == str(tmp_path / "own")


def test_pixel_limits_are_those_of_the_run_not_of_the_model_folder(tmp_path: Path) -> None:
    image = [stages().data / "images" / "002.png"]
    for pixels in (784, 112 * 112):
        encoder = Encoder(model_ref(image_max_pixels=pixels))
        assert encoder.processor.image_max_pixels == pixels
        encoder.processor.save_pretrained(tmp_path / str(pixels))
        saved = (tmp_path / str(pixels) / "processor_config.json").read_text()
        assert "image_max_pixels" not in saved  # the trap
        assert config(tmp_path, model=model_ref(image_max_pixels=pixels))["image_max_pixels"] == pixels
    assert len(encoder.encode("<image>", image)) > len(
        Encoder(model_ref(image_max_pixels=784)).encode("<image>", image)
    )


def test_prompts_never_pass_through_the_tokenizers_chat_template() -> None:
    encoder = Encoder(model_ref())
    before = encoder.encode("Q"), encoder.answer_tokens(("Yes", "No"))
    encoder.tokenizer.chat_template = "{{ raise_exception('never') }}"
    encoder.processor.chat_template = encoder.tokenizer.chat_template
    assert (encoder.encode("Q"), encoder.answer_tokens(("Yes", "No"))) == before


def test_rows_are_neither_sampled_nor_split_by_llamafactory(tmp_path: Path) -> None:
    sampling = ("max_samples", "val_size", "mix_strategy", "interleave_probs", "streaming")
    assert {problem.field for problem in check_overrides(dict.fromkeys(sampling, 1))} == {
        f"train.overrides.{key}" for key in sampling
    }
    written = config(tmp_path)
    assert not set(sampling) & set(written)
    asked = config(tmp_path, overrides={"eval_strategy": "steps"})
    assert asked["eval_dataset"] == VALIDATION  # our own split: by user and time


@pytest.mark.parametrize(
    ("kind", "first", "fails"),
    [("parquet", True, False), ("parquet", False, True), ("jsonl", True, False), ("jsonl", False, True)],
)
def test_rows_whose_first_thousands_have_no_image_are_read(kind: Any, first: bool, fails: bool, tmp_path: Path) -> None:
    # JSONL's types are inferred from the first 10 MB, the converter's from the first 1,000 rows of anything.
    images: list[str | None] = [None] * 11_000
    images[0 if first else -1] = images[-1] = "image.png"
    (tmp_path / "image.png").touch()
    texts = pl.Series(["x" * 1_000] * len(images))
    answers = pl.Series(["No"] * len(images))
    write_rows(tmp_path / TRAIN, [TrainingRows(texts, answers, pl.Series(images, dtype=pl.String))], kind)
    write_info(tmp_path, [TRAIN])
    found = dataset_check.compare(tmp_path, tmp_path, [TRAIN], tmp_path / "work")
    assert bool(found) == fails
    if fails:  # the trap
        assert "loader fails" in found[0].reason


@pytest.mark.parametrize(("kind", "without"), [("parquet", 999), ("parquet", 1_000), ("jsonl", 1)])
def test_an_image_comes_early_if_there_is_any(kind: str, without: int) -> None:
    shown = np.arange(2_000) == without
    order = _image_early(np.arange(2_000), shown, _IMAGE_WITHIN[kind])
    assert sorted(order) == list(range(2_000))
    assert int(np.argmax(shown[order])) == (999 if without == 999 else 0)
    assert np.array_equal(_image_early(np.arange(5), np.zeros(5, bool), 1), np.arange(5))


def test_images_are_those_of_the_run_wherever_msr_is_called_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_upstream(tmp_path / "with blanks, and ü" / "run")
    made.dataset.mkdir()
    build_dataset(train_config(), made, Prompts(), Job(made.dataset, QUIET))
    missing = made.data / "images" / "000.png"
    # LLaMA-Factory would take a file of the same name under the working directory, with one warning for all.
    (tmp_path / "images").mkdir()
    missing.rename(tmp_path / "images" / "000.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=re.escape(str(missing))):
        preflight(train_config(), made, QUIET)
    (tmp_path / "images" / "000.png").rename(missing)
    assert preflight(train_config(), made, QUIET)["rows"] == 44


def test_the_written_yaml_says_the_same_to_both_readers(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    written = config(tmp_path / "out", learning_rate=1e-4, weight_decay=1e-5)
    write_yaml(tmp_path / "train.yaml", written, "")
    read = yaml.safe_load((tmp_path / "train.yaml").read_text())
    assert read == written == OmegaConf.to_container(OmegaConf.load(tmp_path / "train.yaml"))
    assert isinstance(read["learning_rate"], float)


@pytest.mark.parametrize("name", ["USE_V1", "USE_RAY", "IMAGE_PLACEHOLDER", "ALLOW_EXTRA_ARGS"])
def test_variables_do_not_reach_the_trainer(name: str, tmp_path: Path) -> None:
    assert name not in child_environment({name: "1", "HOME": "/home"}, tmp_path, small=False)
