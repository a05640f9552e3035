"""The exported model: merged weights that score as before, a card that says what it is, an upload without secrets."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import yaml as yamls

from msr_adapter import schema
from msr_adapter.backends import make_backend
from msr_adapter.candidate_rows import ANSWERS, CandidateRows
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError, UserError
from msr_adapter.generation.request import Completion, Failure, Request
from msr_adapter.llamafactory.merged_model import write_merged_model
from msr_adapter.llamafactory.model_weights import Weights, trained_weights
from msr_adapter.pipeline import run
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.prompts import Prompts
from msr_adapter.workflows import export
from msr_adapter.workflows.model_card import CardFacts, model_card, stated_licence
from tests.support.summaries import Lines
from tests.support.tiny_models import tiny_model
from tests.support.tiny_run import QUIET, model_ref, stages, trained


def log_odds(model: Any, weights: Weights) -> list[float]:
    made = stages()
    backend = make_backend(model, weights)
    rows = CandidateRows(made.data, made.users, Prompts(), "test", images=True)
    asked = [Request(backend.identity, row.prompt, (row.image,) if row.image else (), ANSWERS) for row in rows]
    answers = backend.complete(asked)
    assert all(isinstance(answer, Completion) for answer in answers)
    return [answer.choice_logprobs[0] - answer.choice_logprobs[1] for answer in answers]  # type: ignore[union-attr]


def test_a_merged_adapter_scores_as_the_adapter_did(tmp_path: Path) -> None:
    model, weights = model_ref(), trained_weights(trained("lora").out)
    before = log_odds(model, weights)
    assert write_merged_model(model, weights, tmp_path / "out", "float32") > 10_000
    exported = model.model_copy(update={"path": str(tmp_path / "out")})
    assert log_odds(exported, Weights()) == pytest.approx(before, abs=1e-5)
    assert log_odds(model, Weights()) != pytest.approx(before, abs=1e-3)  # the adapter matters
    assert not (tmp_path / "out" / "adapter_config.json").exists()


def test_the_dtype_is_the_one_asked_for(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    write_merged_model(model_ref(), Weights(), tmp_path / "out", "bfloat16")
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_model_whose_folder_names_code_of_its_own_is_exported_without_it(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("qwen2_vl"), folder)
    classes = ("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor")
    named = {
        "config.json": dict.fromkeys(classes, "own.Own"),
        "tokenizer_config.json": dict.fromkeys(classes, "own.Own") | {"AutoTokenizer": ["own.Own", None]},
    }
    for name, code in named.items():
        written = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(written | {"auto_map": code}))
    write_merged_model(ModelConfig(path=str(folder), template="qwen2_vl"), Weights(), tmp_path / "out", "float32")
    assert list((tmp_path / "out").glob("*.py")) == []
    for name in named:
        assert "auto_map" not in json.loads((tmp_path / "out" / name).read_text())


FACTS = CardFacts(
    name="demo: \"quotes\"", base_model="Org/Base", base_is_public=True, licence="apache-2.0", images=True,
    method="lora", dtype="bfloat16", template="qwen2_vl", prompt="A ``` in a title\n<image>", answers=("Yes", "No"),
    data={"source": "table"}, training={"steps": "3"},
)  # fmt: skip


def metrics() -> dict[str, Any]:
    value = {"mean": 0.7512, "low": 0.7, "high": 0.8}
    return {
        "users": 12, "primary": "auc", "protocol": {"name": "next-item", "confidence": {"level": 0.95}},
        "protocol_digest": "a" * 64, "candidates": {"rows": 252, "digest": "b" * 64}, "chance": {"auc": 0.5},
        "sampling": {"sampled": True, "negatives": 20.0, "kinds": {"uniform": 20}, "items": 99,
                     "distribution": "uniform over the items", "caution": "sampled metrics may order models otherwise"},
        "models": {"trained": {"metrics": {"auc": value}}},
    }  # fmt: skip


def test_the_card_says_what_it_is_and_how_it_was_judged() -> None:
    card = model_card(FACTS, metrics())
    _, head, body = card.split("---\n", 2)
    front = yamls.safe_load(head)
    assert front["base_model"] == "Org/Base"
    assert front["license"] == "apache-2.0"
    assert front["pipeline_tag"] == "image-text-to-text"
    assert "0.751 (.700–.800)" in body
    assert "digest bbbbbbbbbbbbbbbb" in body
    assert "Sampled: 20 negatives per user, uniform over the items; the catalogue has 99 items" in body
    assert "````\nA ``` in a title" in body  # the fence is longer than any in the prompt


def test_a_private_base_model_is_not_named_to_the_hub() -> None:
    facts = CardFacts(
        **{**FACTS.__dict__, "base_is_public": False, "base_model": "my-model", "licence": "", "images": False}
    )
    card = model_card(facts, metrics())
    front = yamls.safe_load(card.split("---\n")[1])
    assert "base_model" not in front
    assert front["license"] == "other"
    assert front["pipeline_tag"] == "text-generation"
    assert "Licence: not stated. The terms of my-model" in card


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: llama3\ntags: [a]\n---\ntext", "llama3"),
        ("---\ntags: [a]\n---\nlicense: none of this", ""),
        ("license: in the text\n", ""),
        (None, ""),
    ],
)
def test_the_licence_is_what_the_base_model_states(tmp_path: Path, card: str | None, licence: str) -> None:
    if card is not None:
        (tmp_path / "README.md").write_text(card)
    assert stated_licence(model_ref().model_copy(update={"path": str(tmp_path)})) == licence


class Hub:
    """Stands in for the hub's client: keeps what it is asked, or fails."""

    asked: list[dict[str, Any]] = []  # noqa: RUF012 - the tests empty it
    error: Exception | None = None

    def create_repo(self, repository: str, **settings: Any) -> str:
        if self.error:
            raise self.error
        self.asked.append({"repository": repository, **settings})
        return f"https://hub/{repository}"

    def upload_folder(self, **settings: Any) -> None:
        self.asked.append(settings)


