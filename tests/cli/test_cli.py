"""The command line: what each command asks of the pipeline, what it prints, how it exits."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.core
import typer.main
from typer.testing import CliRunner, Result

import msr_adapter.pipeline
from msr_adapter import __version__
from msr_adapter.cli import app
from msr_adapter.errors import Problem, StageError, UserError
from msr_adapter.pipeline import RunResult, StageOutcome, State
from tests.support.pipelines import MINIMAL

COMMANDS = (
    "init",
    "run",
    "build-data",
    "summarize",
    "train",
    "evaluate",
    "ablate",
    "sweep",
    "compare",
    "results",
    "runs",
    "recommend",
    "score",
    "serve",
    "embed",
    "export",
    "fetch-images",
    "check",
    "doctor",
    "prune",
    "track",
    "ls",
    "cp",
    "schema",
    "constraints",
    "demo-model",
    "get-model",
    "cache",
    "candidates",
)


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(MINIMAL)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace the pipeline by one that notes what it was asked for."""
    asked: list[dict[str, Any]] = []

    def run(loaded: Any, targets: Any, *, force: Any, reporter: Any, retrain: str) -> RunResult:
        asked.append({"name": loaded.pipeline.name, "targets": tuple(targets), "force": force, "retrain": retrain})
        reporter.note("working")
        stages = tuple(StageOutcome(name, "done", 1.5, {"rows": 2}) for name in targets)
        return RunResult(loaded.run_dir, stages)

    monkeypatch.setattr(msr_adapter.pipeline, "run", run)
    return asked


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(*_: Any, **__: Any) -> RunResult:
        raise error

    monkeypatch.setattr(msr_adapter.pipeline, "run", run)


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "targets", "retrain"),
    [
        (("run",), ("evaluate",), "make"),
        (("build-data",), ("data", "items", "users", "dataset"), "make"),
        (("summarize",), ("items", "users"), "make"),
        (("summarize", "--only", "items"), ("items",), "make"),
        (("summarize", "--only", "users"), ("users",), "make"),
        (("train",), ("train",), "make"),
        (("evaluate",), ("evaluate",), "refuse"),
        (("evaluate", "--train"), ("evaluate",), "make"),
    ],
)
def test_each_command_asks_for_its_stages(
    calls: list[dict[str, Any]], arguments: tuple[str, ...], targets: tuple[str, ...], retrain: str
) -> None:
    done = msr(*arguments, "p.yaml", "--force", "items", "--force", "train", "--set", "name=other")
    assert done.exit_code == 0, done.output
    assert calls == [{"name": "other", "targets": targets, "force": ("items", "train"), "retrain": retrain}]


