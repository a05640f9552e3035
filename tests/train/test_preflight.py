"""Before a training: lengths in parallel, rows read back by LLaMA-Factory's loader, balance, memory and disk."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msr_adapter import schema
from msr_adapter.config.schema import LaunchConfig, ModelConfig, TrainConfig
from msr_adapter.errors import UserError
from msr_adapter.llamafactory import row_lengths as measuring_module
from msr_adapter.llamafactory.dataset import INFO_FILE, TRAIN, VALIDATION, read_images, read_rows
from msr_adapter.llamafactory.dataset_check import compare
from msr_adapter.llamafactory.memory_estimate import ModelShape, estimate, model_shape
from msr_adapter.llamafactory.model_weights import resolve_model
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.row_lengths import UNREADABLE, MeasureRequest, measuring, useful_workers
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train import build_dataset, preflight
from msr_adapter.train.dataset import LabelBalance, measure_request
from tests.support.tiny_run import QUIET, model_ref, stages, train_config, write_upstream


def built(folder: Path, **settings: Any) -> StageDirs:
    made = write_upstream(folder)
    made.dataset.mkdir()
    build_dataset(train_config(**settings), made, Prompts(), Job(made.dataset, QUIET))
    return made


def asked(made: StageDirs) -> list[MeasureRequest]:
    return [measure_request(row, made.data) for name in (TRAIN, VALIDATION) for row in read_rows(made.dataset / name)]


def all_lengths(rows: list[MeasureRequest], encoder: Encoder, workers: int | None = None) -> list[int]:
    with measuring(encoder, len(rows), 0, workers) as measurer:
        return [int(length) for part in measurer.lengths(rows) for length in part]


def test_lengths_are_those_that_llamafactory_trains_on(tmp_path: Path) -> None:
    from llamafactory.data.processor.supervised import SupervisedDatasetProcessor

    made, encoder = stages(), Encoder(model_ref())
    rows = asked(made)
    arguments = namedtuple("arguments", "cutoff_len train_on_prompt mask_history")(100_000, False, False)
    processor = SupervisedDatasetProcessor(encoder.template, encoder.tokenizer, encoder.processor, arguments)
    expected = []
    for row in rows:
        turns = [{"role": "user", "content": row.prompt}], [{"role": "assistant", "content": row.answers[0]}]
        ids, _ = processor._encode_data_example(*turns, None, None, [str(path) for path in row.images], [], [])
        expected.append(len(ids))
    assert all_lengths(rows, encoder) == expected


def test_results_do_not_depend_on_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, encoder = built(tmp_path), Encoder(model_ref())
    damaged = made.data / "images" / "001.png"
    damaged.write_bytes(b"")
    monkeypatch.setattr(measuring_module, "_ROWS_PER_TASK", 5)
    monkeypatch.setattr(measuring_module, "_IMAGES_PER_TASK", 2)
    rows = asked(made)
    alone = all_lengths(rows, encoder)
    assert [length == UNREADABLE for length in alone] == [damaged in row.images for row in rows]
    assert any(length == UNREADABLE for length in alone)
    assert all_lengths(rows, encoder, workers=2) == alone


def test_every_distinct_image_is_processed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, encoder = stages(), Encoder(model_ref())
    processed: list[Path] = []
    expansion = Encoder.expansion
    monkeypatch.setattr(Encoder, "expansion", lambda self, path: processed.append(path) or expansion(self, path))
    rows = asked(made)
    with measuring(encoder, len(rows), 0) as measurer:
        measurer.learn(path for row in rows for path in row.images)
        assert len(list(measurer.lengths(rows * 3))) > 0
    assert sorted(processed) == sorted({path for row in rows for path in row.images})
    assert set(processed) == {made.data / image for name in (TRAIN, VALIDATION)
                              for image in read_images(made.dataset / name)}  # fmt: skip


def test_processes_are_started_only_where_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring_module.os, "sched_getaffinity", lambda _: range(64))
    assert [useful_workers(*size) for size in [(0, 0), (39_999, 10), (100_000, 10), (10, 5_000), (10**9, 10**9)]] == [
        1, 1, 5, 5, 16,
    ]  # fmt: skip
    monkeypatch.setattr(measuring_module.os, "sched_getaffinity", lambda _: range(2))
    assert useful_workers(10**9, 0) == 2


@pytest.mark.parametrize("rows", ["parquet", "jsonl"])
def test_rows_come_back_through_llamafactorys_loader(rows: str, tmp_path: Path) -> None:
    made = built(tmp_path, rows=rows)
    work = tmp_path / "work"
    assert compare(made.dataset, made.data, (TRAIN, VALIDATION), work) == []
    assert not list(work.iterdir())


def rewrite(folder: Path, change: Any) -> None:
    """Change the rows of a Parquet data set in place."""
    (path,) = folder.glob("part-*.parquet")
    rows = pq.read_table(path).to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, pq.read_schema(path)), path)


def change_info(made: StageDirs, change: Any) -> None:
    path = made.dataset / INFO_FILE
    info = json.loads(path.read_text())
    change(info[TRAIN])
    path.write_text(json.dumps(info))


def drop_tag(info: dict[str, Any]) -> None:
    del info["tags"]["assistant_tag"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        # A partial list of columns or tags nulls the rest; a wrong number of turns empties the row: both train on.
        (lambda made: change_info(made, drop_tag), "contents differ|loader fails"),
        (lambda made: change_info(made, lambda info: info["columns"].pop("images")), "contents differ"),
        (lambda made: change_info(made, lambda info: info.update(num_samples=5)), "32 rows were written, but 5 are"),
        (lambda made: change_info(made, lambda info: info.update(formatting="openai")), "contents differ|loader fails"),
        (lambda made: change_info(made, lambda info: info.update(ranking=True)), "contents differ"),
        (lambda made: (made.dataset / TRAIN / "_SUCCESS").touch(), "loader fails: ValueError"),
        (lambda made: shutil.copy(made.dataset / TRAIN / "part-00000.parquet", made.dataset / TRAIN / "copy.parquet"),
         "32 rows were written, but 64 are read"),
    ],
)  # fmt: skip
def test_what_its_loader_reads_otherwise_is_refused(damage: Any, expected: str, tmp_path: Path) -> None:
    made = built(tmp_path)
    damage(made)
    (found,) = compare(made.dataset, made.data, (TRAIN, VALIDATION), tmp_path)
    assert found.name == TRAIN
    assert any(part in found.reason for part in expected.split("|")), found.reason


def test_a_stray_file_ends_the_preflight(tmp_path: Path) -> None:
    made = built(tmp_path)
    (made.dataset / TRAIN / "README.md").write_text("hello")
    with pytest.raises(UserError, match="does not read it as it was written") as caught:
        preflight(train_config(), made, QUIET)
    assert [Path(problem.where).name for problem in caught.value.problems] == [TRAIN]
    assert not list(made.dataset.parent.glob(".read-back*"))


def test_pairs_and_judged_rows_are_understood(tmp_path: Path) -> None:
    user = {"role": "user", "content": "<image>\nQ"}
    yes, no = ({"role": "assistant", "content": answer} for answer in ("Yes", "No"))
    pair = {"messages": [user], "chosen": yes, "rejected": no, "images": ["a.png"]}
    judged = {"messages": [user, no], "kto_tag": False, "images": []}
    assert measure_request(pair, tmp_path) == MeasureRequest("<image>\nQ", ("Yes", "No"), (tmp_path / "a.png",))
    assert measure_request(judged, tmp_path) == MeasureRequest("<image>\nQ", ("No",), ())
    balance = LabelBalance()
    for row in (pair, judged, {**judged, "kto_tag": True}, {"messages": [user, yes], "images": []}):
        balance.add(row)
    assert (balance.rows, balance.yes) == (4, 3)


@pytest.mark.parametrize(("kind", "answer"), [("all", "Yes"), ("none", "No"), ("few", "")])
def test_one_sided_labels_are_warned_of(kind: str, answer: str, tmp_path: Path) -> None:
    made = write_upstream(tmp_path)
    table = schema.read_table(made.data / "candidates.parquet", schema.CANDIDATES)
    if kind != "few":
        labels = pa.array(np.full(len(table), kind == "all", dtype=np.int8))
        table = table.set_column(2, schema.CANDIDATES.field("label"), labels)
        schema.write_table(table, schema.CANDIDATES, made.data / "candidates.parquet")
    made.dataset.mkdir()
    build_dataset(train_config(), made, Prompts(), Job(made.dataset, QUIET))
    log = tmp_path / "log"
    found = preflight(train_config(), made, QUIET.with_log(log))
    said = log.read_text()
    assert "[label-balance]" in said
    if answer:
        assert f"every training row answers {answer}" in said
        assert found["yes_share"] == (kind == "all")
    else:
        assert "25.0% of the training rows answer Yes; train.negatives ask for 50.0%" in said
        preflight(train_config(negatives=3), made, QUIET.with_log(tmp_path / "quiet"))
        assert "[label-balance]" not in (tmp_path / "quiet").read_text()


def test_too_little_disk_is_refused_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stages()
    found = preflight(train_config(), made, QUIET)
    assert found["disk_estimate"] > 13 * found["tokens"]
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**10, 0, found["disk_estimate"] - 1))
    with pytest.raises(UserError, match="caches take about"):
        preflight(train_config(), made, QUIET)


SHAPE = ModelShape(
    parameters=8_000, language=7_000, words=2_000, adapted=100, width=10, inner=30, blocks=4, vocabulary=500, exact=True
)


def config(**settings: Any) -> TrainConfig:
    model = ModelConfig(path="No/Such", dtype=settings.pop("dtype", "bfloat16"))
    return TrainConfig(model=model, batch_size=2, **settings)


def test_the_memory_of_a_training_by_hand() -> None:
    lora = estimate(config(), SHAPE, 50, 1_000)
    # 8 a rank: 800 numbers of 16 bytes beside 8,000 of 2. 100 tokens keep 4 x 10 inputs and 9 x 10 + 4 x 30 of a block.
    assert (lora.weights, lora.trained) == (16_000, 12_800)
    assert lora.activations == 100 * (40 + 210) * 2
    assert lora.logits == 100 * 500 * 14
    assert lora.memory == round(1.1 * (16_000 + 12_800 + 50_000 + 700_000)) + 800 * 10**6
    assert lora.disk == 3_200 + 2 * (3_200 + 800 * 8) + 13_000
    full = estimate(config(method="full"), SHAPE, 50, 1_000)
    assert (full.weights, full.trained) == (1_000 * 2, 7_000 * 16)
    whole = estimate(config(overrides={"disable_gradient_checkpointing": True}, dtype="float32"), SHAPE, 50, 0)
    assert (whole.activations, whole.logits) == (100 * 4 * 210 * 4, 100 * 500 * 12)
    shared = estimate(config(method="full", launch=LaunchConfig(strategy="zero-2")), SHAPE, 50, 0, world=4)
    assert (shared.weights, shared.trained) == (2_000, 7_000 * (4 + 3))
    shared = estimate(config(method="full", launch=LaunchConfig(strategy="fsdp")), SHAPE, 50, 0, world=4)
    assert (shared.weights, shared.trained) == (500, 7_000 * 4)
    few = estimate(config(method="qlora"), SHAPE, 50, 0)
    assert few.weights == 6_000 * 0.516 + 2_000 * 2
    pairs = estimate(config(method="full", objective="dpo"), SHAPE, 50, 0)
    assert (pairs.weights, pairs.logits) == (1_000 * 2 + 8_000 * 2, 2 * lora.logits)
    assert str(lora).startswith("about 0.8 GB on each device (weights 0 MB, ")


def test_the_disk_of_a_training_by_hand() -> None:
    weights, states, cache = 3_200, 800 * 8, 13_000

    def disk(steps: int | None = None, **settings: Any) -> int:
        return estimate(config(**settings), SHAPE, 50, 1_000, steps=steps).disk - weights - cache

    assert disk() == disk(steps=50) == 2 * (weights + states)
    assert disk(checkpoints=0) == 0
    assert disk(checkpoints=1) == disk(steps=1) == weights + states
    assert disk(keep="best", checkpoints=7) == 7 * weights + 2 * states
    assert disk(steps=101, keep="best", checkpoint_steps=20) == 6 * weights + 2 * states
    assert disk(steps=101, checkpoint_steps=20) == disk(checkpoint_steps=20) == 2 * (weights + states)


def test_shapes_are_counted_in_the_weights_and_computed_without_them(tmp_path: Path) -> None:
    counted = model_shape(ModelConfig(path="tiny"))
    assert counted is not None
    assert counted.exact
    assert (counted.width, counted.inner, counted.blocks, counted.vocabulary) == (128, 352, 4, 507)
    # q, k, v, o and the three matrices of the feed-forward, in each of four blocks
    assert counted.adapted == 4 * (4 * 256 + 3 * 480)
    shutil.copy(Path(resolve_model("tiny")) / "config.json", tmp_path / "config.json")
    computed = model_shape(ModelConfig(path=str(tmp_path)))
    assert computed is not None
    assert not computed.exact
    assert computed.adapted == counted.adapted
    assert computed.parameters == pytest.approx(counted.parameters, rel=0.2)  # no patches and merger
    assert model_shape(ModelConfig(path="No/Such-Model")) is None
