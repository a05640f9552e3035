"""The whole pipeline on a small shop: real LLaMA-Factory training, real model, real scores."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.support.end_to_end import RAN, SMALL_DPO, msr, msr_json, write_small_pipeline


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of a finished small run; its pipeline lies beside it."""
    folder = tmp_path_factory.mktemp("small shop")
    pipeline = write_small_pipeline(folder)
    result = msr_json("run", pipeline, "--run-dir", folder / "run")
    assert [stage["name"] for stage in result["stages"]] == list(RAN)
    assert {stage["state"] for stage in result["stages"]} == {"done"}
    return folder / "run"


def test_a_run_leaves_metrics_scores_and_a_report(finished: Path) -> None:
    metrics = json.loads((finished / "evaluate" / "metrics.json").read_text())
    assert {"trained", "base", "random", "popularity", "oracle"} <= set(metrics["models"])
    candidates = pq.read_table(finished / "data" / "candidates.parquet")
    examples = pq.read_table(finished / "data" / "examples.parquet").to_pylist()
    tested = {row["example_id"] for row in examples if row["split"] == "test"}
    assert len(tested) == 10
    scores = pq.read_table(finished / "score" / "scores.parquet")
    assert scores.num_rows == 21 * len(tested)
    assert candidates.num_rows == sum(2 if row["split"] == "train" else 21 for row in examples)
    assert "<html" in (finished / "evaluate" / "report.html").read_text()[:500]


def test_training_really_happened(finished: Path) -> None:
    assert json.loads((finished / "train" / "manifest.json").read_text())["summary"]["steps"] == 4
    trained = pq.read_table(finished / "score" / "scores.parquet")["logit"].to_numpy()
    base = pq.read_table(finished / "score-base" / "scores.parquet")["logit"].to_numpy()
    assert abs(trained - base).max() > 1e-3