def test_an_upload_is_private_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    Hub.asked.clear()
    assert export.push(tmp_path, "org/name", private=True) == "https://hub/org/name"
    assert Hub.asked[0] == {"repository": "org/name", "private": True, "exist_ok": True}
    assert Hub.asked[1]["folder_path"] == tmp_path


def test_a_failed_upload_keeps_the_export_and_tells_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr(Hub, "error", OSError("no route for hf_canary"))
    with pytest.raises(StageError) as caught:
        export.push(tmp_path, "org/name", private=True)
    assert "org/name was not uploaded" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_folder_in_use_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        export.export(load_pipeline("demo"), tmp_path / "out", "float32", None, QUIET)


EXPORTED = """\
name: e
data: {source: {kind: synthetic, users: 20, items: 40}}
split: {fractions: [0.5, 0.1, 0.4]}
summarize:
  items: {model: {path: nobody, backend: scripted}, mode: none}
  users: {model: {path: nobody, backend: scripted}, mode: none}
train: {model: {path: tiny, template: qwen2_vl}}
evaluate: {protocol: next-item, baselines: [popularity]}
"""
SERVED = "evaluate.scorer={path: ours, backend: scripted}"


def load(folder: Path, *sets: str) -> LoadedPipeline:
    (folder / "e.yaml").write_text(EXPORTED)
    return load_pipeline(str(folder / "e.yaml"), sets, folder / "run")


def test_a_reward_model_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="its value head has no place"):
        export.export(load(tmp_path, "train.objective=reward"), tmp_path / "out", "float32", None, QUIET)
    assert not (tmp_path / "run").exists()


def test_what_a_server_scores_is_trained_for_the_export_and_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[str]] = []
    monkeypatch.setattr(export, "run", lambda _, targets, **__: asked.append(set(targets)))
    monkeypatch.setattr("msr_adapter.llamafactory.model_weights.trained_weights", lambda _: Weights())
    monkeypatch.setattr("msr_adapter.llamafactory.merged_model.write_merged_model", lambda *_: 7)
    monkeypatch.setattr(export, "describe", lambda *_: None)
    lines = Lines()
    made = export.export(load(tmp_path, SERVED), tmp_path / "out", "float32", "mit", lines)
    assert (made.parameters, made.checked, made.largest_difference) == (7, 0, None)
    assert asked == [{"train", "evaluate"}]
    assert "not compared: a server scored" in lines.text


def test_the_export_is_asked_what_the_run_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = load(tmp_path, "train.too_long=truncate", "train.images=false")
    run(loaded, ("users",), reporter=QUIET)
    folder = RunFolder(loaded.run_dir)
    texts = schema.read_table(folder.stage("users") / "users.parquet", schema.USER_SUMMARIES).to_pylist()
    short = pa.Table.from_pylist([{**row, "summary": "SHORT"} for row in texts], schema.USER_SUMMARIES)
    (folder.root / "truncate").mkdir()
    schema.write_table(short, schema.USER_SUMMARIES, folder.stage("truncate") / "users.parquet")
    prompts: list[str] = []

    def complete(requests: Any) -> list[Any]:
        prompts.extend(request.prompt for request in requests)
        return []

    backend = SimpleNamespace(identity="m", complete=complete)
    monkeypatch.setattr("msr_adapter.backends.make_backend", lambda *_: backend)
    row = {"example_id": 0, "item_id": "i", "score": 0.5, "logit": 0.0, "answer_mass": 1.0, "bounded": False}
    (folder.root / "score").mkdir()
    scores = pa.Table.from_pylist([row] * export.CHECKED, schema.SCORES)
    schema.write_table(scores, schema.SCORES, folder.stage("score") / "scores.parquet")
    with pytest.raises(StageError, match="no finite score"):
        export.compare_scores(loaded, folder, loaded.pipeline.train.model, QUIET)
    backend.complete = lambda requests: [Failure(request.key, "the image is gone") for request in requests]
    with pytest.raises(StageError, match=r"did not answer (\d+) candidates of \1, first: the image is gone") as caught:
        export.compare_scores(loaded, folder, loaded.pipeline.train.model, QUIET)
    assert "overflow" not in str(caught.value)  # the numbers are not at fault
    assert prompts
    assert all("SHORT" in prompt for prompt in prompts)
