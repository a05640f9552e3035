"""What a stage left is believed only while it is what the stage wrote."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from msr_adapter import integrity
from msr_adapter.cli.app import app
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.errors import UserError
from msr_adapter.evaluate.results import read_finished
from msr_adapter.integrity import alterations, read_sealed, require_unaltered, write_sealed
from msr_adapter.llamafactory.model_weights import trained_weights
from msr_adapter.pipeline import plan, run, stored_images
from msr_adapter.pipeline.run_folder import Manifest, RunFolder
from msr_adapter.progress import Reporter
from tests.support.judged_run import make_run
from tests.support.scripted_pipeline import SCRIPTED

QUIET = Reporter(quiet=True)


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedPipeline:
    (tmp_path / "scripted.yaml").write_text(SCRIPTED)
    one = load_pipeline(str(tmp_path / "scripted.yaml"), (), tmp_path / "run")
    run(one, ("users",), reporter=QUIET)
    return one


def finished(root: Path, stage: str, **files: str) -> Path:
    folder = RunFolder(root)
    out = folder.begin(stage)
    for name, text in files.items():
        path = out / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    folder.publish(Manifest(stage, {}, "o", {3: "three", 20: 1.5}, 0.5, "2030-01-01T00:00:00", format=2))
    return folder.stage(stage)


def test_a_manifest_has_the_digest_of_every_file_but_stored_images(tmp_path: Path) -> None:
    stage = finished(tmp_path, "train", model__config="{}", model__tokenizer="{}", images__00="x", log="y")
    files = json.loads((stage / "manifest.json").read_text())["files"]
    assert sorted(files) == ["log", "model/config", "model/tokenizer"]
    assert not alterations(stage, whole=True)


def test_what_was_changed_removed_or_put_beside_is_named_with_stage_date_and_next_step(tmp_path: Path) -> None:
    stage = finished(tmp_path, "train", model__config="{}", model__tokenizer="{}", log="y")
    (stage / "model" / "config").write_text("[]")
    (stage / "model" / "tokenizer").unlink()
    (stage / "model" / "added_tokens").write_text("{}")
    (stage / "notes").write_text("of the user")
    with pytest.raises(UserError) as caught:
        require_unaltered([stage])
    said = [str(problem) for problem in caught.value.problems]
    assert [line.split(": ")[0].removeprefix(f"{stage}/") for line in said] == [
        "model/config", "model/added_tokens", "model/tokenizer",
    ]  # fmt: skip
    assert "changed by hand since the stage train made it (2030-01-01T00:00:00)" in said[0]
    assert "--force train" in said[0]
    assert "gone since" in said[2]


def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    import os

    stage = finished(tmp_path, "train", model__weights="abc")
    path = stage / "model" / "weights"
    before = path.stat()
    path.write_text("abd")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert alterations(stage, whole=False).edited == ("model/weights",)


def test_large_files_are_compared_where_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = finished(tmp_path, "train", model__weights="abc")
    (stage / "model" / "weights").write_text("abd")
    monkeypatch.setattr(integrity, "LARGE", 2)
    assert not alterations(stage, whole=False)
    assert alterations(stage, whole=True)


def test_a_file_is_read_once_per_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = finished(tmp_path, "train", model__weights="abc")
    monkeypatch.setattr(integrity, "_known", {})
    alterations(stage, whole=True)
    monkeypatch.delattr(integrity, "file_digest")
    assert not alterations(stage, whole=True)


def test_what_a_stage_wrote_is_not_read_again_when_its_folder_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = finished(tmp_path, "train", model__weights="abc")
    stage.rename(tmp_path / "moved")
    monkeypatch.delattr(integrity, "file_digest")
    assert integrity.content_of(tmp_path / "moved" / "model" / "weights")


def test_a_seal_is_computed_once_for_a_manifest_and_again_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, computed = finished(tmp_path, "items", table="x"), []
    monkeypatch.setattr(integrity, "_SETTLED_NS", -(10**12))  # as if it were older
    real = integrity.seal_of
    monkeypatch.setattr(integrity, "seal_of", lambda manifest: computed.append(1) or real(manifest))
    assert [bool(integrity.read_manifest(stage)) for _ in range(3)] == [True] * 3
    assert len(computed) == 1
    text = (stage / "manifest.json").read_text()
    (stage / "manifest.json").write_text(text.replace('"seconds": 0.5', '"seconds": 0.55'))
    assert integrity.read_manifest(stage) == {}


def test_the_images_of_a_store_are_not_walked(tmp_path: Path) -> None:
    stage = tmp_path / "data"
    (stage / "images" / "deep").mkdir(parents=True)
    (stage / "images" / "a.png").write_text("x")
    (stage / "images" / "deep" / "b.png").write_text("x")
    (stage / "rows" / "images").mkdir(parents=True)
    (stage / "rows" / "images" / "c.png").write_text("x")
    (stage / "link").symlink_to(stage / "rows")
    (stage / "table").write_text("x")
    assert list(integrity.digests_of(stage)) == ["rows/images/c.png", "table"]


def test_an_edited_manifest_or_that_of_another_stage_is_none(tmp_path: Path) -> None:
    stage = finished(tmp_path, "items", table="x")
    text = (stage / "manifest.json").read_text()
    assert RunFolder(tmp_path).manifest("items") is not None
    (stage / "manifest.json").write_text(text.replace('"seconds": 0.5', '"seconds": 0.6'))
    assert RunFolder(tmp_path).manifest("items") is None
    other = finished(tmp_path, "users", table="x")
    (other / "manifest.json").write_text(text)
    assert RunFolder(tmp_path).manifest("users") is None


def test_an_edited_output_stops_the_run_until_it_is_forced(loaded: LoadedPipeline) -> None:
    steps = loaded.run_dir / "users" / "steps.parquet"  # no output that later stages depend on
    steps.write_bytes(steps.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"users/steps.parquet: changed by hand since the stage users .*--force users"):
        run(loaded, ("users",), reporter=QUIET)
    assert plan(loaded)["users"] == "its files were changed by hand"
    run(loaded, ("users",), force=("users",), reporter=QUIET)
    run(loaded, ("users",), reporter=QUIET)
    steps.unlink()
    assert [stage.state for stage in run(loaded, ("users",), reporter=QUIET).stages] == ["up to date"] * 2 + ["done"]


def test_a_stage_does_not_begin_with_edited_files(loaded: LoadedPipeline) -> None:
    audit = loaded.run_dir / "data" / "audit.json"
    audit.write_text(audit.read_text() + " ")
    with pytest.raises(UserError, match=r"data/audit.json: changed by hand"):
        run(loaded, ("items",), force=("items",), reporter=QUIET)


def test_a_changed_file_of_the_trained_model_is_refused(tmp_path: Path) -> None:
    stage = finished(tmp_path, "train", model__config="{}")
    (stage / "model" / "config").write_text('{"vocab_size": 7}')
    with pytest.raises(UserError, match="model/config: changed by hand"):
        trained_weights(stage)


def judged(root: Path) -> Path:
    """Return a run whose evaluation has a manifest, as `msr evaluate` leaves it."""
    made = make_run(root, users=20)
    made.evaluate()
    folder = RunFolder(root)
    (root / "evaluate").rename(root / ".evaluate.partial")
    (root / "data").rename(root / ".data.partial")
    folder.publish(Manifest("data", {}, "first", {}, 0.5, "now", format=2))
    folder.publish(Manifest("evaluate", {"data stage": "first"}, "o", {}, 0.5, "now", format=2))
    return root


def test_results_refuse_an_edited_metrics_file(tmp_path: Path) -> None:
    root = judged(tmp_path / "run")
    metrics = root / "evaluate" / "metrics.json"
    read_finished(root)
    metrics.write_text(metrics.read_text().replace('"users": 20', '"users": 2000'))
    for command in (("results", str(root)), ("compare", str(root), f"{root}:popularity")):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 2
        assert "metrics.json: changed by hand since the stage evaluate made it (now)" in done.stderr
        assert done.stdout == ""
    (root / "evaluate" / "manifest.json").unlink()
    with pytest.raises(UserError, match="nothing here can be believed"):
        read_finished(root)


def test_results_say_that_they_are_older_than_the_data(tmp_path: Path) -> None:
    root = judged(tmp_path / "run")
    assert "older" not in CliRunner().invoke(app, ("results", str(root))).stderr
    (root / "data").rename(root / ".data.partial")
    RunFolder(root).publish(Manifest("data", {}, "second", {}, 0.5, "later", format=2))
    done = CliRunner().invoke(app, ("results", str(root)))
    assert done.exit_code == 0
    assert "these numbers are older than the stage data, changed since. Run `msr evaluate` again" in done.stderr


def test_an_overwritten_image_of_the_store_is_refused(loaded: LoadedPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored_images, "_seen", set())
    image = next(path for path in (loaded.run_dir / "data" / "images").rglob("*") if path.is_file())
    image.write_bytes(image.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=rf"{image.name}: changed by hand since the stage data .*--force data"):
        run(loaded, ("items",), force=("items",), reporter=QUIET)
    run(loaded, ("items",), force=("data", "items"), reporter=QUIET)


def test_settings_that_were_changed_by_hand_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.json"
    write_sealed(path, {"name": "p", "train": {"max_steps": 3, "rate": 1e-4}})
    assert read_sealed(path) == {"name": "p", "train": {"max_steps": 3, "rate": 1e-4}}
    path.write_text(path.read_text().replace("3", "4"))
    assert read_sealed(path) == {}
    path.write_text('{"name": "of an older version"}')
    assert read_sealed(path) == {"name": "of an older version"}
    for damaged in ("", "[]", "{", '{"seal": 3}'):
        path.write_text(damaged)
        assert read_sealed(path) == {}
