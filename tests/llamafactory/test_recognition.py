"""The template is found from the model's files; a wrong one is refused before anything is loaded."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from msr_adapter.cli import app
from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import UserError
from msr_adapter.llamafactory.families import FAMILIES, REASONING, UNSUPPORTED, Family
from msr_adapter.llamafactory.family_recognition import family_of, resolve_template, template_problems
from msr_adapter.pipeline import check, notes, plan, run
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.progress import Reporter

CHATS = {
    "<|start_header_id|>": "{{ '<|start_header_id|>' + role }}",
    "<|im_start|>": "<|im_start|>{{ role }}",
    "named SmolLM": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM<|im_end|>",
    "ASSISTANT:": "{{ message['role'].upper() + ': ' }}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
}
each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def model_folder(folder: Path, chat: str = "", **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")  # weights of no tensors, whole
    if chat:
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": chat}))
    return folder


def of_family(folder: Path, family: Family) -> ModelConfig:
    config = {"model_type": family.model_type}
    parts = {"text_config": family.text_type, "vision_config": family.vision_type}
    config |= {part: {"model_type": kind} for part, kind in parts.items() if kind}
    return ModelConfig(path=str(model_folder(folder, CHATS.get(family.mark, ""), **config)))


@each_family
def test_each_family_is_known_by_its_config_and_its_chat_template(family: Family, tmp_path: Path) -> None:
    model = of_family(tmp_path, family)
    assert family_of(model) == family
    assert resolve_template(model).template == family.template
    assert resolve_template(model.model_copy(update={"template": family.template})).template == family.template


@each_family
def test_a_template_that_is_not_the_models_own_is_refused_with_the_right_one(family: Family, tmp_path: Path) -> None:
    wrong = "llava" if family.template != "llava" else "qwen2_vl"
    model = of_family(tmp_path, family).model_copy(update={"template": wrong})
    with pytest.raises(UserError) as caught:
        resolve_template(model, "my.yaml:7", "train.model")
    assert str(caught.value) == (
        f"my.yaml:7 train.model.template: `{wrong}` is not the template of {tmp_path}, a {family.name}; "
        f"{family.template}. Correct or remove the line: the template is found automatically"
    )


def test_one_model_type_with_several_chat_formats() -> None:
    chats = {family.template for family in FAMILIES if family.model_type == "llava_next"}
    assert chats == {"llava_next", "llava_next_mistral", "llava_next_llama3", "llava_next_qwen"}


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({"chat_template.jinja": "<|start_header_id|>"}, "llama3"),
        ({"chat_template.json": '{"chat_template": "<|start_header_id|>"}'}, "llama3"),
        # A base model has no chat template; its tokenizer knows the roles.
        ({"tokenizer_config.json": '{"added_tokens_decoder": {"1": {"content": "<|start_header_id|>"}}}'}, "llama3"),
        ({"tokenizer.json": '{"added_tokens": [{"content": "<|start_header_id|>"}]}'}, "llama3"),
        # The chat template decides over the vocabulary: DeepSeek's distilled Llama keeps the tokens, not the format.
        ({"chat_template.jinja": "<｜User｜>", "tokenizer.json": '{"added_tokens": ["<|start_header_id|>"]}'}, None),
        ({"chat_template.jinja": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM"}, "smollm2"),
        # Yi and some finetunes of Llama write chats like it, and are none.
        ({"chat_template.jinja": "<|im_start|>system\nYou are a helpful AI assistant."}, None),
        ({}, None),
    ],
)
def test_where_the_chat_format_is_read(files: dict[str, str], template: str | None, tmp_path: Path) -> None:
    model_folder(tmp_path, model_type="llama")
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = family_of(ModelConfig(path=str(tmp_path)))
    assert (found and found.template) == template


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "smolvlm"}, "model_type smolvlm is not among the tested families"),
        ({"architectures": ["OurOwnLM"]}, "OurOwnLM is not among the tested families"),
        ({"model_type": "llava", "text_config": {"model_type": "mistral"}, "vision_config": {"model_type": "pixtral"}},
         "model_type llava with mistral and pixtral with this chat template is not among the tested families"),
    ],
)  # fmt: skip
def test_another_model_needs_its_template_said(config: dict[str, Any], said: str, tmp_path: Path) -> None:
    model = ModelConfig(path=str(model_folder(tmp_path, **config)))
    with pytest.raises(UserError, match=said) as caught:
        resolve_template(model)
    assert "the model's LLaMA-Factory template. Set it" in str(caught.value)
    said_so = model.model_copy(update={"template": "phi4"})
    assert resolve_template(said_so) == said_so


def test_a_thinking_template_is_refused_and_the_plain_one_named(tmp_path: Path) -> None:
    family = next(family for family in FAMILIES if family.name == "qwen3-vl")
    known = of_family(tmp_path / "known", family).model_copy(update={"template": "qwen3_vl"})
    assert "it reasons before every answer; qwen3_vl_nothink." in str(template_problems(known)[0])
    other = ModelConfig(path=str(model_folder(tmp_path / "other", model_type="ours")), template="qwen3_vl")
    assert str(template_problems(other)[0]).endswith("a template without reasoning. Use qwen3_vl_nothink")


def test_the_thinking_templates_are_those_of_llamafactory() -> None:
    from llamafactory.data.template import TEMPLATES, ReasoningTemplate

    assert {name for name, template in TEMPLATES.items() if isinstance(template, ReasoningTemplate)} == REASONING
    assert {family.template for family in FAMILIES} <= set(TEMPLATES) - REASONING
    for family in FAMILIES:
        assert family.sees_images == (TEMPLATES[family.template].mm_plugin.image_token is not None)


@pytest.mark.parametrize("architecture", UNSUPPORTED)
def test_what_llamafactory_cannot_load_is_refused_with_the_reason(architecture: str, tmp_path: Path) -> None:
    model = ModelConfig(
        path=str(model_folder(tmp_path, model_type="x", architectures=[architecture])), template="llava"
    )
    assert UNSUPPORTED[architecture] in str(template_problems(model)[0])


def test_a_precision_known_not_to_work_is_refused(tmp_path: Path) -> None:
    family = next(family for family in FAMILIES if family.name == "gemma3")
    model = of_family(tmp_path, family).model_copy(update={"dtype": "float16"})
    assert [problem.field for problem in template_problems(model, role="train.model")] == ["train.model.dtype"]
    assert not template_problems(model.model_copy(update={"dtype": "bfloat16"}))


def in_the_hubs_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def cached(repo: str, name: str, revision: str) -> str | None:
        return str(folder / name) if repo == "Org/Name" and (folder / name).is_file() else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)


def test_a_cached_hub_model_is_known_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_family(tmp_path, next(family for family in FAMILIES if family.name == "internvl"))
    in_the_hubs_cache(monkeypatch, tmp_path)
    assert resolve_template(ModelConfig(path="Org/Name"), download=False).template == "intern_vl"
    assert resolve_template(ModelConfig(path="Org/Other"), download=False).template == "auto"


def test_a_hub_model_is_fetched_or_its_template_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    in_the_hubs_cache(monkeypatch, tmp_path)

    def download(repo: str, name: str, revision: str | None) -> None:
        asked.append(name)
        if repo != "Org/Name" or name.startswith("chat_template"):
            raise FileNotFoundError(name)
        if name == "config.json":
            model_folder(tmp_path, "<|im_start|>", model_type="qwen2")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert resolve_template(ModelConfig(path="Org/Name")).template == "qwen"
    assert asked == ["config.json", "chat_template.jinja", "chat_template.json", "tokenizer_config.json"]
    with pytest.raises(UserError, match="is not on this machine and cannot be downloaded"):
        resolve_template(ModelConfig(path="Org/Other"))


YAML = """\
data:
  source: {kind: synthetic, users: 12, items: 60}
