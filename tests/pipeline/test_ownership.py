"""msr deletes and replaces only what it made: whose a folder is, what `--out` may name, what a kill leaves."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.output_paths import Output, output_problems, protected_by_run
from msr_adapter.errors import UserError
from msr_adapter.files import atomic_folder, atomic_path, sweep
from msr_adapter.generation.completion_store import CompletionStore
from msr_adapter.pipeline import STAGE_NAMES, run
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.progress import Reporter
from msr_adapter.run_folder_mark import MARK, is_run
from tests.pipeline.test_run_folder import a_manifest, tree
from tests.support.judged_run import make_run
from tests.support.scripted_pipeline import SCRIPTED

TABLE = """\
name: mine
extends: base.yaml
data:
  source: {kind: table, interactions: log.csv, items: items.csv}
  images: {folder: covers}
templates: words
"""
BASE = """\
summarize: {items: {mode: none, model: &m {path: tiny}}, users: {mode: none, model: *m}}
train: {model: *m, images: false, negatives: 1}
evaluate: {protocol: protocol.yaml, tables: {items: extra.csv}}
"""
INTO_A_RUN = (
    ("run",), ("build-data",), ("summarize",), ("summarize", "--preview", "1"), ("summarize", "--dry-run"), ("train",),
    ("train", "--dry-run"), ("evaluate",), ("ablate",), ("check",), ("recommend", "--out", "recs.csv"),
    ("export", "--out", "model"), ("candidates", "export", "--out", "lists.parquet"),
)  # fmt: skip
"""Commands that write into a run folder, and the one that says beforehand what they will say."""


def msr(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def into(command: tuple[str, ...], run_dir: object) -> Result:
    at = 2 if command[0] == "candidates" else 1
    return msr(*command[:at], "p.yaml", *command[at:], "--run-dir", run_dir)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a pipeline of rules and one of tables, with every kind of input."""
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(SCRIPTED)
    Path("mine.yaml").write_text(TABLE)
    Path("base.yaml").write_text(BASE)
    Path("protocol.yaml").write_text("negatives: 2\n")
    rows = [f"u{user},i{(user + item) % 12},{item}" for user in range(20) for item in range(5)]
    Path("log.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    Path("items.csv").write_text("\n".join(["item,title", *(f"i{item},Title {item}" for item in range(12))]))
    Path("extra.csv").write_text("\n".join(["item_id,colour", *(f"i{item},red" for item in range(12))]))
    for folder in ("covers", "words"):
        Path(folder).mkdir()
    Path("covers/i1.jpg").write_bytes(b"a picture")
    Path("words/user_summary.j2").write_text("{{ items }}")
    return tmp_path


@pytest.mark.parametrize("command", INTO_A_RUN, ids=" ".join)
def test_a_folder_of_somebody_elses_is_no_run_folder(place: Path, command: tuple[str, ...]) -> None:
    (place / "proj" / "data").mkdir(parents=True)
    (place / "proj" / "data" / "thesis.txt").write_text("years")
    before = tree(place)
    done = into(command, "proj")
    assert done.exit_code == 2, done.output
    assert f"{place / 'proj'} run_dir: holds what is not of a run (data)" in done.stderr
    assert "a folder that is new, empty or a run of msr's. Choose another with --run-dir" in done.stderr
    assert tree(place) == before


@pytest.mark.parametrize("command", INTO_A_RUN, ids=" ".join)
@pytest.mark.parametrize("text", ["", "  "])
def test_the_empty_text_is_no_run_folder(place: Path, command: tuple[str, ...], text: str) -> None:
    before = tree(place)
    done = into(command, text)
    assert done.exit_code == 2
    assert "an empty text names no folder" in " ".join(done.stderr.replace("│", " ").split())
    assert tree(place) == before
    done = msr("check", "p.yaml", "--set", f"run_dir='{text}'")
    assert done.exit_code == 2
    assert "run_dir: an empty text; a path" in done.stderr


def a_run(root: Path) -> None:
    folder = RunFolder(root)
    with folder.locked():
        folder.begin("data")
        folder.publish(a_manifest())


def without_mark(root: Path) -> None:
    a_run(root)
    (root / MARK).unlink()


def only_the_pipeline(root: Path) -> None:
    root.mkdir()
    (root / "pipeline.json").write_text(json.dumps(load_pipeline("p.yaml").resolved))


def killed_early(root: Path) -> None:
    root.mkdir()
    (root / ".lock").write_text("123")
    (root / "run.log").write_text("12:00:00 data running (new)\n")
    (root / ".pipeline.json.abcd_012.tmp").write_text("{")


def killed_at_once(root: Path) -> None:
    root.mkdir()
    (root / MARK).touch()


@pytest.mark.parametrize("make", [Path.mkdir, a_run, without_mark, only_the_pipeline, killed_early, killed_at_once])
def test_new_and_older_and_killed_runs_are_known(place: Path, make: Callable[[Path], None]) -> None:
    make(place / "run")
    assert make is Path.mkdir or is_run(place / "run")
    done = into(("build-data", "--set", "summarize.items.mode=none"), "run")
    assert "holds what is not of a run" not in done.stderr
    with RunFolder(place / "run").locked():
        assert (place / "run" / MARK).is_file()


def test_what_only_looks_like_a_run_is_none(place: Path) -> None:
    looks = {
        "another tool's": {"pipeline.json": '{"name": "x", "steps": []}', "run.log": "x"},
        "locked by another": {".lock": "held by editor"},
        "locked, with files": {".lock": "123", "run.log": "", "thesis.txt": "years"},
        "a web site": {"data/manifest.json": '{"name": "x"}'},
        "a cache": {"cache/mine": "x"},
    }
    for name, files in looks.items():
        for file, text in files.items():
            (path := place / name / file).parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert not is_run(place / name), name
        with pytest.raises(UserError, match="holds what is not of a run"), RunFolder(place / name).locked():
            pytest.fail(name)


def test_a_stage_that_no_manifest_names_is_not_replaced(place: Path) -> None:
    a_run(place / "run")
    (place / "run" / "items").mkdir()
    (place / "run" / "items" / "thesis.txt").write_text("years")
    before = tree(place)
    for command in (("check",), ("run",), ("summarize",)):
        done = into(command, "run")
        assert done.exit_code == 2
        assert f"{place / 'run' / 'items'} run_dir: was not made by msr" in done.stderr
        assert tree(place) == before


NAMES = st.sampled_from((
    *STAGE_NAMES, ".lock", "run.log", "cache", "pipeline.json", "manifest.json", ".data.partial", ".data.outdated",
    ".read-back-x", ".train.unfinished", ".pipeline.json.abcdefgh.tmp", "ablations", "notes", ".recommend.partial",
))  # fmt: skip
CONTENTS = st.sampled_from((b"", b"{}", b"[]", b"1234", b"years of work", b'{"stage": "x"}', b"\xff\x00"))
TREES = st.dictionaries(st.lists(NAMES, min_size=1, max_size=3).map("/".join), CONTENTS, min_size=1, max_size=6)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=TREES, command=st.sampled_from(INTO_A_RUN), number=st.integers(0, 2**40))
def test_users_files_are_untouched_by_any_refused_command(
    place: Path, files: dict[str, bytes], command: tuple[str, ...], number: int
) -> None:
    root = place / f"tree-{number}-{abs(hash(str(files)))}"
    (root / "thesis").mkdir(parents=True, exist_ok=True)
    (root / "thesis" / "thesis.txt").write_text("years")
    for name, content in files.items():
        path = root / name
        if not path.exists() and all(parent.is_dir() or not parent.exists() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    before = tree(root)
    done = into(command, root)
    assert done.exit_code == 2, done.output
    assert tree(root) == before


# What `--out` may name.


INPUTS = ("log.csv", "items.csv", "extra.csv", "mine.yaml", "base.yaml", "protocol.yaml", "covers/i1.jpg",
          "words/user_summary.j2", "covers/new.parquet", "words/new.parquet", "run/new.parquet",
          "run/data/new.parquet")  # fmt: skip


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)], ids=["", "overwrite"])
@pytest.mark.parametrize("name", INPUTS)
def test_no_output_goes_onto_an_input_the_pipeline_or_the_run(
    place: Path, name: str, overwrite: tuple[str, ...]
) -> None:
    assert msr("candidates", "export", "mine.yaml", "--run-dir", "run", "--out", "first.parquet").exit_code == 0
    os.link("log.csv", "hard.csv")
    os.link("covers/i1.jpg", "hard.jpg")
    Path("soft").symlink_to("log.csv")
    Path("aside").symlink_to("covers", target_is_directory=True)
    before = tree(place)
    others = {"log.csv": ("hard.csv", "soft", "covers/../log.csv"), "covers/i1.jpg": ("hard.jpg", "aside/new.jpg")}
    for out in (name, *others.get(name, ())):
        for command in (("candidates", "export"), ("recommend",), ("export",), ("fetch-images",)):
            where = () if command == ("fetch-images",) else ("--run-dir", "run")
            flags = overwrite if command != ("export",) else ()
            if command == ("fetch-images",) and name.startswith("covers/"):
                continue
            done = msr(*command, "mine.yaml", *where, "--out", out, *flags)
            assert done.exit_code == 2, (command, out, done.output)
            assert "--out: " in done.stderr, (command, out, done.output)
            assert tree(place) == before


