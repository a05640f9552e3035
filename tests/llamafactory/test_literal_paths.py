"""Run folders whose names are patterns, addresses or templates to LLaMA-Factory's libraries: trained in, or refused."""

from pathlib import Path

import polars as pl
import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import ModelConfig, TrainConfig
from msr_adapter.errors import UserError
from msr_adapter.filesystem import holds_pattern
from msr_adapter.llamafactory import literal_paths
from msr_adapter.llamafactory.dataset import TRAIN, TrainingRows, write_info, write_rows
from msr_adapter.llamafactory.dataset_check import compare
from msr_adapter.llamafactory.model_weights import BASE, Weights
from msr_adapter.llamafactory.nodes import Node, slurm_script
from msr_adapter.llamafactory.training_yaml import check_paths
from msr_adapter.pipeline import check, write_training_yaml
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.stage_arguments import Job
from msr_adapter.train import build_dataset, train
from tests.support.scripted_pipeline import SCRIPTED
from tests.support.tiny_run import QUIET, train_config, write_upstream

NAMES = (
    "run [v2]", "shop [2024] 100% #1 {x} *", "a?b", "[!a]", "[", "]x[", "**", "{a,b}", "b%20c", "file:x", "~z", "$HOME",
    "a, b", "new\nline", " lead", "trail ", "é [1]", ".hidden [1]", "__x__ [1]", "'q\"",
)  # fmt: skip


def rows_in(folder: Path, text: str) -> Path:
    """Write a data set of two rows; return its folder."""
    rows = TrainingRows(
        pl.Series([f"{text} 1", f"{text} 2"]), pl.Series(["Yes", "No"]), pl.Series([None, None], dtype=pl.String)
    )
    write_rows(folder / "dataset" / TRAIN, [rows])
    write_info(folder / "dataset", [TRAIN])
    return folder / "dataset"


@pytest.mark.parametrize("name", NAMES)
def test_llamafactorys_loader_reads_the_rows_of_any_run_folder_and_no_others(tmp_path: Path, name: str) -> None:
    for decoy in ("run v", "axb", "a", "b c"):
        rows_in(tmp_path / decoy, "other")
    dataset = rows_in(tmp_path / name, "mine")
    assert compare(dataset, tmp_path, [TRAIN], tmp_path / name) == []


def test_without_the_guard_brackets_find_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(literal_paths, "install", lambda: None)
    (difference,) = compare(rows_in(tmp_path / "run [v2]", "mine"), tmp_path, [TRAIN], tmp_path)
    assert "its loader fails" in difference.reason


def test_patterns_still_are_patterns_and_the_guard_ends_with_its_context(tmp_path: Path) -> None:
    from datasets import data_files

    before = data_files.resolve_pattern
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "[a].txt").write_text("")
    with literal_paths.literal_paths():
        resolve = data_files.resolve_pattern
        assert resolve(str(tmp_path / "[a].txt"), "") == [str(tmp_path / "[a].txt")]
        assert resolve(str(tmp_path / "?.txt"), "") == [str(tmp_path / "a.txt")]
        assert resolve("a.txt", str(tmp_path)) == [str(tmp_path / "a.txt")]
    assert data_files.resolve_pattern is before


def test_a_training_in_a_folder_with_brackets(tmp_path: Path) -> None:
    made = write_upstream(tmp_path / "shop [2024] 100% #1 {x} *")
    made.dataset.mkdir()
    build_dataset(train_config(), made, Prompts(), Job(made.dataset, QUIET))
    out = tmp_path / "shop [2024] 100% #1 {x} *" / "train"
    out.mkdir()
    assert train(train_config(max_steps=1), made, Job(out, QUIET))["steps"] == 1
    assert "llamafactory-cli expands [, *, ? and $ in a path" in (out / "train.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("run ${x}", "contains ${, which LLaMA-Factory would interpolate"),
        ("a::b", "contains ::"),
        ("x::", "contains ::"),
    ],
)
def test_a_run_folder_that_cannot_be_told_is_refused_by_check(tmp_path: Path, name: str, found: str) -> None:
    (tmp_path / "p.yaml").write_text(SCRIPTED)
    problems = check(load_pipeline(str(tmp_path / "p.yaml"), (), tmp_path / name))
    assert [one.found for one in problems if one.field == "run_dir"] == [found]
    assert [one.next_step for one in problems if one.field == "run_dir"] == ["Choose another --run-dir"]


@pytest.mark.parametrize("name", NAMES)
def test_every_other_run_folder_is_accepted_by_check(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.yaml").write_text(SCRIPTED)
    problems = check(load_pipeline(str(tmp_path / "p.yaml"), (), tmp_path / name))
    assert [one for one in problems if one.field == "run_dir"] == []


def test_adapters_and_models_that_cannot_be_told_are_refused(tmp_path: Path) -> None:
    model = ModelConfig(path=str(tmp_path / "m ${x}"), adapter=tmp_path / "a, b")
    start = Weights(adapters=(tmp_path / "trail ",))
    found = {one.field: one.found for one in check_paths(TrainConfig(model=model), start, tmp_path)}
    assert found == {
        "train.model.path": f"{tmp_path / 'm ${x}'} contains ${{, which LLaMA-Factory would interpolate",
        "train.model.adapter": f"{tmp_path / 'a, b'} contains a comma or ends in a blank",
        "train.start": f"{tmp_path / 'trail '} contains a comma or ends in a blank",
    }
    plain = ModelConfig(path=str(tmp_path / "m [1], 2"), adapter=tmp_path / "a [1] #2")
    assert check_paths(TrainConfig(model=plain), BASE, tmp_path) == []


def test_a_dry_run_that_could_not_be_trained_by_hand_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(SCRIPTED)
    loaded = load_pipeline(str(tmp_path / "p.yaml"), (), tmp_path / "run [v2]")
    with pytest.raises(UserError, match="Train without --dry-run"):
        write_training_yaml(loaded, Reporter(quiet=True))
    assert not (tmp_path / "run [v2]").exists()


def test_a_slurm_job_has_a_plain_name() -> None:
    script = slurm_script(Node(nodes=2), "msr-shop [2024] 100% #1", ["msr", "train", "shop [2024].yaml"])
    assert "#SBATCH --job-name=msr-shop-2024-100-1\n" in script
    assert "srun msr train 'shop [2024].yaml'\n" in script


@pytest.mark.parametrize(
    ("path", "holds"), [("a[1]", True), ("a*", True), ("a?", True), ("$A", True), ("::b", True), ("a{1}%#:", False)]
)
def test_what_holds_a_pattern(path: str, holds: bool) -> None:
    assert holds_pattern(path) is holds