def test_json_is_alone_on_standard_output(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    done = msr("train", "p.yaml", "--json", "--run-dir", "here")
    assert json.loads(done.stdout) == {
        "pipeline": "p",
        "run_dir": str(tmp_path / "here"),
        "stages": [{"name": "train", "state": "done", "seconds": 1.5, "summary": {"rows": 2}}],
        "result": str(tmp_path / "here" / "train" / "model"),
    }
    assert done.stderr == "working\n"


def test_quiet_says_only_the_result(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    done = msr("train", "p.yaml", "--quiet")
    assert done.stderr == ""
    assert done.stdout == f"trained model: {tmp_path / 'runs' / 'p' / 'train' / 'model'}\n"


def test_every_stage_has_a_result_to_show() -> None:
    for name in msr_adapter.pipeline.STAGE_NAMES:
        what, path = RunResult(Path("run"), (StageOutcome(name, "done", 0.0, {}),)).product
        assert what
        assert path.parent == Path("run") / name


@pytest.mark.parametrize(("state", "options", "shown"), [("up to date", (), 1), ("done", (), 0), ("done", ("-q",), 1)])
def test_the_metrics_are_shown_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, state: State, options: tuple[str, ...], shown: int
) -> None:
    """A stage that runs shows them itself; one that is up to date, or runs quietly, does not."""
    interval = {"mean": 0.75, "low": 0.7, "high": 0.8}
    metrics: dict[str, Any] = {
        "users": 9, "models": {"trained": {"metrics": {"auc": interval}}}, "chance": {"auc": 0.5},
    }  # fmt: skip
    metrics |= {"protocol": {"confidence": {"level": 0.95}}, "primary": "auc"}
    metrics["sampling"] = {"sampled": False, "negatives": 99.0, "distribution": "every item", "items": 100}
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate" / "metrics.json").write_text(json.dumps(metrics))
    result = RunResult(tmp_path, (StageOutcome("evaluate", state, 1.0, {}),))
    monkeypatch.setattr(msr_adapter.pipeline, "run", lambda *_, **__: result)
    done = msr("evaluate", "p.yaml", *options)
    assert done.stdout.count("0.750") == shown
    assert done.stdout.endswith(f"report: {tmp_path / 'evaluate' / 'report.html'}\n")
    assert "result" in json.loads(msr("evaluate", "p.yaml", "--json", *options).stdout)


def test_train_dry_run_prints_the_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msr_adapter.pipeline, "write_training_yaml", lambda loaded, reporter: Path("x/train.yaml"))
    said = json.loads(msr("train", "p.yaml", "--dry-run", "--json").stdout)
    kernels = said.pop("kernels")
    assert kernels.startswith("Liger kernels: o")
    assert said == {"yaml": "x/train.yaml", "commands": ["llamafactory-cli train x/train.yaml"]}
    printed = msr("train", "p.yaml", "--dry-run").stdout
    assert "llamafactory-cli train x/train.yaml" in printed
    assert kernels in printed.splitlines()


def test_wrong_input_is_exit_code_2_with_every_problem(calls: list[dict[str, Any]]) -> None:
    done = msr("run", "p.yaml", "--set", "seed=x", "--set", "nmae=y")
    assert done.exit_code == 2
    assert done.stderr.splitlines() == [
        "2 problems:",
        "--set seed: the text 'x'; expected a whole number, at least 0, at most 4,294,967,295",
        "--set nmae: unknown key; known here: name, seed, run_dir, cache, templates, data, split, summarize, train, "
        "evaluate, embedding, fusion, execution, tracking. Did you mean `name`?",
    ]
    assert done.stdout == ""
    assert not calls


def test_wrong_input_as_json() -> None:
    done = msr("check", "p.yaml", "--json", "--set", "seed=x")
    assert done.exit_code == 2
    problem = {"where": "--set", "field": "seed", "found": "the text 'x'"}
    problem |= {"allowed": "expected a whole number, at least 0, at most 4,294,967,295", "next_step": ""}
    message = "--set seed: the text 'x'; expected a whole number, at least 0, at most 4,294,967,295"
    assert json.loads(done.stdout) == {"error": {"exit_code": 2, "message": message, "problems": [problem]}}


def test_an_unknown_stage_to_force(calls: list[dict[str, Any]]) -> None:
    done = msr("run", "p.yaml", "--force", "trian")
    assert done.exit_code == 2
    expected = ", ".join(msr_adapter.pipeline.STAGE_NAMES)
    assert done.stderr == f"--force: the text 'trian'; expected one of {expected}. Did you mean `train`?\n"


def test_a_failed_stage_is_exit_code_1_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, StageError("Training stopped.", "no memory", "Lower train.batch_size"))
    done = msr("run", "p.yaml")
    assert done.exit_code == 1
    assert done.stderr == "Training stopped.\nLikely cause: no memory\nNext step: Lower train.batch_size\n"


def test_wrong_input_found_by_a_stage_is_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, UserError(Problem("log.csv:3", "timestamp", "'x'", "a number", "Mend it")))
    done = msr("run", "p.yaml")
    assert (done.exit_code, done.stderr) == (2, "log.csv:3 timestamp: 'x'; a number. Mend it\n")


