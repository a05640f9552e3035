"""The prompt scored is, token for token, the prompt that LLaMA-Factory trains."""

import itertools
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msr_adapter.candidate_rows import ANSWERS
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError, UserError
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION
from msr_adapter.llamafactory.prompt_encoder import Encoder, collate
from msr_adapter.llamafactory.training_yaml import training_config
from msr_adapter.prompts import Prompts, neutralise
from tests.support.tiny_models import tiny_model
from tests.support.tiny_run import HOSTILE, model_ref, stages, train_config
from tests.support.training_rows import training_rows

FAMILIES = ("qwen2_vl", "llava")


@pytest.fixture(scope="module", params=FAMILIES)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return Encoder(model_ref(request.param))


def tokenised_by_llamafactory(template: str, out: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Return input ids and labels of the written data set as LLaMA-Factory's own loader and processor make them."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    made = stages()
    config = training_config(train_config(template), made.data, made.dataset, out, 0)
    model_args, data_args, training_args, _, _ = get_train_args(config)
    module = load_tokenizer(model_args)
    shared = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    dataset = get_dataset(shared, model_args, data_args, training_args, stage="sft", **module)["train_dataset"]
    return dataset["input_ids"], dataset["labels"]


@pytest.mark.parametrize("template", FAMILIES)
def test_scored_tokens_are_trained_tokens(template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    trained, labels = tokenised_by_llamafactory(template, tmp_path / "out")
    made, encoder = stages(), Encoder(model_ref(template))
    rows = list(training_rows(made.dataset / TRAIN))
    assert len(trained) == len(rows) == 32
    assert {bool(row.images) for row in rows} == {True, False}
    yes_no = dict(zip(ANSWERS, encoder.answer_tokens(ANSWERS), strict=True))
    for row, ids, targets in zip(rows, trained, labels, strict=True):
        images = [made.data / image for image in row.images]
        prompt = encoder.encode(row.prompt, images)
        assert ids[: len(prompt)] == prompt
        assert targets[: len(prompt)] == [-100] * len(prompt)
        assert targets[len(prompt)] == yes_no[row.answer]
        assert len(ids) == encoder.row_length(row.prompt, images, row.answer)


def test_answers_are_resolved_through_the_template() -> None:
    qwen, llava = Encoder(model_ref("qwen2_vl")), Encoder(model_ref("llava"))
    # The small byte-level vocabulary has no whole word: the first pieces differ, and that is enough.
    assert qwen.tokenizer.convert_ids_to_tokens(list(qwen.answer_tokens(ANSWERS))) == ["Y", "No"]
    # A SentencePiece model says ▁Yes; `convert_tokens_to_ids("Yes")` would score a token that is never trained.
    assert llava.tokenizer.convert_ids_to_tokens(list(llava.answer_tokens(ANSWERS))) == ["▁Yes", "▁No"]


def test_what_answers_begin_with_in_common_belongs_to_the_question(encoder: Encoder) -> None:
    plain = encoder.encode("Well?")
    assert encoder.encode("Well?", (), [[answer] for answer in ANSWERS]) == plain
    answers = ("Yes no", "Yes yes")
    longer = encoder.encode("Well?", (), [[answer] for answer in answers])
    shared = longer[len(plain) :]
    assert longer[: len(plain)] == plain
    assert encoder.tokenizer.decode(shared).strip() == "Yes"
    for answer, token in zip(answers, encoder.answer_tokens(answers), strict=True):
        assert encoder._pair("Well?", (), answer)[1][: len(shared) + 1] == [*shared, token]


@pytest.mark.parametrize("choices", [("Yes", "Yes"), ("Yes", "Yes", "No"), ("Yes", "Yes no", "No")])
def test_answers_that_no_one_position_tells_apart_are_refused(encoder: Encoder, choices: tuple[str, ...]) -> None:
    with pytest.raises(StageError, match="begin with the same token"):
        encoder.answer_tokens(choices)


def test_a_remembered_image_expands_as_the_plugin_would(encoder: Encoder) -> None:
    made = stages()
    for row in itertools.chain(training_rows(made.dataset / TRAIN), training_rows(made.dataset / VALIDATION)):
        paths = [str(made.data / image) for image in row.images]
        assert encoder._expand(row.prompt, paths) == encoder._plugin_expand(row.prompt, paths)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(title=st.text(max_size=80) | st.sampled_from(HOSTILE), user_summary=st.text(max_size=80))
@pytest.mark.parametrize("template", FAMILIES)
def test_no_title_can_act(template: str, title: str, user_summary: str) -> None:
    encoder = _encoder(template)
    made = stages()
    image = made.data / "images" / "000.png"
    prompt = Prompts().recommend(user_summary=neutralise(user_summary), title=neutralise(title), image=True)
    special = set(encoder.tokenizer.all_special_ids)
    plain = Prompts().recommend(user_summary="x", title="y", image=True)
    ids, plain_ids = encoder.encode(prompt, [image]), encoder.encode(plain, [image])
    unknown = {encoder.tokenizer.unk_token_id}
    controls = [token for token in ids if token in special - unknown]
    assert controls == [token for token in plain_ids if token in special - unknown]


_ENCODERS: dict[str, Encoder] = {}


def _encoder(template: str) -> Encoder:
    return _ENCODERS.setdefault(template, Encoder(model_ref(template)))


def test_system_texts_of_two_encoders_do_not_mix() -> None:
    plain = Encoder(model_ref())
    before = plain.encode("hi")
    bare, own = Encoder(model_ref(default_system="")), Encoder(model_ref(default_system="Be brief."))
    assert plain.encode("hi") == before == Encoder(model_ref()).encode("hi")
    assert "You are a helpful assistant." in plain.tokenizer.decode(before)
    assert "Be brief." in own.tokenizer.decode(own.encode("hi"))
    assert bare.tokenizer.decode(bare.encode("hi")) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def test_pixel_limits_reach_the_image_processor() -> None:
    image = [stages().data / "images" / "002.png"]
    small, large = Encoder(model_ref(image_max_pixels=784)), Encoder(model_ref())
    assert len(small.encode("<image>", image)) < len(large.encode("<image>", image))


def test_a_batch_pads_on_the_left_and_drops_the_dummy_image() -> None:
    encoder = Encoder(model_ref())
    collator = encoder.collator(encoder.load_model())
    prompts = [encoder.encode("hi"), encoder.encode("hello there, again and again")]
    batch = collate(collator, prompts, [(), ()])
    assert set(batch) == {"input_ids", "attention_mask", "position_ids"}
    assert batch["input_ids"].shape == (2, len(prompts[1]))
    assert batch["input_ids"][0, -len(prompts[0]) :].tolist() == prompts[0]
    assert batch["attention_mask"].sum(1).tolist() == [len(ids) for ids in prompts]
    assert encoder.tokenizer.padding_side == "right"


def test_reasoning_templates_are_refused_with_the_plain_one_named() -> None:
    with pytest.raises(UserError, match="qwen3_vl_nothink"):
        Encoder(ModelConfig(path=str(tiny_model("qwen3-vl")), template="qwen3_vl"))


def nameless(tmp_path: Path) -> Path:
    """Return a Qwen2-VL under another architecture's name: of no family that msr knows."""
    folder = shutil.copytree(tiny_model("qwen2_vl"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "qwen2_vl_of_ours"}))
    return folder


def test_unknown_template_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean qwen2_vl"):
        Encoder(ModelConfig(path=str(nameless(tmp_path)), template="qwen2vl"))


def test_incomplete_model_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises((StageError, UserError), match=r"[Tt]okenizer"):
        Encoder(ModelConfig(path=str(tmp_path), template="qwen2_vl"))
