"""`msr recommend` with a model in memory: scores are those of a plain forward pass; a killed command goes on."""

import functools
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from msr_adapter import schema
from msr_adapter.config.loader import load_pipeline
from msr_adapter.pipeline import run
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.schema import USER_SUMMARIES, read_table
from msr_adapter.workflows.recommend import RecommendRequest
from msr_adapter.workflows.recommend.workflow import recommend
from tests.support.paths import ROOT
from tests.support.recommending import TAKEN, load, nothing, order, rows, without_training, write_pipeline
from tests.support.tiny_models import tiny_model

WORKER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import msr_adapter.pipeline.planning as planning
from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.workflows.recommend import user_shards as shards
from tests.support.recommending import order, without_training

planning.STAGES = without_training()
shards.PAIRS = 5
answer = ScriptedBackend.complete

def slow(backend, requests, *follow):
    if requests[0].choices:
        time.sleep(0.15)
        print("asked", len(requests), flush=True)
    return answer(backend, requests, *follow)

ScriptedBackend.complete = slow
print(order(Path(sys.argv[2]))["scores"]["computed"], flush=True)
"""


def test_a_killed_command_leaves_no_list_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pipeline(tmp_path)
    (tmp_path / "pipeline").symlink_to(tmp_path)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", without_training())
    run(load(tmp_path, tmp_path), ("train",), reporter=Reporter(quiet=True))
    command = [sys.executable, "-c", WORKER, str(ROOT), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen = [process.stdout.readline() for _ in range(4)]
        process.send_signal(signal.SIGKILL)
        seen += process.stdout.readlines()
    assert not (tmp_path / "recs.parquet").exists()
    assert (tmp_path / "run" / ".recommend.partial").exists()
    asked = sum(int(line.split()[1]) for line in seen)
    counts = order(tmp_path)
    # Of what was asked, the last shard at most is lost.
    last = int(seen[-1].split()[1])
    assert asked - last <= counts["scores"]["cached"] <= asked < counts["scored"]
    resumed = rows(tmp_path)
    shutil.rmtree(tmp_path / "run")
    order(tmp_path)
    assert rows(tmp_path) == resumed


PICTURED = """\
name: pictured
data:
  source: {kind: table, interactions: log.csv, items: items.csv}
  images: {folder: covers}
split: {fractions: [0.5, 0.2, 0.3], max_history: 3}
summarize:
  items: {model: &writer {path: nobody, backend: scripted}}
  users: {model: *writer, block: 2}
train:
  model: {path: MODEL, template: qwen2_vl, image_max_pixels: 12544, image_min_pixels: 784}
  method: full
evaluate: {protocol: next-item, baselines: [popularity]}
"""
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n"
    "<|im_start|>assistant\n"
)


def finish_training(context: Context) -> dict[str, Any]:
    """Take the random weights for trained ones."""
    shutil.copytree(tiny_model("qwen2_vl"), context.out / "model")
    return {}


@functools.cache
def loaded() -> tuple[Any, Any]:
    from transformers import AutoProcessor, Qwen2VLForConditionalGeneration

    folder = tiny_model("qwen2_vl")
    return AutoProcessor.from_pretrained(folder), Qwen2VLForConditionalGeneration.from_pretrained(folder)


def plain_score(prompt: str, cover: Path | None) -> float:
    """Return p(yes) / (p(yes) + p(no)) by transformers alone: processor, model, one prompt, the last position."""
    processor, model = loaded()
    text = CHAT.format(prompt.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>"))
    pictures = {"images": [Image.open(cover).convert("RGB")]} if cover else {}
    inputs = processor(text=[text], **pictures, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits[0, -1]
    yes, no = (processor.tokenizer.encode(answer, add_special_tokens=False)[0] for answer in ("Yes", "No"))
    return float((logits[yes] - logits[no]).sigmoid())


def test_scores_are_those_of_a_plain_forward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pipeline(tmp_path)
    (tmp_path / "pictured.yaml").write_text(PICTURED.replace("MODEL", str(tiny_model("qwen2_vl"))))
    (tmp_path / "covers").mkdir()
    for number, item in enumerate("acegij"):
        Image.new("RGB", (60 + 10 * number, 80), (40 * number, 90, 200)).save(tmp_path / "covers" / f"{item}.png")
    replaced = {"train": finish_training, "lengths": nothing, "dataset": nothing}
    stages = tuple(replace(stage, run=replaced.get(stage.name, stage.run)) for stage in STAGES)
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", stages)
    sets = ("evaluate.protocol.negatives=3", "train.negatives=1")
    pipeline = load_pipeline(str(tmp_path / "pictured.yaml"), sets, tmp_path / "run")
    monkeypatch.setattr("msr_adapter.workflows.recommend.workflow.shutil.rmtree", lambda *_, **__: None)
    counts = recommend(
        pipeline, RecommendRequest(None, "popular:4", 3, tmp_path / "recs.parquet"), Reporter(quiet=True)
    )
    assert counts["scores"]["computed"] == counts["scored"] == 40
    users = read_table(tmp_path / "run/.recommend.partial/group-00000/users/users.parquet", USER_SUMMARIES).to_pylist()
    summaries = {sorted(TAKEN)[row["example_id"]]: row["summary"] for row in users}
    data = tmp_path / "run" / "data"
    items = {row["item_id"]: row for row in schema.read_table(data / "items.parquet", schema.ITEMS).to_pylist()}
    checked = []
    for row in rows(tmp_path)[::4]:
        item = items[row["item_id"]]
        cover = data / item["image"] if item["image"] else None
        prompt = Prompts().recommend(summaries[row["user_id"]], item["title"], image=cover is not None)
        assert row["score"] == pytest.approx(plain_score(prompt, cover), abs=1e-4)
        checked.append(cover is not None)
    assert set(checked) == {True, False}