def test_ctrl_c_is_exit_code_130_and_says_what_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    done = msr("run", "p.yaml")
    assert done.exit_code == 130
    assert done.stderr.startswith("Interrupted. Finished stages, ")
    assert f"are kept in {tmp_path / 'runs' / 'p'}. The same command continues from there." in done.stderr


def test_a_bug_crashes_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError("bug"))
    assert isinstance(msr("run", "p.yaml").exception, ZeroDivisionError)


def test_ctrl_c_before_the_run_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("msr_adapter.config.loader.load_pipeline", interrupted)
    done = msr("run", "p.yaml")
    assert (done.exit_code, done.stderr) == (130, "Interrupted before anything was changed.\n")


WRONG = [("run",), ("nonsense",), ("run", "p.yaml", "--nonsense"), ("summarize", "p.yaml", "--only", "x")]


@pytest.mark.parametrize("arguments", WRONG)
def test_a_wrong_command_line_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert msr(*arguments).exit_code == 2


def test_check_lists_what_would_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msr_adapter.pipeline, "check", lambda *_: [])
    stages = {"data": "new", "items": "up to date", "train": "config changed"}
    monkeypatch.setattr(msr_adapter.pipeline, "plan", lambda loaded: stages)
    done = msr("check", "p.yaml")
    assert done.exit_code == 0
    assert done.stdout.splitlines()[0].startswith("p: no problems found")
    assert [line.split(maxsplit=1) for line in done.stdout.splitlines()[2:4]] == [
        ["items", "up to date"], ["train", "would run (config changed)"],
    ]  # fmt: skip
    assert json.loads(msr("check", "p.yaml", "--json").stdout)["stages"] == stages


def test_check_says_once_that_a_note_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msr_adapter.pipeline, "check", lambda *_: [])
    monkeypatch.setattr(msr_adapter.pipeline, "notes", lambda *_: ["warning: too large", "time: an hour"])
    lines = msr("check", "p.yaml").stdout.splitlines()
    assert lines[-2:] == ["warning: too large", "note: time: an hour"]


def test_check_reports_all_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [Problem("a", "", "one"), Problem("b", "", "two")]
    monkeypatch.setattr(msr_adapter.pipeline, "check", lambda *_: problems)
    done = msr("check", "p.yaml")
    assert (done.exit_code, done.stderr) == (2, "2 problems:\na: one\nb: two\n")


def test_demo_model_refuses_a_folder_with_files_in_it() -> None:
    Path("full").mkdir()
    Path("full/keep").write_text("x")
    done = msr("demo-model", "full")
    assert done.exit_code == 2
    assert "exists already and is not an empty folder" in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    shown = msr(command, "--help").stdout
    assert f"Example: msr {command}" in " ".join(shown.split())


def test_the_help_lists_every_command_and_no_other() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    assert tuple(root.commands) == COMMANDS


def test_version() -> None:
    assert msr("--version").stdout == f"msr {__version__}\n"


HEAVY = {"torch", "transformers", "llamafactory", "datasets", "polars", "matplotlib", "pyarrow", "peft", "pandas"}


LIST_MODULES = """
import sys
from msr_adapter.cli import main
sys.argv[0] = "msr"
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def modules_after(*arguments: str) -> set[str]:
    """Run ``msr`` in a fresh interpreter and return the top-level modules it imported."""
    done = subprocess.run([sys.executable, "-c", LIST_MODULES, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:500]
    return {name.partition(".")[0] for name in done.stderr.split()}


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("ls",), ("cp", "microlens-50k", "copy.yaml")])
def test_help_and_the_library_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    imported = modules_after(*arguments)
    assert "typer" in imported
    assert not imported & HEAVY


def test_check_imports_no_model_library() -> None:
    imported = modules_after("check", "p.yaml")
    assert "yaml" in imported
    assert not imported & {"torch", "transformers", "llamafactory", "datasets", "peft", "matplotlib"}
