"""Several images an item and images of the latest choices: what is trained is what is scored, token for token."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from msr_adapter import schema
from msr_adapter.candidate_requests import ask
from msr_adapter.candidate_rows import CandidateRows
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import UserError
from msr_adapter.item_images import as_columns, images_of
from msr_adapter.llamafactory.dataset import TRAIN
from msr_adapter.llamafactory.dataset_check import compare
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.training_yaml import training_config
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import build_dataset
from msr_adapter.train.length_estimate import estimate_lengths
from msr_adapter.train.preflight import preflight
from tests.support.tiny_run import QUIET, model_ref, train_config, write_upstream
from tests.support.training_rows import training_rows
from tests.train.test_length_estimate import summarize

FAMILIES = ("qwen2_vl", "qwen3_vl_nothink", "llava")


def stages(folder: Path) -> StageDirs:
    """Return data and users stages whose items have none, one, two or three images, and whose histories have 4."""
    made = write_upstream(folder, counts={"train": 6, "validation": 2, "test": 2})
    path = made.data / "items.parquet"
    items = schema.read_table(path, schema.ITEMS)
    drawn = [image for (image, *_) in filter(None, images_of(items, Path()))]
    rows = [one and (*one, *(other for other in drawn if other != one[0]))[: 1 + place % 3]
            for place, one in enumerate(images_of(items, Path()))]  # fmt: skip
    for name, column in as_columns(rows).items():
        items = items.set_column(items.schema.get_field_index(name), schema.ITEMS.field(name), column)
    schema.write_table(items, schema.ITEMS, path)
    ids, path = items["item_id"].to_pylist(), made.data / "examples.parquet"
    examples = schema.read_table(path, schema.EXAMPLES)
    histories = [[ids[(number + step) % len(ids)] for step in range(4)] for number in range(len(examples))]
    place = examples.schema.get_field_index("history")
    column = pa.array(histories, schema.EXAMPLES.field("history").type)
    examples = examples.set_column(place, schema.EXAMPLES.field("history"), column)
    schema.write_table(examples, schema.EXAMPLES, path)
    return made


def tokenised_by_llamafactory(train: TrainConfig, made: StageDirs, out: Path) -> list[list[int]]:
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    model_args, data_args, training_args, _, _ = get_train_args(training_config(train, made.data, made.dataset, out, 0))
    module = load_tokenizer(model_args)
    shared = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    found = get_dataset(shared, model_args, data_args, training_args, stage="sft", **module)["train_dataset"]
    return [list(ids) for ids in found["input_ids"]]


@pytest.mark.parametrize("question", ["recommend", "recommend-image-first"])
@pytest.mark.parametrize("recent", [0, 2])
def test_every_row_shows_the_images_that_its_prompt_has_places_for(tmp_path: Path, recent: int, question: str) -> None:
    made = stages(tmp_path)
    items = schema.read_table(made.data / "items.parquet", schema.ITEMS)
    images = dict(zip(items["item_id"].to_pylist(), images_of(items, made.data), strict=True))
    examples = schema.read_table(made.data / "examples.parquet", schema.EXAMPLES).to_pylist()
    told_of = schema.read_table(made.users / "users.parquet", schema.USER_SUMMARIES).to_pylist()
    summaries = {row["example_id"]: row["summary"] for row in told_of}
    prompts = Prompts(question=question, recent=recent)
    rows = CandidateRows(made.data, made.users, prompts, "train", images=True)
    for place, row in enumerate(rows):
        history = examples[row.example_id]["history"]
        told = tuple(image for item in history[len(history) - recent :] for image in images[item])
        mine = images[row.item_id]
        assert row.images == (told + mine if question == "recommend" else mine + told)
        assert row.prompt.count("<image>") == len(row.images)
        assert row.prompt == rows.prompt_with(place, summaries[row.example_id])
    each = np.arange(len(rows))
    assert rows.images(each).to_list() == [[str(one.path.relative_to(made.data)) for one in row.images] for row in rows]
    assert rows.shows_image(each).tolist() == [bool(row.images) for row in rows]
    assert max(len(row.images) for row in rows) == (7 if recent else 3)


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("template", FAMILIES)
def test_scored_tokens_are_trained_tokens(
    template: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    made, prompts = stages(tmp_path), Prompts(recent=2)
    train = train_config(template, rows=kind, history_images=2, cutoff_len=4096)
    made.dataset.mkdir()
    counts = build_dataset(train, made, prompts, Job(made.dataset, QUIET))
    assert counts["train_rows"] == 24
    encoder = Encoder(model_ref(template))
    trained = tokenised_by_llamafactory(train, made, tmp_path / "out")
    rows = list(training_rows(made.dataset / TRAIN))
    assert {len(row.images) for row in rows} >= {3, 5}
    for row, ids in zip(rows, trained, strict=True):
        paths = [made.data / image for image in row.images]
        prompt = encoder.encode(row.prompt, paths)
        assert ids[: len(prompt)] == prompt
        assert len(ids) == encoder.row_length(row.prompt, paths, row.answer)
    asked = {(row.prompt, row.images) for row in CandidateRows(made.data, made.users, prompts, "train", images=True)}
    written = {(row.prompt, tuple(made.data / image for image in row.images)) for row in rows}
    assert written == {(prompt, tuple(image.path for image in shown)) for prompt, shown in asked}
    assert not list(compare(made.dataset, made.data, [TRAIN], tmp_path))
    found = preflight(train, made, QUIET)
    assert found["longest_row"] == max(map(len, trained))


def test_a_request_has_the_images_of_its_row(tmp_path: Path) -> None:
    rows = CandidateRows(stages(tmp_path).data, tmp_path / "users", Prompts(recent=1), "test", images=True)
    for row in rows:
        assert ask(row, train_config(history_images=1), "m").images == row.images


def test_a_template_may_show_the_first_of_several_images(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/recommend.j2").write_text("{% if image %}<image>{% endif %}{{ title }}/{{ user_summary }}")
    made, prompts = stages(tmp_path), Prompts(tmp_path / "own", recent=2)
    rows = CandidateRows(made.data, made.users, prompts, "train", images=True)
    assert {len(row.images) for row in rows} == {0, 1}
    assert {len(images) for images in rows.images(np.arange(len(rows))).to_list()} == {0, 1}
    (tmp_path / "own/recommend.j2").write_text("{{ recent|length }}{{ title }}{{ images|join }}{{ user_summary }}")
    with pytest.raises(UserError, match=r"placeholders? in the prompt"):
        list(CandidateRows(made.data, made.users, Prompts(tmp_path / "own", recent=2), "train", images=True))


def test_the_estimate_covers_every_row(tmp_path: Path) -> None:
    made, prompts = stages(tmp_path), Prompts(recent=2)
    train = train_config(history_images=2)
    out = tmp_path / "lengths"
    out.mkdir()
    found = estimate_lengths(train, summarize(), made, prompts, Job(out, QUIET))
    encoder = Encoder(model_ref())
    rows = list(CandidateRows(made.data, made.users, prompts, "train", images=True))
    longest = max(encoder.row_length(row.prompt, [image.path for image in row.images], "Yes") for row in rows)
    assert found["recent"]["max"] > 0
    assert longest <= found["row"]["max"]
