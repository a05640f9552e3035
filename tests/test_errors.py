"""Guesses at what was meant: near words and near files, and nothing where nothing is near."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.data.readers.column_names import find_columns
from msr_adapter.errors import UserError, closest, did_you_mean
from msr_adapter.filesystem import absent

STAGES = ("data", "lengths", "items", "users", "truncate", "dataset", "train", "score", "score-base", "evaluate")


@pytest.mark.parametrize(
    ("word", "near"),
    [("trian", "train"), ("Train", "train"), ("truncat", "truncate"), ("evalute", "evaluate"), ("item", "items"),
     ("scorebase", "score-base"), ("datasett", "dataset"), ("eval", "evaluate")],
)  # fmt: skip
def test_a_slip_of_the_pen_is_recognised(word: str, near: str) -> None:
    assert did_you_mean(word, STAGES) == f"Did you mean `{near}`?"


@pytest.mark.parametrize("word", ["", "x", "tsai", "bananas", "time", "restore", "users/train", "ab"])
def test_what_is_not_near_is_not_guessed(word: str) -> None:
    assert did_you_mean(word, STAGES) == ""


def test_of_equals_the_one_with_the_first_letter_comes_first() -> None:
    assert closest("tiem", ["item", "time"], 2) == ["time", "item"]
    assert closest("sco", ["score", "score-base"]) == []  # the beginning of several says nothing


letters = st.text("abcdef-_", min_size=1, max_size=9)


@given(letters, st.lists(letters, max_size=6))
def test_guesses_are_choices_and_a_choice_is_its_own_nearest(word: str, choices: list[str]) -> None:
    assert set(closest(word, choices, 9)) <= set(choices)
    assert closest(word, [*choices, word]) == [word]


@given(st.text("abcdefghij", min_size=3, max_size=12), st.data())
def test_one_slip_is_always_found(word: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(word) - 1))
    slips = [
        word[:place] + "z" + word[place:],
        word[:place] + "z" + word[place + 1 :],
        word[:place] + word[place + 1 :],
    ]
    slips += [word[: place - 1] + word[place] + word[place - 1] + word[place + 1 :]] if place else []
    for slip in slips:
        if len(slip) >= 3:
            assert closest(slip, [word, "0123456789"]) == [word]


@pytest.mark.parametrize("header", [["review_id", "text", "user"], ["overview", "user"], ["rating", "title", "user"]])
def test_a_column_that_only_looks_alike_is_not_offered(header: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        find_columns("log.csv", header, ["user", "item"], {})
    assert "did you mean" not in str(caught.value)


def test_a_path_that_is_absent_names_the_one_that_is_near(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "interactions.csv").write_text("")
    (tmp_path / "shop" / "a1").mkdir()
    for name in ("interactons.csv", "interactions.tsv", "interactions.csv.gz", "Interactions.csv"):
        assert absent(tmp_path / "shop" / name) == "no such file (did you mean interactions.csv?)"
    near = tmp_path / "shop" / "interactions.csv"
    assert absent(tmp_path / "shpo" / "interactions.csv") == f"no such file (did you mean {near}?)"
    assert absent(tmp_path / "sho", "folder") == "no such folder (did you mean shop?)"
    assert absent(tmp_path / "shop", "file") == "not a file"
    assert absent(near, "folder") == "not a folder"
    for name in ("items.csv", "x.csv", "interactions_of_another_shop.csv", "shop"):
        assert absent(tmp_path / "shop" / name) == "no such file"
    assert absent(near / "below.csv") == "no such file"


@pytest.mark.parametrize(
    ("command", "near"),
    [
        (["check", "my-piepline.yaml"], "Did you mean `my-pipeline.yaml`?"),
        (["check", "my-pipeline"], "Did you mean `my-pipeline.yaml`?"),
        (["check", "dmeo"], "Did you mean `demo`?"),
        (["check", "shopp/other.yaml"], "Did you mean `{cwd}/shop/other.yaml`?"),
        (["check", "nothing-like-it.yaml"], ""),
        (["check", "demo", "--set", "templates=my-word"], "Did you mean `my-words`?"),
        (["results", "runs/frist"], "Did you mean `runs/first`?"),
        (["check", "my-pipeline.yaml"], "(did you mean interactions.csv?)"),
    ],
)
def test_commands_name_the_file_that_is_near(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], near: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("shop", "my-words", "runs/first"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "interactions.csv").write_text("user,item\nu,i\n")
    (tmp_path / "shop" / "other.yaml").write_text("")
    (tmp_path / "my-pipeline.yaml").write_text(
        "extends: demo\ndata: {source: {kind: table, interactions: interactoins.csv}}\n"
    )
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 2
    assert near.format(cwd=tmp_path) in said.stderr
    assert ("id you mean" in said.stderr) == bool(near)