def test_results_and_cache_know_the_inputs_of_their_run(place: Path) -> None:
    assert msr("candidates", "export", "mine.yaml", "--run-dir", "run", "--out", "first.parquet").exit_code == 0
    judged = make_run(place / "judged", users=20)
    judged.evaluate()
    for name in (MARK, "pipeline.json"):
        (judged.root / name).write_bytes((place / "run" / name).read_bytes())
    CompletionStore(judged.root / "cache" / "completions.sqlite").close()
    before = tree(place)
    for name in INPUTS:
        for command in (("results", "judged", "--format", "markdown"), ("cache", "export", "judged")):
            done = msr(*command, "--out", name, "--overwrite")
            assert done.exit_code == 2, (command, name, done.output)
            assert "--out: " in done.stderr
        assert output_problems(Output(place / name, overwrite=True), protected_by_run(judged.root)), name
    Path("trec").mkdir()
    os.link("log.csv", "trec/qrels.txt")
    done = msr("results", "judged", "--format", "trec", "--out", "trec", "--overwrite")
    assert "trec/qrels.txt is another name of the input data.source.interactions, which would be lost" in done.stderr
    Path("trec/qrels.txt").unlink()
    Path("trec").rmdir()
    assert tree(place) == before
    for command in (("results", "judged", "--out", "t.md"), ("results", "judged", "--format", "trec", "--out", "trec"),
                    ("cache", "export", "judged", "--out", "c.jsonl")):  # fmt: skip
        assert msr(*command).exit_code == 0, command
        again = msr(*command)
        assert (again.exit_code, "exists already" in again.stderr) == (2, True)
        assert msr(*command, "--overwrite").exit_code == 0


