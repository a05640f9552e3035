"""The forecast of the rows' length: against what LLaMA-Factory really encodes, and what it says when rows are long."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from msr_adapter import schema
from msr_adapter.candidate_rows import CandidateRows
from msr_adapter.config.schema import ItemSummariesConfig, ModelConfig, SummarizeConfig, UserSummariesConfig
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.token_counts import image_tokens, token_counter
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts, neutralise
from msr_adapter.stage_arguments import Job
from msr_adapter.train import estimate_lengths
from tests.support.tiny_run import QUIET, model_ref, train_config, write_upstream

UNKNOWN = ModelConfig(path="No/Such-Model", template="qwen2_vl")


def summarize(users: str = "recurrent", items: str = "image", tokens: int = 40) -> SummarizeConfig:
    model = ModelConfig(path="tiny")
    return SummarizeConfig(
        items=ItemSummariesConfig(model=model, mode=items, max_new_tokens=tokens),
        users=UserSummariesConfig(model=model, mode=users, max_new_tokens=tokens),
    )


def told(
    folder: Path, summaries: SummarizeConfig | None = None, reporter: Reporter = QUIET, **train: Any
) -> dict[str, Any]:
    made = write_upstream(folder / "stages")
    found = estimate_lengths(train_config(**train), summaries or summarize(), made, Prompts(), Job(folder, reporter))
    assert json.loads((folder / "lengths.json").read_text()) == found
    return found


@pytest.mark.parametrize("size", [(40, 50), (63, 87), (110, 112), (200, 300), (300, 60), (28, 28)])
def test_image_tokens_are_those_of_llamafactory(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", size, (9, 99, 199)).save(path)
    encoder = Encoder(model_ref())
    with_image = encoder.row_length("<image>?", [path], "Yes") - encoder.row_length("?", [], "Yes")
    assert image_tokens(model_ref(), *size) == with_image - 2  # the signs for its beginning and end


def test_rows_are_about_as_long_as_forecast(tmp_path: Path) -> None:
    made = write_upstream(tmp_path / "stages")
    encoder, count = Encoder(model_ref()), token_counter(model_ref())[0]
    rows = list(CandidateRows(made.data, made.users, Prompts(), "train", images=True))
    longest = max(encoder.row_length(row.prompt, [row.image.path] if row.image else [], "Yes") for row in rows)
    table = schema.read_table(made.users / "users.parquet", schema.USER_SUMMARIES)
    most = max(count(neutralise(text)) for text in table["summary"].to_pylist())
    found = estimate_lengths(train_config(), summarize(tokens=most), made, Prompts(), Job(tmp_path, QUIET))
    assert found["tokens"] == "counted by the model's tokenizer"
    assert longest - 10 <= found["row"]["max"] <= longest + 60


def test_enough_room_is_no_finding(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = told(tmp_path, reporter=Reporter(quiet=True, log=log))
    assert (found["findings"], found["share_too_long"]) == ([], 0.0)
    assert found["items_looked_at"] == 12
    assert found["user_summary"] == {"median": 40.0, "max": 40}
    assert found["row"]["max"] <= found["overhead"] + found["text"]["max"] + found["image"]["max"] + 40
    assert f"at most {found['row']['max']} of 2,048" in log.read_text()


def test_rows_that_may_be_too_long_are_a_warning_with_the_length_they_need(tmp_path: Path) -> None:
    enough = told(tmp_path / "1")["row"]["max"]
    assert told(tmp_path / "2", cutoff_len=enough)["findings"] == []
    found = told(tmp_path / "3", cutoff_len=enough - 1)
    assert 0 < found["share_too_long"] < 0.5
    [finding] = found["findings"]
    assert (finding["severity"], finding["topic"]) == ("warning", "row-length")
    assert f"Set train.cutoff_len: {enough}," in finding["text"]


def test_rows_that_are_too_long_without_any_user_summary_are_an_error(tmp_path: Path) -> None:
    [finding] = told(tmp_path, cutoff_len=64)["findings"]
    assert finding["severity"] == "error"


def test_a_listed_history_counts_its_titles_and_the_summaries_to_come(tmp_path: Path) -> None:
    alone = told(tmp_path / "1", summarize(users="none", items="none"))["user_summary"]["max"]
    described = told(tmp_path / "2", summarize(users="none", items="image", tokens=50))["user_summary"]["max"]
    assert described == alone + 50  # histories of one item
    assert alone > 0


def test_nobody_with_a_history_is_no_text(tmp_path: Path) -> None:
    made = write_upstream(tmp_path / "stages")
    examples = made.data / "examples.parquet"
    schema.write_table(schema.read_table(examples, schema.EXAMPLES).slice(0, 0), schema.EXAMPLES, examples)
    wanted, job = summarize(users="none", items="none"), Job(tmp_path, QUIET)
    found = estimate_lengths(train_config(), wanted, made, Prompts(), job)
    assert found["user_summary"] == {"median": 0.0, "max": 0}
    assert found["row"]["max"] > 0


def test_images_that_are_not_shown_count_nothing(tmp_path: Path) -> None:
    assert told(tmp_path, images=False)["image"] == {"median": 0.0, "max": 0}


def test_without_a_tokenizer_the_length_is_estimated() -> None:
    count, how = token_counter(UNKNOWN)
    assert [count("abcdef"), count("abcdefg"), count("狗和猫"), count("")] == [2, 3, 3, 0]
    assert how.startswith("estimated")


@pytest.mark.parametrize(
    ("template", "tokens"),
    [("qwen2_vl", 8 * 16), ("qwen3_vl", 7 * 14), ("llava", 576), ("llava_next_mistral", 2_928), ("phi", None)],
)
def test_image_tokens_by_template_where_the_processor_is_not_here(template: str, tokens: int | None) -> None:
    assert image_tokens(UNKNOWN.model_copy(update={"template": template}), 448, 224) == tokens


def test_images_are_counted_at_the_size_that_the_model_sees() -> None:
    small = UNKNOWN.model_copy(update={"image_max_pixels": 28 * 28 * 100})
    assert image_tokens(small, 2800, 2800) == 100
    assert image_tokens(UNKNOWN.model_copy(update={"image_min_pixels": 28 * 28 * 16}), 28, 28) == 16


def test_an_unknown_kind_of_image_is_said_to_be_unknown(tmp_path: Path) -> None:
    made = write_upstream(tmp_path / "stages")
    log = tmp_path / "log"
    model = UNKNOWN.model_copy(update={"template": "phi"})
    train = train_config().model_copy(update={"model": model})
    found = estimate_lengths(train, summarize(), made, Prompts(), Job(tmp_path, Reporter(quiet=True, log=log)))
    assert found["image"] is None
    assert "image unknown" in log.read_text()


def test_items_are_sampled_and_the_longest_titles_are_always_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_upstream(tmp_path / "stages")
    items = schema.read_table(made.data / "items.parquet", schema.ITEMS).to_pylist()
    items[5]["title"] = "long title " * 40
    schema.write_table(pa.Table.from_pylist(items, schema.ITEMS), schema.ITEMS, made.data / "items.parquet")
    module = sys.modules["msr_adapter.train.length_estimate"]
    monkeypatch.setattr(module, "_ITEMS", 3)
    monkeypatch.setattr(module, "_LONGEST", 1)
    longest = token_counter(model_ref())[0]("long title " * 40)
    for seed in range(5):
        found = estimate_lengths(train_config(), summarize(), made, Prompts(), Job(tmp_path, QUIET, seed))
        assert found["items_looked_at"] in (3, 4)
        assert found["text"]["max"] >= longest - 2