def test_the_best_checkpoint_by_validation_auc_is_kept_and_scored(finished: Path) -> None:
    selected = json.loads((finished / "train" / "selection.json").read_text())
    points = {point["step"]: point["value"] for point in selected["points"]}
    assert list(points) == [0, 2, 4]
    trained = {step: value for step, value in points.items() if step}
    assert selected["chosen"] == max(trained, key=lambda step: (trained[step], -step))
    assert (selected["metric"], selected["users"], selected["candidates"]) == ("auc", 2, 42)
    state = json.loads((finished / "train" / "model" / "trainer_state.json").read_text())
    assert state["global_step"] == selected["chosen"]
    log = (finished / "train" / "model" / "trainer_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["current_steps"] for line in log if "loss" in json.loads(line)] == [1, 2, 3, 4]
    weights = {path.name for path in (finished / "train" / "model").iterdir()}
    assert {"model.safetensors", "config.json", "processor_config.json"} <= weights
    assert not (finished / ".train.unfinished").exists()


def test_the_resolved_config_is_kept_and_every_stage_has_a_manifest(finished: Path) -> None:
    resolved = json.loads((finished / "pipeline.json").read_text())
    assert resolved["data"]["source"]["users"] == 50
    for name in RAN:
        manifest = json.loads((finished / name / "manifest.json").read_text())
        assert manifest["stage"] == name
        assert manifest["summary"]
    assert not list(finished.glob(".*.partial"))


def test_a_second_run_finds_every_stage_up_to_date(finished: Path) -> None:
    again = msr_json("run", finished.parent / "small.yaml", "--run-dir", finished)
    assert {stage["state"] for stage in again["stages"]} == {"up to date"}


def test_forcing_a_stage_that_comes_out_equal_leaves_later_stages_alone(finished: Path) -> None:
    forced = msr_json("run", finished.parent / "small.yaml", "--run-dir", finished, "--force", "items")
    states = {stage["name"]: stage["state"] for stage in forced["stages"]}
    assert states.pop("items") == "done"
    assert set(states.values()) == {"up to date"}


def test_a_changed_setting_redoes_only_what_depends_on_it(finished: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(finished, tmp_path / "copy")
    changed = msr_json(
        "run", finished.parent / "small.yaml", "--run-dir", copy, "--set", "evaluate.baselines=[popularity]"
    )
    states = {stage["name"]: stage["state"] for stage in changed["stages"]}
    assert states.pop("evaluate") == "done"
    assert "score-base" not in states
    assert set(states.values()) == {"up to date"}
    metrics = json.loads((copy / "evaluate" / "metrics.json").read_text())
    assert set(metrics["models"]) == {"trained", "popularity", "oracle"}


def test_an_older_training_is_found_again_without_a_step_and_none_is_made_unasked(
    finished: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(finished, tmp_path / "copy")
    where = (finished.parent / "small.yaml", "--run-dir", copy)
    other = (*where, "--set", "train.max_steps=2")
    manifest, scores = ((copy / stage / "manifest.json").read_bytes() for stage in ("train", "score"))
    for command in ("evaluate", "ablate", "export"):
        done = msr(command, *other, *(("--out", tmp_path / "out") if command == "export" else ()))
        assert done.returncode == 2, done.stderr
        assert "train.max_steps: 4, now 2" in done.stderr, command
        assert "msr train " in done.stderr
    assert (copy / "train" / "manifest.json").read_bytes() == manifest
    assert not (copy / "kept").exists()
    assert json.loads((copy / "pipeline.json").read_text())["train"]["max_steps"] == 4
    changed = msr_json("evaluate", *other, "--train")
    assert {stage["name"]: stage["state"] for stage in changed["stages"]}["train"] == "done"
    assert len(list((copy / "kept" / "train").glob("*/manifest.json"))) == 1
    back = msr_json("run", *where)
    states = {stage["name"]: stage["state"] for stage in back["stages"]}
    states.pop("evaluate")  # made again where the other training gave other scores
    assert set(states.values()) == {"up to date"}
    assert (copy / "train" / "manifest.json").read_bytes() == manifest
    assert (copy / "score" / "manifest.json").read_bytes() == scores
    assert "train       found again, as made on 2" in (copy / "run.log").read_text()
    metrics = [json.loads((folder / "evaluate" / "metrics.json").read_text())["models"] for folder in (copy, finished)]
    assert metrics[0] == metrics[1]


def test_dry_run_yaml_is_what_llamafactory_takes(finished: Path, tmp_path: Path) -> None:
    """`llamafactory-cli train` on the written YAML, as it is, trains."""
    import subprocess
    import sys

    from tests.support.end_to_end import environment

    copy = shutil.copytree(finished, tmp_path / "copy")
    dry = msr_json("train", finished.parent / "small.yaml", "--run-dir", copy, "--dry-run")
    cli = Path(sys.executable).parent / "llamafactory-cli"
    trained = subprocess.run(
        [str(cli), "train", dry["yaml"]], capture_output=True, text=True, env=environment(), timeout=300, check=False
    )
    assert trained.returncode == 0, trained.stderr[-3000:]
    assert list(copy.rglob("train-dry-run/**/train_results.json"))


def test_stage_commands_stop_where_they_say(tmp_path: Path) -> None:
    pipeline = write_small_pipeline(tmp_path)
    built = msr_json("build-data", pipeline, "--run-dir", tmp_path / "run", "--set", "summarize.items.mode=none",
                     "--set", "summarize.users.mode=none")  # fmt: skip
    assert [stage["name"] for stage in built["stages"]] == ["data", "lengths", "items", "users", "dataset"]
    assert (tmp_path / "run" / "dataset" / "dataset_info.json").is_file()
    assert not (tmp_path / "run" / "train").exists()


def test_a_run_folder_that_cannot_be_written_is_the_users_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in ("run", "check"):
        done = msr(command, write_small_pipeline(tmp_path), "--run-dir", tmp_path / "file" / "run")
        assert done.returncode == 2
        assert "cannot be written" in done.stderr
        assert "Traceback" not in done.stderr


def test_an_export_scores_as_the_run_did_and_needs_nothing_of_ours(finished: Path, tmp_path: Path) -> None:
    pipeline, out = finished.parent / "small.yaml", tmp_path / "my model"
    options = ["--run-dir", finished, "--out", out]
    made = msr_json("export", pipeline, *options, "--dtype", "float32", "--licence", "cc0-1.0")
    assert made["checked"] == 64
    assert made["largest_difference"] < 1e-4
    from transformers import AutoModelForImageTextToText, AutoProcessor

    network = AutoModelForImageTextToText.from_pretrained(out)
    assert sum(parameter.numel() for parameter in network.parameters()) == made["parameters"]
    assert AutoProcessor.from_pretrained(out).tokenizer("Yes").input_ids
    card = (out / "README.md").read_text()
    metrics = json.loads((finished / "evaluate" / "metrics.json").read_text())
    assert metrics["candidates"]["digest"][:16] in card
    assert 'license: "cc0-1.0"' in card
    assert str(finished) not in card
    assert (out / "templates" / "recommend.j2").is_file()
    assert json.loads((out / "msr.json").read_text())["template"] == "qwen2_vl"
    again = msr("export", pipeline, *options)
    assert again.returncode == 2
    assert "not an empty folder" in again.stderr


@pytest.mark.slow
def test_dpo_goes_on_from_the_finished_run_on_the_same_candidates(finished: Path, tmp_path: Path) -> None:
    pipeline, run = finished.parent / "small-dpo.yaml", tmp_path / "dpo"
    pipeline.write_text(SMALL_DPO)
    result = msr_json("run", pipeline, "--run-dir", run)
    states = {stage["name"]: stage["state"] for stage in result["stages"]}
    taken_over = {"data", "lengths", "items", "users"}
    assert {name for name, state in states.items() if state == "up to date"} == taken_over
    assert json.loads((run / "train" / "origin.json").read_text())["full"] == str(finished / "train" / "model")
    before, after, base = (
        pq.read_table(folder / "scores.parquet")["logit"].to_numpy()
        for folder in (finished / "score", run / "score", run / "score-base")
    )
    assert np.array_equal(base, before)  # what DPO starts from is what the earlier run scored
    assert abs(after - before).max() > 1e-3
    compared = msr_json("compare", finished, run)
    assert set(compared["models"]) == {"run", "dpo"}
    again = msr_json("run", pipeline, "--run-dir", run)
    assert {stage["state"] for stage in again["stages"]} == {"up to date"}


def test_a_table_of_test_pairs_gets_the_scores_of_the_evaluation(finished: Path, tmp_path: Path) -> None:
    """By the trained model itself: one cache answers for both, another is filled anew."""
    scores = pq.read_table(finished / "score" / "scores.parquet").to_pandas()
    users = pq.read_table(finished / "data" / "examples.parquet", columns=["example_id", "user_id"]).to_pandas()
    pairs = scores.merge(users, on="example_id").sample(frac=1, random_state=2).reset_index(drop=True)
    pairs.rename(columns={"score": "wanted"})[["item_id", "wanted", "user_id"]].to_csv(tmp_path / "p.csv", index=False)
    pipeline = finished.parent / "small.yaml"
    for cache, exact in (((), True), (("--set", f"cache={tmp_path / 'other.sqlite'}"), False)):
        out = tmp_path / f"scored-{exact}.parquet"
        ask = (
            "score",
            pipeline,
            tmp_path / "p.csv",
            "--out",
            out,
            "--histories",
            "test",
            "--run-dir",
            finished,
            *cache,
        )
        counts = msr_json(*ask)
        assert counts["scores"]["computed"] == (0 if exact else len(pairs))
        found = pq.read_table(out).to_pandas()
        assert found.columns.tolist() == ["item_id", "wanted", "user_id", "score", "logit"]
        assert found["user_id"].tolist() == pairs["user_id"].tolist()
        # Other prompts stand beside them in a batch, which moves the last bits.
        assert abs(found["logit"] - pairs["logit"]).max() <= (0 if exact else 1e-4)
