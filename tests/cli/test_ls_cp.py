"""`msr ls` and `msr cp`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from msr_adapter.config.bundled import all_bundled_files, bundled_files, find_bundled
from msr_adapter.config.json_schema import installed_schema
from msr_adapter.config.loader import load_pipeline
from msr_adapter.errors import UserError


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def without_schema(path: str | Path) -> list[str]:
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if "$schema=" not in line]


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_ls_shows_every_bundled_file_with_its_description() -> None:
    shown = msr("ls").stdout
    files = all_bundled_files()
    assert {file.kind for file in files} == {"pipelines", "eval", "templates"}
    for file in files:
        assert f"{file.name} " in shown
        assert file.description in shown
    listed = json.loads(msr("ls", "--json").stdout)["files"]
    assert listed == [{"kind": f.kind, "name": f.name, "description": f.description} for f in files]


@pytest.mark.parametrize(
    "name", ["microlens-50k", "microlens-50k.yaml", "pipelines/microlens-50k", "pipelines/microlens-50k.yaml"]
)
def test_cp_copies_line_by_line_but_for_the_place_of_the_schema(name: str) -> None:
    done = msr("cp", name, "new/my.yaml")
    assert done.exit_code == 0
    assert done.stdout == "Copied pipelines/microlens-50k to new/my.yaml\nRun it: msr run new/my.yaml\n"
    own = find_bundled("microlens-50k").path.read_text(encoding="utf-8")
    path = installed_schema("pipelines")
    assert path.is_absolute()
    assert path.is_file()
    assert Path("new/my.yaml").read_text(encoding="utf-8") == own.replace("=pipeline.schema.json", f"={path}")


def test_cp_into_a_folder_keeps_the_name() -> None:
    Path("words").mkdir()
    done = msr("cp", "recommend", "words", "--json")
    assert json.loads(done.stdout) == {"kind": "templates", "name": "recommend.j2", "file": "words/recommend.j2"}
    assert Path("words/recommend.j2").is_file()


@pytest.mark.parametrize(
    ("name", "to", "file"),
    [
        ("user_summary", "my-templates/", "my-templates/user_summary.j2"),
        ("user_summary", "my-templates", "my-templates/user_summary.j2"),  # a template is found by its file's name
        ("user_summary", "a/b/", "a/b/user_summary.j2"),
        ("user_summary", "./", "user_summary.j2"),
        ("user_summary", ".", "user_summary.j2"),
        ("demo/user_summary", "mine/", "mine/user_summary.j2"),
        ("report.html", "mine", "mine/report.html.j2"),
        ("pipelines/demo", "mine/", "mine/demo.yaml"),
        ("paper", "protocols/", "protocols/paper.yaml"),
        ("pipelines/demo", "mine.yaml", "mine.yaml"),
        ("pipelines/demo", "mine", "mine"),  # a pipeline is a file of any name
        ("user_summary", "v1.2/", "v1.2/user_summary.j2"),
    ],
)
def test_cp_into_a_folder_that_is_not_there_yet(name: str, to: str, file: str) -> None:
    done = msr("cp", name, to, "--json")
    assert json.loads(done.stdout)["file"] == file
    assert without_schema(file) == without_schema(find_bundled(name).path)


def test_a_template_copied_into_a_folder_is_what_the_pipeline_then_says() -> None:
    assert "templates: my-templates  (" in msr("cp", "user_summary", "my-templates/").stdout
    assert load_pipeline("demo", ["templates=my-templates"]).pipeline.templates == Path("my-templates").resolve()


@pytest.mark.parametrize("to", ["", "  "])
def test_cp_to_nowhere_is_refused(to: str) -> None:
    done = msr("cp", "demo/recommend", to)
    assert done.exit_code == 2
    assert "FILE: an empty text" in done.stderr
    assert not list(Path().iterdir())


def test_cp_into_a_folder_never_overwrites_nor_takes_a_file_for_one() -> None:
    assert msr("cp", "user_summary", "mine/").exit_code == 0
    again = msr("cp", "user_summary", "mine/")
    assert (again.exit_code, "mine/user_summary.j2 exists already" in again.stderr) == (2, True)
    Path("file").write_text("precious")
    for to in ("file/", "file"):
        assert msr("cp", "user_summary", to).exit_code == 2
    assert Path("file").read_text() == "precious"


def test_cp_of_a_template_says_how_it_is_used() -> None:
    done = msr("cp", "demo/recommend", "words/recommend.j2")
    assert "templates: words  (the file must be called recommend.j2)" in done.stdout


def test_cp_of_a_protocol_can_be_used_at_once() -> None:
    assert "evaluate: {protocol: mine.yaml}" in msr("cp", "next-item", "mine.yaml").stdout
    protocol = load_pipeline("microlens-50k", ["evaluate.protocol=mine.yaml"]).pipeline.evaluate.protocol
    assert protocol == load_pipeline("microlens-50k").pipeline.evaluate.protocol


def test_cp_never_overwrites() -> None:
    Path("mine.yaml").write_text("precious")
    done = msr("cp", "microlens-50k", "mine.yaml")
    assert done.exit_code == 2
    assert done.stderr == "FILE: mine.yaml exists already; a new file. Choose another name, or add --overwrite\n"
    assert Path("mine.yaml").read_text() == "precious"


def test_cp_of_an_unknown_name() -> None:
    done = msr("cp", "microlens50k", "x.yaml")
    assert done.exit_code == 2
    assert done.stderr == "nothing bundled is called `microlens50k`. Did you mean `microlens-50k`?\n"
    assert "`msr ls` lists the names" in msr("cp", "zzzzzz", "x.yaml").stderr


def test_a_name_of_two_files_must_be_said_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = [*bundled_files("pipelines"), *bundled_files("pipelines")]
    monkeypatch.setattr("msr_adapter.config.bundled.all_bundled_files", lambda: twice)
    with pytest.raises(UserError, match="names 2 files"):
        find_bundled("microlens-50k")


def test_cp_to_a_place_that_cannot_be_written() -> None:
    Path("file").write_text("")
    done = msr("cp", "microlens-50k", "file/x.yaml")
    assert done.exit_code == 2
    assert "FILE: file/x.yaml: " in done.stderr


def test_a_copied_pipeline_still_finds_its_bundled_names() -> None:
    for file in bundled_files("pipelines"):
        assert msr("cp", f"pipelines/{file.name}", f"far/away/{file.name}.yaml").exit_code == 0
        copy, original = load_pipeline(f"far/away/{file.name}.yaml"), load_pipeline(file.name)
        for key in ("templates", "evaluate", "train", "summarize", "split"):
            # Paths are relative to the file that names them: a model beside the bundled pipelines, one beside ours.
            moved = json.dumps(copy.resolved[key]).replace(str(Path("far").absolute()), str(file.path.parents[1]))
            assert json.loads(moved) == original.resolved[key], (file.name, key)
