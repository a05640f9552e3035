"""Pipelines of others: aliases, parents and levels that multiply end in an error at once."""

from pathlib import Path

import pytest

from msr_adapter.config.loader import TreeReader, load_pipeline
from msr_adapter.errors import UserError
from tests.support.pipelines import MINIMAL, write


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def bomb(kind: str) -> str:
    lists = kind == "list"
    lines = ["a0: &a0 " + ("[x, x]" if lists else "{x: 1, y: 2}")]
    for n in range(1, 40):
        both = f"*a{n - 1}, *a{n - 1}" if lists else f"x: *a{n - 1}, y: *a{n - 1}"
        lines.append(f"a{n}: &a{n} " + (f"[{both}]" if lists else f"{{{both}}}"))
    return "\n".join(lines) + "\n" + MINIMAL


@pytest.mark.parametrize("kind", ["list", "mapping"])
def test_an_alias_bomb_is_refused(kind: str) -> None:
    with pytest.raises(UserError, match=r"a\.yaml:\d+: more than 20,000 values, repeated ones included"):
        load_pipeline(write("a.yaml", bomb(kind)))


def test_a_setting_may_be_no_bomb_either() -> None:
    text = bomb("list").splitlines()[:40]
    setting = "{" + ", ".join(text) + "}"
    with pytest.raises(UserError, match="more than 20,000 values"):
        load_pipeline(write("a.yaml", MINIMAL), [f"data.x={setting}"])


@pytest.mark.parametrize("text", [
    "a: " + "[" * 200 + "]" * 200, "a: " + "[" * 100_000 + "]" * 100_000, "a: " + "{a: " * 5_000 + "1" + "}" * 5_000,
    "- " * 20_000 + "x",
])  # fmt: skip
def test_deep_nesting_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="nested"):
        load_pipeline(write("a.yaml", text))


def test_a_file_that_is_no_pipeline_by_its_size_is_not_read() -> None:
    with pytest.raises(UserError, match="more than 512 KiB"):
        load_pipeline(write("a.yaml", "a: b\n" + "# x\n" * 200_000))


def test_a_diamond_of_parents_reads_each_file_once() -> None:
    write("p0.yaml", MINIMAL)
    for n in range(1, 30):
        write(f"p{n}.yaml", f"extends: [p{n - 1}.yaml, p{n - 1}.yaml]\nseed: {n}\n")
    reader = TreeReader()
    tree = reader.read(Path("p29.yaml"), "pipelines")
    assert tree is not None
    assert tree.value["seed"].value == 29
    assert len(reader.files) == len({*reader.files}) == 30


def test_a_long_chain_of_parents_is_refused() -> None:
    write("p0.yaml", MINIMAL)
    for n in range(1, 400):
        write(f"p{n}.yaml", f"extends: p{n - 1}.yaml\n")
    with pytest.raises(UserError, match="more than 32 files"):
        load_pipeline("p399.yaml")
    assert load_pipeline("p20.yaml").pipeline.name == "p20"


def test_parents_that_fail_are_told_once() -> None:
    write("broken.yaml", "a: [")
    write("a.yaml", "extends: broken.yaml\n")
    write("b.yaml", "extends: broken.yaml\n")
    with pytest.raises(UserError) as caught:
        load_pipeline(write("c.yaml", "extends: [a.yaml, b.yaml]\n"))
    assert len(caught.value.problems) == 1
