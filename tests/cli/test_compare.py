"""`msr compare` on real small runs: what it prints, what it refuses, what it says of broken runs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from typer.testing import CliRunner, Result

from msr_adapter import schema
from msr_adapter.cli import app
from msr_adapter.cli.common import render
from msr_adapter.config.schema import ConfidenceConfig, ProtocolConfig
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.comparison import ComparisonPlan, compare
from msr_adapter.evaluate.model_metrics import judge
from msr_adapter.evaluate.results import read_finished
from msr_adapter.evaluate.text_tables import TextTable, escape, p_text, to_latex, to_markdown
from msr_adapter.files import write_json
from msr_adapter.metrics import evaluate_groups
from tests.support.judged_run import PROTOCOL, Run, make_run, write_scores


def msr(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`good`, and `better`, whose trained model scores the same candidates with less noise."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("good", "better"):
        run = make_run(root / name, users=60)
        if name == "better":
            _score_again(run)
        run.evaluate()
    return root


def _score_again(run: Run) -> None:
    table = schema.read_table(run.data / "candidates.parquet", schema.CANDIDATES).slice(5 * 7)
    columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    noise = np.random.default_rng(9).standard_normal(len(columns["label"]))
    write_scores(run.trained, columns, columns["label"] * 4.0 + noise)


@pytest.fixture
def copy(runs: Path, tmp_path: Path) -> Path:
    """The runs once more, to be broken."""
    shutil.copytree(runs, tmp_path / "runs")
    return tmp_path / "runs"


def _compared(*arguments: object) -> dict[str, Any]:
    done = msr("compare", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_the_numbers_are_those_of_the_runs_and_of_their_users(runs: Path) -> None:
    found = _compared(runs / "good", runs / "better", "--metric", "auc", "--metric", "mrr@3")
    assert found["reference"] == "good"
    assert found["users"] == 60
    for name in ("good", "better"):
        metrics = json.loads((runs / name / "evaluate" / "metrics.json").read_text())
        judged = metrics["models"]["trained"]["metrics"]
        assert found["models"][name]["metrics"] == {metric: judged[metric] for metric in ("auc", "mrr@3")}
    auc, mrr = found["differences"]
    assert (auc["model"], auc["metric"], mrr["metric"]) == ("better", "auc", "mrr@3")
    users = [pq.read_table(runs / name / "evaluate" / "per_user.parquet").filter(
        pa.compute.field("model") == "trained")["mrr@3"].to_numpy() for name in ("better", "good")]  # fmt: skip
    gaps = users[0] - users[1]
    assert mrr["mean"] == pytest.approx(gaps.mean(), abs=1e-12)
    assert mrr["low"] < mrr["mean"] < mrr["high"]
    assert mrr["p"] == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue, abs=0.02)
    # Neither is the primary metric: two that go together cost more than one and less than Bonferroni's two.
    assert found["tests"] == {"primary": None, "first": 0, "then": 2}
    striking = min(auc, mrr, key=lambda row: row["p"])
    assert striking["p"] <= striking["p_adjusted"] <= 2 * striking["p"]
    needed = mrr["smallest"] / (gaps.std(ddof=1) / np.sqrt(60)) - 0.8416
    assert 1.96 < needed < stats.norm.isf(0.0125)


def test_the_primary_metric_is_tested_first_and_alone(runs: Path) -> None:
    found = _compared(runs / "good", runs / "better")
    assert found["tests"] == {"primary": "ndcg@10", "first": 1, "then": 10}
    primary, *others = found["differences"]
    assert primary["metric"] == "ndcg@10"
    assert primary["p"] == primary["p_adjusted"]
    assert all(row["p_adjusted"] >= max(primary["p_adjusted"], row["p"]) for row in others)
    alone = _compared(runs / "good", runs / "better", "--metric", "ndcg@10")
    assert alone["differences"] == [primary]
    assert alone["tests"] == {"primary": "ndcg@10", "first": 1, "then": 0}


def test_the_best_reference_is_paid_for(runs: Path) -> None:
    models = [f"{runs / 'good'}:{model}" for model in ("random", "popularity", "base", "trained")]
    to_best = _compared(*models, "--to", "best")
    assert to_best["tests"] == {"primary": "ndcg@10", "first": 6, "then": 60}
    best = to_best["reference"]
    assert best == "good"
    first = _compared(models[-1], *models[:-1])
    assert first["tests"] == {"primary": "ndcg@10", "first": 3, "then": 30}
    pairs = [(one, other) for one in to_best["differences"] for other in first["differences"]
             if (one["model"], one["metric"]) == (other["model"], other["metric"])]  # fmt: skip
    assert len(pairs) == 33
    for one, other in pairs:
        assert one["mean"] == pytest.approx(other["mean"])
        assert one["p"] == other["p"]
        assert one["p_adjusted"] >= other["p_adjusted"]
        assert (one["smallest"] or 0) > (other["smallest"] or -1)  # all find the target among 10 of 7


def test_a_comparison_is_the_mirror_of_the_other_way_round(runs: Path) -> None:
    [there] = _compared(runs / "good", runs / "better", "--metric", "auc")["differences"]
    [back] = _compared(runs / "better", runs / "good", "--metric", "auc")["differences"]
    assert (back["mean"], back["low"], back["high"]) == pytest.approx((-there["mean"], -there["high"], -there["low"]))
    assert back["p"] == there["p"]


def test_models_of_one_run_and_the_best_as_reference(runs: Path) -> None:
    good = runs / "good"
    found = _compared(f"{good}:random", good, f"{good}:oracle", "--to", "best", "--metric", "auc")
    assert list(found["models"]) == ["good:random", "good", "good:oracle"]
    assert found["reference"] == "good:oracle"
    assert [row["model"] for row in found["differences"]] == ["good:random", "good"]
    assert all(row["mean"] < 0 for row in found["differences"])
    assert found["differences"][0]["p_adjusted"] == pytest.approx(1 / 101)  # none of the 100 sign patterns reaches it
    assert found["tests"] == {"primary": None, "first": 0, "then": 3}


def test_a_model_that_equals_the_reference_has_p_one(runs: Path, copy: Path) -> None:
    found = _compared(runs / "good", copy / "good")
    labels = list(found["models"])
    assert labels == [str(runs / "good"), str(copy / "good")]  # both are called `good`
    keys = ("mean", "p", "p_adjusted", "smallest")
    assert {tuple(row[key] for key in keys) for row in found["differences"]} == {(0, 1, 1, None)}
    assert all(row["low"] == -row["high"] < 0 for row in found["differences"])  # of 60 users, not of all there are


def test_text_markdown_and_latex(runs: Path) -> None:
    pair = (runs / "good", runs / "better")
    text = msr("compare", *pair).stdout
    for word in ("60 test users, 95% intervals", "AUC", "HR@5", "better", "minus good", "p adjusted", "smallest"):
        assert word in text, word
    assert "Recall" not in text
    flowing = " ".join(text.split())
    assert "1 comparison in NDCG@10, which is tested first, and for 10 comparisons in the other metrics" in flowing
    assert "Sampled: 6 negatives per user, uniform over the items" in flowing
    markdown = msr("compare", *pair, "--markdown", "--metric", "auc").stdout
    assert "| metric | good | better | chance |\n|---|---:|---:|---:|\n| AUC | " in markdown
    latex = msr("compare", *pair, "--latex", "--metric", "auc").stdout
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2
    assert r"95\% intervals" in latex
    assert "Sampled: 6 negatives per user" in latex
    assert "Sampled: 6 negatives per user" in markdown
    assert "AUC & " in latex


def test_a_pipeline_stands_for_its_run_folder(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    shutil.copytree(runs / "good", tmp_path / "runs" / "demo")
    found = _compared("demo", "demo:base", runs / "good/evaluate", "--metric", "auc")
    assert list(found["models"]) == ["demo", "demo:base", "good"]


def _edit(path: Path, change: dict[str, Any]) -> None:
    metrics = json.loads(path.read_text())
    metrics.update(change)
    write_json(path, metrics)


def test_other_protocols_are_refused_with_what_differs(copy: Path) -> None:
    run = make_run(copy / "deep", users=60)
    run.evaluate(PROTOCOL.model_copy(update={"k": (3, 20)}))
    done = msr("compare", copy / "good", copy / "deep", copy / "better")
    digests = [
        json.loads((copy / name / "evaluate" / "metrics.json").read_text())["protocol_digest"][:16]
        for name in ("deep", "good")
    ]
    assert done.exit_code == 2
    assert done.stderr == (
        f"{copy / 'deep'} protocol: protocol digest {digests[0]} is not {digests[1]} of {copy / 'good'} "
        "(k: 3, 20 here, 3, 5, 10 there; primary: ndcg@20 here, ndcg@10 there); one protocol for all. "
        "Judge both under one protocol: msr evaluate ... --set evaluate.protocol=NAME\n"
    )


def test_other_candidates_are_refused(copy: Path) -> None:
    make_run(copy / "few", users=50).evaluate()
    done = msr("compare", copy / "good", copy / "few")
    assert done.exit_code == 2
    assert "candidates digest" in done.stderr
    assert "(50 users, 350 rows here, 60 users, 420 rows there)" in done.stderr


def test_every_broken_run_is_named_at_once(copy: Path) -> None:
    (copy / "empty").mkdir()
    shutil.copytree(copy / "good", copy / "torn")
    (copy / "torn" / "evaluate" / "metrics.json").write_text('{"users": 60,')
    shutil.copytree(copy / "good", copy / "old")
    (copy / "old" / "evaluate" / "candidate_scores.parquet").unlink()
    done = msr("compare", copy / "empty", copy / "torn", copy / "old", f"{copy / 'good'}:bsae", copy / "absent")
    assert done.exit_code == 2
    first, *lines = done.stderr.splitlines()
    assert first == "5 problems:"
    words = (
        "no finished evaluation",
        "cannot be read",
        "another version",
        "Did you mean `base`?",
        "neither a run folder",
    )
    assert [word in line for word, line in zip(words, lines, strict=True)] == [True] * 5


@pytest.mark.parametrize("damage", ["cut", "column", "rows", "keys", "list", "newer"])
def test_a_damaged_run_is_one_problem(copy: Path, damage: str) -> None:
    path, scores = (copy / "good" / "evaluate" / name for name in ("metrics.json", "candidate_scores.parquet"))
    table, expected = pq.read_table(scores), ""
    if damage == "cut":
        scores.write_bytes(scores.read_bytes()[:-100])
        expected = "candidate_scores.parquet: cannot be read"
    elif damage == "column":
        pq.write_table(table.drop_columns(["score:trained"]), scores)
        expected = "no column score:trained"
    elif damage == "rows":
        pq.write_table(table.slice(1), scores)
        expected = "not the candidates of"
    elif damage == "keys":
        path.write_text('{"users": 60}')
        expected = "judged by another version of msr: it has no pipeline, seed, primary, protocol"
    elif damage == "list":
        path.write_text("[]")
        expected = "metrics.json: no object"
    else:
        for name in ("good", "better"):
            _edit(
                copy / name / "evaluate" / "metrics.json",
                {"protocol": {"name": "x", "confidence": {"level": 0.95}, "shape": 1}},
            )
        expected = "judged by another version of msr: protocol.shape: Extra inputs are not permitted"
    done = msr("compare", copy / "good", copy / "better")
    assert done.exit_code == 2
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("candidates", {"digest": "x"}, "candidates.rows: Field required"),
        ("models", {}, "models: Dictionary should have at least 1 item"),
        ("models", {"trained": {"metrics": {}}}, "models.trained has no auc, gauc, hr@3"),
        ("models", [], "models: Input should be a valid dictionary"),
        ("chance", None, "chance: Input should be a valid dictionary"),
        ("users", "60", "users: Input should be a valid integer"),
        ("seed", -1, "seed: Input should be greater than or equal to 0"),
        ("protocol", None, "protocol: Input should be"),
    ],
)
def test_values_of_the_wrong_kind_are_one_problem(copy: Path, key: str, value: object, expected: str) -> None:
    _edit(copy / "good" / "evaluate" / "metrics.json", {key: value})
    for done in (msr("compare", copy / "good", copy / "better"), msr("results", copy / "good")):
        assert done.exit_code == 2
        assert f"metrics.json: {expected}" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("good",), "RUN: 1 run; at least two"),
        (("good", "good"), "RUN: the same run twice"),
        (("good", "better", "--metric", "hr@4"), "--metric: `hr@4`; the protocol has auc, gauc, hr@3"),
    ],
)
def test_wrong_arguments(runs: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(runs)
    done = msr("compare", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_false_alarms_over_many_models_are_held_down() -> None:
    generator, alarms, raw = np.random.default_rng(0), 0, 0
    labels, offsets = np.tile(np.eye(5, dtype=np.int8)[0], 40), np.arange(41) * 5
    protocol = ProtocolConfig(name="x", metrics=("gauc", "mrr"), k=(5,), confidence=ConfidenceConfig(samples=400))
    rows = pa.table(
        {"example_id": np.repeat(np.arange(40), 5), "item_id": ["i"] * 200, "label": labels}, schema=schema.CANDIDATES
    )
    held_out = HeldOut(np.arange(40), pa.array(map(str, range(40))), offsets, rows, "")
    for seed in range(60):
        models = {str(name): judge(protocol, held_out, generator.standard_normal(200)) for name in range(6)}
        best = max(models, key=lambda name: models[name].summary["gauc"]["mean"])
        plan = ComparisonPlan.of(protocol, ["gauc", "mrr@5"], seed)
        found = compare(models, best, plan, chosen=True).differences
        raw += any(row.p <= 0.05 for row in found)
        alarms += any(row.p_adjusted <= 0.05 for row in found)
    assert alarms <= 9  # 3 expected at most; 3.6 standard deviations
    assert raw > 20  # what choosing the best would do to p-values that nobody adjusts


def test_special_characters_survive_markdown_and_latex() -> None:
    table = TextTable("50% of {all}", ["a|b", "x_1"], [["# & ~^\\", "-.5"]])
    assert r"a\|b" in to_markdown(table)
    assert to_latex(table).count(r"\\") == 2
    assert escape("0.902 (.872–.930)") == "0.902 (.872--.930)"
    assert escape("50% {a_b} \\ ~ ^ – <.001 +0.5 (-0.2") == (
        r"50\% \{a\_b\} \textbackslash{} \textasciitilde{} \textasciicircum{} -- $<$.001 $+$0.5 ($-$0.2"
    )
    assert (p_text(0.0004), p_text(0.05)) == ("<.001", "0.050")


def test_reading_back_gives_the_same_metrics(runs: Path) -> None:
    run = read_finished(runs / "good")
    for model in run.models:
        again = evaluate_groups(run.scores(model), run.held_out.labels, run.held_out.offsets).means()
        for name, value in run.metrics["models"][model]["metrics"].items():
            assert value["mean"] == again[name]


def test_a_run_called_like_markup_is_shown_as_it_is_called() -> None:
    table = TextTable("of [bold]", ["metric", "shop [v2]", "[/red]"], [["AUC [x]", "[green]1", "[/]"]])
    shown = render([table])
    for text in ("of [bold]", "shop [v2]", "[/red]", "AUC [x]", "[green]1", "[/]"):
        assert text in shown