summarize:
  items: {model: &model {path: MODEL}, mode: MODE}
  users: {model: *model, mode: none}
train: {model: *model}
evaluate: {protocol: next-item}
"""


def pipeline(tmp_path: Path, model: str, mode: str = "none") -> LoadedPipeline:
    (tmp_path / "p.yaml").write_text(YAML.replace("MODEL", model).replace("MODE", mode))
    return load_pipeline(str(tmp_path / "p.yaml"), (), tmp_path / "run")


def test_the_template_reaches_all_that_is_written(tmp_path: Path) -> None:
    loaded = pipeline(tmp_path, "tiny")
    assert loaded.resolved["train"]["model"]["template"] == "auto"
    settled_ = resolve_models(loaded, download=False)
    assert settled_.resolved["train"]["model"]["template"] == settled_.pipeline.train.model.template == "qwen2_vl"
    run(loaded, ("data",), reporter=Reporter(quiet=True))
    written = json.loads((tmp_path / "run" / "pipeline.json").read_text())
    assert written["train"]["model"]["template"] == "qwen2_vl"


def test_a_run_is_up_to_date_however_the_template_was_named(tmp_path: Path) -> None:
    run(pipeline(tmp_path, "tiny"), ("lengths",), reporter=Reporter(quiet=True))
    assert plan(pipeline(tmp_path, "tiny, template: qwen2_vl"))["lengths"] == "up to date"


def test_check_names_every_wrong_template_and_a_run_does_not_start(tmp_path: Path) -> None:
    family = next(family for family in FAMILIES if family.name == "llava-next")
    of_family(tmp_path / "model", family)
    loaded = pipeline(tmp_path, "./model, template: llava", "image")
    found = [problem for problem in check(loaded) if problem.field.endswith("template")]
    assert [problem.field for problem in found] == ["train.model.template", "summarize.items.model.template"]
    assert all(problem.allowed == "llava_next_mistral" and problem.where.endswith("p.yaml:4") for problem in found)
    with pytest.raises(UserError, match="llava_next_mistral"):
        run(loaded, ("data",), reporter=Reporter(quiet=True))
    assert not (tmp_path / "run").exists()


def test_a_model_of_texts_is_shown_no_pictures(tmp_path: Path) -> None:
    of_family(tmp_path / "model", next(family for family in FAMILIES if family.name == "llama3"))
    found = [each for each in check(pipeline(tmp_path, "./model", "fusion")) if "sees no images" in each.found]
    assert [(each.field, each.allowed) for each in found] == [
        ("train.images", "false"), ("summarize.items.mode", "none"),
    ]  # fmt: skip
    assert found[0].found == f"{tmp_path / 'model'}, a llama3, sees no images"
    text = (tmp_path / "p.yaml").read_text().replace("train: {", "train: {images: false, ")
    (tmp_path / "p.yaml").write_text(text.replace("mode: fusion", "mode: none"))
    assert not check(load_pipeline(str(tmp_path / "p.yaml"), (), tmp_path / "run"))


def test_check_says_what_is_not_known_yet(tmp_path: Path) -> None:
    loaded = pipeline(tmp_path, "No/Such-Model")
    assert notes(loaded, plan(loaded))[:1] == [
        "train.model: the template of No/Such-Model is read from its files once they are on this machine"
    ]
    model_folder(tmp_path / "model", model_type="ours")
    other = pipeline(tmp_path, "./model, template: phi4")
    assert "belongs to no family that msr is tested with" in notes(other, plan(other))[0]
    shown = CliRunner().invoke(app, ["check", str(tmp_path / "p.yaml"), "--set", "train.images=false"])
    assert "belongs to no family that msr is tested with" in shown.stdout + shown.stderr
