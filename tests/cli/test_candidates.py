"""`msr candidates export` from the YAML to a file that the next run is judged on."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from msr_adapter.cli import app
from tests.support.data_builders import random_rows, write_csv

PIPELINE = """\
data: {source: {kind: table, interactions: log.csv}}
split: {kind: leave-last-out}
summarize: {items: {mode: none, model: &m {path: tiny, template: qwen2_vl}}, users: {mode: none, model: *m}}
train: {model: *m, negatives: {kind: mixture, count: 2, mixture: {uniform: 1, popularity: 1}}}
evaluate: {protocol: {name: own, negatives: {kind: popularity-matched, count: 3, pool: 12}}}
"""


def msr(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["candidates", "export", "p.yaml", "--run-dir", "run", "--quiet", *arguments])


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(PIPELINE)
    write_csv(Path("log.csv"), ["user", "item", "timestamp"], random_rows(users=20, items=30, length=5))


def digest_of(run: str) -> str:
    manifest = json.loads(Path(run, "data", "manifest.json").read_text(encoding="utf-8"))
    return str(manifest["summary"]["candidates_digest"])


NAMES = (("parquet", "c.parquet"), ("csv", "c.csv"), ("recbole", "c.inter"), ("elliot", "c.tsv"))


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_an_exported_file_gives_another_run_the_same_lists(kind: str, name: str) -> None:
    result = msr("--format", kind, "--out", name)
    assert result.exit_code == 0, result.stderr
    said = f"{name} ({kind}): 20 lists, 80 candidates, digest {digest_of('run')[:16]}"
    assert result.stdout == f"{said}\nUse it: --set evaluate.protocol.candidates={name}\n"
    again = ["export", "p.yaml", "--quiet", "--out", "again.parquet", "--run-dir", "other", "--set",
             f"evaluate.protocol.candidates={name}"]  # fmt: skip
    assert CliRunner().invoke(app, ["candidates", *again]).exit_code == 0
    assert digest_of("other") == digest_of("run")


def test_the_suffix_says_the_format() -> None:
    for kind, name in NAMES:
        assert json.loads(msr("--out", name, "--json").stdout)["format"] == kind
        assert msr("--format", kind, "--out", f"named-{name}").exit_code == 0
        assert Path(name).read_bytes() == Path(f"named-{name}").read_bytes()


def test_a_csv_is_a_table() -> None:
    assert msr("--out", "c.csv").exit_code == 0
    header, *rows = Path("c.csv").read_text(encoding="utf-8").splitlines()
    assert header == "user_id,item_id,label"
    assert len(rows) == 80
    assert all(row.count(",") == 2 and row[-2:] in (",0", ",1") for row in rows)


def test_a_changed_file_makes_the_data_stage_out_of_date() -> None:
    assert msr("--out", "c.parquet").exit_code == 0
    use = ("--set", "evaluate.protocol.candidates=c.inter", "--out", "again.parquet", "--overwrite")
    assert msr("--format", "recbole", "--out", "c.inter").exit_code == 0
    assert msr(*use).exit_code == 0
    before = digest_of("run")
    text = Path("c.inter").read_text(encoding="utf-8").splitlines()
    Path("c.inter").write_text("\n".join([*text[:1], *reversed(text[1:])]), encoding="utf-8")
    assert msr(*use).exit_code == 0
    assert digest_of("run") != before


def test_wrong_files_and_names_are_exit_code_2() -> None:
    wrong = msr("--format", "elliot", "--out", "c.parquet")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "c.parquet --out: the name of a file of the format parquet, not elliot. Name it .tsv" in wrong.stderr
    for name in ("c.xlsx", "c", "c.json"):  # which nobody means to be tuples
        unknown = msr("--out", name)
        assert unknown.exit_code == 2
        assert f"{name} --out: unknown kind of file" in unknown.stderr
        assert ".csv (csv)" in unknown.stderr
    assert not Path("run").exists()  # all of it is told before anything is drawn
    assert msr("--format", "elliot", "--out", "test_negative.txt").exit_code == 0
    gone = msr("--out", "c.parquet", "--set", "evaluate.protocol.candidates=gone.inter", "--json")
    assert gone.exit_code == 2
    problem = json.loads(gone.stdout)["error"]["problems"][0]
    assert (problem["field"], problem["found"]) == ("evaluate.protocol.candidates", "no such file")


def test_json_names_the_file_and_counts() -> None:
    result = msr("--split", "validation", "--out", "v.parquet", "--json")
    found = json.loads(result.stdout)
    assert len(found.pop("digest")) == 64
    assert found == {
        "file": "v.parquet", "format": "parquet", "split": "validation", "users": 20, "rows": 80
    }  # fmt: skip