def test_an_existing_file_needs_overwrite(place: Path) -> None:
    arguments = ("candidates", "export", "mine.yaml", "--run-dir", "run", "--out", "lists.parquet")
    Path("lists.parquet").write_text("precious")
    done = msr(*arguments)
    assert done.exit_code == 2
    assert done.stderr == ("--out: lists.parquet exists already; a new file. Choose another name, or add --overwrite\n")
    assert (Path("lists.parquet").read_text(), Path("run").exists()) == ("precious", False)
    assert msr(*arguments, "--overwrite").exit_code == 0
    assert Path("lists.parquet").read_bytes()[:4] == b"PAR1"
    Path("gone.parquet").symlink_to("nowhere")
    assert "exists already" in msr(*arguments[:-1], "gone.parquet").stderr
    assert msr("cp", "demo", "lists.parquet").exit_code == 2
    assert msr("cp", "demo", "lists.parquet", "--overwrite").exit_code == 0
    done = msr("cp", "demo", "run/data", "--overwrite")
    assert done.exit_code == 2
    assert "in the run folder" in done.stderr


# What a kill leaves.

KILLED = """
import os, pathlib, signal, sys
from msr_adapter.files import atomic_folder, atomic_path
target = pathlib.Path(sys.argv[1])
with (atomic_folder if sys.argv[2] == "folder" else atomic_path)(target) as temporary:
    print(temporary.name, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_writer_left_is_swept_and_that_of_a_live_one_is_not(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out.csv"
    command = [sys.executable, "-c", KILLED, str(target), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        name = writer.stdout.readline().strip()
        for other in (".out.csv.tmp", ".out.csv.short.tmp", ".other.csv.abcdefgh.tmp", "out.csv.abcdefgh.tmp"):
            (tmp_path / other).write_text("somebody's")
        (tmp_path / ".out.csv.abcdefgh.tmp").symlink_to("elsewhere")
        before = names(tmp_path)
        assert sweep(tmp_path, {"out.csv"}.__contains__) == []
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert [path.name for path in sweep(tmp_path, {"out.csv"}.__contains__)] == [name]
    assert names(tmp_path) == [one for one in before if one != name]


def test_writers_leave_nothing_whether_they_end_well_or_not(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("a")
    with atomic_folder(tmp_path / "b") as temporary:
        (temporary / "x").write_text("b")
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "c") as temporary:
        (temporary / "absent").read_text()
    assert tree(tmp_path) == {"a": b"a", "b": None, "b/x": b"b"}
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750), (0o077, 0o600, 0o700)]
)
def test_what_is_written_may_be_read_by_whom_the_umask_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int, file: int, folder: int
) -> None:
    monkeypatch.setattr("msr_adapter.files._UMASK", umask)
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("a")
    with atomic_folder(tmp_path / "b") as temporary:
        (temporary / "sub").mkdir(mode=0o700)
        save_file({"w": np.zeros(2)}, temporary / "sub" / "model.safetensors")  # whose writer makes it 0600
        (temporary / "out").symlink_to(tmp_path / "a")
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"a": file, "b": folder, "sub": folder, "model.safetensors": file, "out": file}


def test_a_finished_stage_may_be_read_by_others(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.locked():
        (out := run.begin("train")).mkdir(exist_ok=True)
        (out / "model").mkdir()
        save_file({"w": np.zeros(2)}, out / "model" / "model.safetensors")
        run.publish(a_manifest("train"))
    written = [path for path in run.stage("train").rglob("*") if path.is_file()]
    assert len(written) == 2
    assert {path.stat().st_mode & 0o777 for path in written} == {0o644}


def test_the_next_run_sweeps_what_a_kill_left_in_the_run_folder(place: Path) -> None:
    root = place / "run"
    a_run(root)
    left = [
        *(".items.outdated/x", ".train.partial/y", ".recommend.partial/z", ".read-back-abc/c"),
        *(".pipeline.json.abcdefgh.tmp", "ablations/.ablation.json.abcdefgh.tmp"),
        ".train.unfinished/key/.trained.json.abcdefgh.tmp",
    ]
    kept = [".pipeline.json.tmp", ".ours.outdated/x", ".notes.partial/y", "notes.txt", ".train.unfinished/key/model/w"]
    for name in (*left, *kept):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    held = root / ".run.log.abcdefgh.tmp"
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        run(load_pipeline("p.yaml", [], root), ("data",), reporter=Reporter(quiet=True))
        assert held.exists()
    assert [name for name in left if (root / name).exists()] == []
    assert [name for name in (".items.outdated", ".train.partial", ".read-back-abc") if (root / name).exists()] == []
    assert [name for name in kept if not (root / name).exists()] == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_kill_between_the_two_renames_of_a_stage_loses_neither(tmp_path: Path, whole: bool) -> None:
    folder = RunFolder(tmp_path)
    (folder.begin("train") / "weights").write_text("old")
    folder.publish(a_manifest("train", "old"))
    (folder.begin("train") / "weights").write_text("new")
    folder.stage("train").rename(tmp_path / ".train.outdated")
    if whole:
        (tmp_path / ".train.partial" / "manifest.json").write_text("{}")
    folder.sweep(("train",))
    assert (folder.stage("train") / "weights").read_text() == ("new" if whole else "old")
    assert names(tmp_path) == ["train"]
