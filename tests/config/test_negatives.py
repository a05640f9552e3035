"""Negatives in a YAML: a count or a mapping, in both places, with the message that a user reads."""

from pathlib import Path

import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.errors import UserError
from tests.support.pipelines import MINIMAL


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.yaml").write_text(MINIMAL, encoding="utf-8")


def test_a_number_is_a_count_and_training_has_its_own_default() -> None:
    loaded = load_pipeline("p.yaml", ["train.negatives=3", "evaluate.protocol={name: own, negatives: 7}"]).pipeline
    assert (loaded.train.negatives.kind, loaded.train.negatives.count) == ("uniform", 3)
    assert loaded.evaluate.protocol.negatives.count == 7
    mapped = load_pipeline("p.yaml", ["train.negatives={kind: popularity}"]).pipeline
    assert mapped.train.negatives.kinds() == {"popularity": 1}
    assert mapped.evaluate.protocol.negatives.count == 20
    over = load_pipeline("p.yaml", ["train.negatives=3", "train.negatives.kind=popularity"]).pipeline
    assert over.train.negatives.kinds() == {"popularity": 1}  # the mapping takes the place of the number


def test_paths_start_from_the_yaml_and_fallbacks_are_a_list() -> None:
    settings = "{kind: hard, scores: s.csv, fallback: [popularity, uniform]}"
    negatives = load_pipeline("p.yaml", [f"train.negatives={settings}"]).pipeline.train.negatives
    assert negatives.scores == Path.cwd() / "s.csv"
    assert negatives.fallback == ("popularity", "uniform")


def test_a_run_to_mine_is_found_as_one_to_start_from_is() -> None:
    settings = "train.negatives={kind: mined, run: first}"
    found = load_pipeline("p.yaml", [settings]).pipeline.train.negatives
    assert (found.run, found.top, found.among) == (Path.cwd() / "runs" / "first", 20, 100)
    Path("first").mkdir()
    assert load_pipeline("p.yaml", [settings]).pipeline.train.negatives.run == Path.cwd() / "first"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.negatives=0", "train.negatives.count: the number 0; expected a whole number, at least 1"),
        ("train.negatives=few", "train.negatives: the text 'few'; expected a count, or a mapping as "),
        ("train.negatives={kind: all}", "train.negatives.kind: the text 'all'; expected one of uniform, popularity,"),
        ("train.negatives={kind: hard}", "train.negatives: hard negatives are asked for without `scores:`"),
        ("train.negatives={fallback: [hard]}", "train.negatives: hard negatives are asked for without `scores:`"),
        ("train.negatives={kind: mixture}", "train.negatives: kind: mixture, but no `mixture:` of kinds with weights"),
        ("train.negatives={mixture: {unifrm: 1}}", "train.negatives.mixture.unifrm: unknown key; known here: uniform,"),
        ("train.negatives={fallback: [unifrm]}", "train.negatives.fallback.0: the text 'unifrm'; expected one of uni"),
        ("train.negatives={fallback: uniform}", "train.negatives.fallback: the text 'uniform'; expected a list, each"),
        (
            "train.negatives={kind: mined}",
            "train.negatives: mined negatives are asked for without `run:`, an earlier run",
        ),
        (
            "train.negatives={mixture: {mined: 1}, kind: mixture}",
            "train.negatives: mined negatives are asked for witho",
        ),
        ("train.negatives={kind: mined, run: demo, count: 3, top: 2}", "train.negatives: 3 mined negatives of a posit"),
        ("train.negatives={kind: mined, run: demo, among: 9}", "train.negatives: top: 20 of among: 9 items; expected"),
        ("train.negatives={fallback: [mined]}", "train.negatives.fallback.0: the text 'mined'; expected one of unifor"),
        ("evaluate.protocol.negatives={kind: mined}", "evaluate.protocol.negatives.kind: the text 'mined'; expected"),
        ("train.negatives={alpha: -1}", "train.negatives.alpha: the number -1; expected a number, at least 0"),
    ],
)
def test_what_is_wrong_is_said_at_its_key(setting: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_pipeline("p.yaml", [setting])
    assert str(caught.value).startswith(f"--set {message}")
