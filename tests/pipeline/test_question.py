"""One value decides what is asked, wherever models are asked: stages, report, recommendations, checks, fingerprints."""

import json
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from msr_adapter.cli.app import app
from msr_adapter.config.loader import load_pipeline
from msr_adapter.pipeline.checks import check, notes
from msr_adapter.pipeline.engine_checks import engine_notes
from msr_adapter.pipeline.planning import plan
from msr_adapter.pipeline.question_checks import question_notes
from tests.support.scripted_pipeline import pretend_to_train_stages, scripted

TEXT = "train.question=next-item-text"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline of 30 users, whose "training" takes no time."""
    (tmp_path / "scripted.yaml").write_text(
        scripted(30, "[0.5, 0.1, 0.4]", "{protocol: next-item, baselines: [popularity, base]}")
    )
    monkeypatch.chdir(tmp_path)
    pretend_to_train_stages(monkeypatch)
    return tmp_path


def msr(*words: str) -> str:
    done = CliRunner().invoke(app, [*words], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output + str(done.exception)
    return done.output


def run(folder: Path, name: str, *sets: str) -> Path:
    msr("run", "scripted.yaml", "--run-dir", name, *(word for each in sets for word in ("--set", each)))
    return folder / name


def test_two_questions_are_compared_on_the_same_lists(folder: Path) -> None:
    words, texts = run(folder, "words"), run(folder, "texts", TEXT)
    for made, answered in ((words, True), (texts, False)):
        metrics = json.loads((made / "evaluate" / "metrics.json").read_text())
        assert ("answer_mass" in metrics["models"]["trained"]) == answered
        assert bool(metrics["calibration"]) == answered
        page = (made / "evaluate" / "report.html").read_text()
        assert ("with log-likelihood ratio" in page) != answered
        assert ("with p(yes)" in page) == answered
    told = msr("compare", "words", "texts", "--json")
    assert "words" in told
    scores = pl.read_parquet(texts / "score" / "scores.parquet")
    assert scores.columns == ["example_id", "item_id", "ratio", "given", "alone", "tokens"]
    assert scores.select((pl.col("given") - pl.col("alone") - pl.col("ratio")).abs().max()).item() < 1e-12
    lists = [
        pl.read_parquet(made / "score" / "scores.parquet").select("example_id", "item_id") for made in (words, texts)
    ]
    assert lists[0].equals(lists[1])


def test_recommendations_have_ratios_and_no_log_odds(folder: Path) -> None:
    made = run(folder, "texts", TEXT)
    out = folder / "lists.parquet"
    msr("recommend", "scripted.yaml", "--run-dir", str(made), "--set", TEXT, "--out", str(out), "--top", "5")
    lists = pl.read_parquet(out).filter(pl.col("ranked_by") == "model")
    assert lists["logit"].null_count() == len(lists) > 0
    assert lists["score"].null_count() == 0
    assert not lists["score"].is_between(0, 1).all()
    by_user = lists.group_by("user_id", maintain_order=True).agg(pl.col("score").diff().max())
    assert (by_user["score"].drop_nulls() <= 0).all()


def test_a_run_of_one_question_is_no_run_of_another(folder: Path) -> None:
    run(folder, "words")
    stages = plan(load_pipeline("scripted.yaml", [TEXT], folder / "words"))
    told = {stage for stage, state in stages.items() if state != "up to date"}
    # The histories and their summaries are the same; items that only answers name are described anew.
    assert {"dataset", "score", "score-base", "evaluate"} <= told
    assert {"data", "items", "users"}.isdisjoint(told)
    assert set(plan(load_pipeline("scripted.yaml", (), folder / "words")).values()) == {"up to date"}


@pytest.mark.parametrize(("key", "again"), [
    ("alone_weight=0.9", {"score", "score-base", "evaluate"}),
    ("length=mean", {"score", "score-base", "evaluate"}),
    ("without_evidence=0.5", {"dataset", "train", "score", "evaluate"}),
    ("max_tokens=9", {"lengths", "dataset", "train", "score", "score-base", "evaluate"}),
])  # fmt: skip
def test_what_makes_scores_alone_trains_nothing_again(folder: Path, key: str, again: set[str]) -> None:
    run(folder, "texts", TEXT)
    stages = plan(load_pipeline("scripted.yaml", [TEXT, f"train.text_answer.{key}"], folder / "texts"))
    assert {stage for stage, state in stages.items() if state != "up to date"} == again


def test_answers_that_show_summaries_have_every_item_described(folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "next-item-text-answer.j2").write_text("{{ title }}: {{ item.summary }}")
    made = run(folder, "texts", TEXT, "templates=mine", "data.limit.users=8")
    summaries = pl.read_parquet(made / "items" / "items.parquet")["summary"]
    assert (summaries != "").all()
    plain = run(folder, "plain", TEXT, "data.limit.users=8")
    assert (pl.read_parquet(plain / "items" / "items.parquet")["summary"] == "").any()
    rows = pl.read_parquet(made / "dataset" / "msr_train" / "*.parquet")["messages"].to_list()
    assert all(": A summary of" in row[1]["content"] for row in rows)


SERVER = "evaluate.scorer={path: served, backend: server, server: {url: 'http://127.0.0.1:9'}}"
REFUSED = (
    (("train.objective=kto",), "train.objective", "compares the answers Yes and No"),
    (("train.objective=dpo", "train.question=user-text"), "train.objective", "has one answer"),
    (("train.objective=dpo", "train.text_answer.without_evidence=0.1"), "train.text_answer.without_evidence", "none"),
    ((SERVER, "train.question=user-text"), "train.images", "an image has none"),
    ((SERVER, "evaluate.scorer.default_system=Be brief."), "evaluate.scorer.default_system", "would not be said"),
    ((SERVER, "train.model.path=nobody/not-here"), "train.model.path", "only the model's tokenizer knows them"),
    (("train.question=user-text", "train.too_long=truncate"), "train.too_long", "which is the answer"),
)  # fmt: skip


@pytest.mark.parametrize(("sets", "field", "found"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_asked_is_refused_with_the_reason(sets: tuple[str, ...], field: str, found: str) -> None:
    problems = check(load_pipeline("demo", [TEXT, *sets]))
    told = [problem for problem in problems if problem.field == field]
    assert any(found in problem.found for problem in told), problems
    assert not any(found in problem.found for problem in check(load_pipeline("demo", sets[:0])))


@pytest.mark.parametrize("sets", [
    (SERVER,),
    (SERVER, "train.question=user-text", "train.images=false"),
    (SERVER, "evaluate.scorer.default_system=null"),
    ("train.model.backend=vllm", "train.question=user-text"),
])  # fmt: skip
def test_texts_are_scored_by_servers_and_engines_too(sets: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.backends.vllm.installed.installed_version", lambda: "0.23.0")
    problems = check(load_pipeline("demo", [TEXT, *sets]))
    assert not [one for one in problems if one.field.startswith(("train.", "evaluate."))], problems


def test_auto_is_transformers_where_texts_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msr_adapter.backends.vllm.installed.installed_version", lambda: "0.23.0")
    monkeypatch.setattr("msr_adapter.backends.vllm.installed.sees_gpu", lambda: True)
    auto, vllm = (load_pipeline("demo", [TEXT, f"train.model.backend={name}"]) for name in ("auto", "vllm"))
    assert auto.pipeline.train.scoring_model == auto.pipeline.train.model.reference
    assert vllm.pipeline.train.scoring_model == vllm.pipeline.train.model
    assert any("train.model: huggingface; auto is vllm on this machine" in one for one in engine_notes(auto))
    assert any("auto stands for huggingface" in one for one in question_notes(auto))
    assert any("vllm computes every prompt whole" in one for one in question_notes(vllm))
    words = load_pipeline("demo", ["train.model.backend=auto"]).pipeline.train
    assert words.scoring_model == words.model


def test_a_check_says_what_the_scores_are(folder: Path) -> None:
    loaded = load_pipeline("scripted.yaml", [TEXT], folder / "new")
    told = "\n".join(notes(loaded, plan(loaded)))
    assert "log-likelihood ratios, no probabilities" in told
    asked = load_pipeline("scripted.yaml", (), folder / "new")
    assert "likelihood" not in "\n".join(notes(asked, plan(asked)))


def test_a_server_of_ours_tells_probabilities_alone(folder: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "scripted.yaml", "--set", TEXT], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "train.question" in done.output + str(done.exception) + (done.stderr or "")
