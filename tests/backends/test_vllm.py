"""The vLLM back end, with a module of vLLM's signatures that answers through transformers; vLLM is not needed."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from msr_adapter.backends import make_backend
from msr_adapter.backends.vllm import adapters, installed
from msr_adapter.backends.vllm.backend import VllmBackend, make_engine
from msr_adapter.backends.vllm.engine import EngineSetup, EngineShare, engine_arguments
from msr_adapter.backends.vllm.trial import PROMPTS, TOLERANCE
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import ExecutionConfig, ModelConfig
from msr_adapter.distributed import engine_share, open_backend
from msr_adapter.errors import StageError, UserError
from msr_adapter.generation.request import Answer, Completion, EngineLostError, Failure, Image, Request, engine_facts
from msr_adapter.llamafactory.model_weights import BASE, Weights, resolve_model
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.pipeline.engine_checks import engine_notes
from tests.score.test_likelihood_ratios import asking, ratios, run, upstream
from tests.support.fake_vllm import Faults, install
from tests.support.scripted_pipeline import scripted
from tests.support.tiny_run import model_ref, scratch, stages

CHOICES = ("Yes", "No")


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Faults:
    return install(monkeypatch)


def image(number: int) -> Image:
    return Image(stages().data / "images" / f"{number:03d}.png", f"digest-{number}")


def requests(model: str = "m", **settings: Any) -> list[Request]:
    return [
        Request(model, "<image>\nWill the user choose this?", (image(0),), **settings),
        Request(model, "A user's preferences: quiet landscapes. No image here.", **settings),
        Request(model, "First <image> then " + "words " * 20, (image(5),), **settings),
        Request(model, "<image> again", (image(0),), **settings),
        Request(model, "Short.", **settings),
    ]


def engine(**settings: Any) -> VllmBackend:
    made = make_backend(model_ref(backend="vllm", **settings))
    assert isinstance(made, VllmBackend)
    return made


@functools.cache
def lora(model: str | None = None) -> Path:
    """An adapter of the tiny model that changes its answers; nobody trained it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    network = AutoModelForImageTextToText.from_pretrained(resolve_model(model or model_ref().path))
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    torch.manual_seed(0)
    get_peft_model(network, config).save_pretrained(folder := scratch() / "adapter")
    return folder


def completions(answers: Sequence[Answer]) -> list[Completion]:
    assert all(isinstance(answer, Completion) for answer in answers)
    return [answer for answer in answers if isinstance(answer, Completion)]


def test_log_odds_and_texts_are_those_of_transformers(vllm: Faults) -> None:
    ours, theirs = engine(), make_backend(model_ref())
    scored = requests(choices=CHOICES, also=(("yes",), ()))
    for one, other in zip(completions(ours.complete(scored)), completions(theirs.complete(scored)), strict=True):
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-4)
        assert (one.key, one.tokens_in, one.finish_reason) == (other.key, other.tokens_in, other.finish_reason)
    written = requests(max_new_tokens=6)
    assert ours.complete(written) == theirs.complete(written)
    assert len(vllm.engines) == 1


TITLE = "Quiet Meadows: a film 🎬 of several words"


@pytest.mark.parametrize("whole", ["answer", "turn"])
def test_likelihoods_of_whole_texts_are_those_of_transformers(whole: str, vllm: Faults) -> None:
    ours, theirs = engine(), make_backend(model_ref())
    asked = [*requests(choices=(TITLE,), whole=whole), *requests(choices=("A",), whole=whole)]
    for one, other in zip(completions(ours.complete(asked)), completions(theirs.complete(asked)), strict=True):
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-5 * other.tokens_out)
        assert (one.key, one.tokens_in, one.tokens_out, one.finish_reason) == (
            other.key, other.tokens_in, other.tokens_out, other.finish_reason,
        )  # fmt: skip
    encoder = Encoder(model_ref(), expand_images=False)
    text = encoder.scored_ids(TITLE, end=whole == "turn")
    [last] = [one for one in vllm.asked if one["prompt_token_ids"] == [*encoder.encode("Short."), *text]][-1:]
    assert (last["params"].prompt_logprobs, last["params"].max_tokens, last["params"].logprobs) == (0, 1, None)
    assert ours.stats.rows == len(asked)
    assert ours.stats.tokens_flat == sum(one.tokens_in + one.tokens_out for one in completions(theirs.complete(asked)))


def test_an_engine_is_tried_with_the_images_of_a_question_that_a_text_answers(vllm: Faults, tmp_path: Path) -> None:
    train, made = asking("user-text"), upstream()
    ours = VllmBackend(train.model.model_copy(update={"backend": "vllm"}))
    found = {name: run(train, made, tmp_path / name / "score", backend) and ratios(tmp_path / name / "score")
             for name, backend in (("vllm", ours), ("huggingface", make_backend(train.model)))}  # fmt: skip
    for one, other in zip(found["vllm"], found["huggingface"], strict=True):
        for name in ("given", "alone"):
            assert one[name] == pytest.approx(other[name], abs=1e-5 * other["tokens"])
    trial = ours.stats.trial
    assert trial is not None
    assert trial.prompts > PROMPTS, "prompts with an image, and prompts without"


def test_an_engine_that_finds_texts_likelier_is_refused(vllm: Faults) -> None:
    vllm.shift = 2 * TOLERANCE["float32"]
    with pytest.raises(StageError) as refused:
        engine().complete(requests(choices=(TITLE,), whole="answer"))
    assert "log-probabilities of single tokens of the answers to 5 prompts differ by up to 0.002" in str(refused.value)
    vllm.shift = 2e-5
    trusted = engine()
    trusted.complete(requests(choices=(TITLE,), whole="answer"))
    assert trusted.stats.trial is not None
    assert 1e-5 < trusted.stats.trial.difference < 1e-4


def test_log_probabilities_of_other_tokens_are_refused(vllm: Faults) -> None:
    running, asked = engine(), requests(choices=(TITLE,), whole="answer")
    vllm.forgets_prompts = True
    with pytest.raises(StageError, match="other tokens than those asked for: of 0 in a prompt of"):
        engine().complete(asked)
    vllm.forgets_prompts = False
    running.complete(asked)
    vllm.other_prompt = True
    with pytest.raises(StageError, match="other tokens than those asked for"):
        running.complete(asked[:1])
    vllm.other_prompt = False
    assert running.complete(asked) == running.complete(asked), "what was under way is gone"


def test_images_are_shrunk_as_in_training_and_known_by_their_digests(vllm: Faults) -> None:
    small = {"image_max_pixels": 56 * 56}
    engine(**small).complete(requests(choices=CHOICES))
    shown = [asked for asked in vllm.asked if "multi_modal_data" in asked]
    assert {uuid for asked in shown for uuid in asked["multi_modal_uuids"]["image"]} == {"digest-0", "digest-5"}
    assert all(one.width * one.height <= 56 * 56 for asked in shown for one in asked["multi_modal_data"]["image"])
    assert vllm.engines[0]["limit_mm_per_prompt"] == {"image": 1, "video": 0}


def test_prompts_of_more_images_than_the_first_ones_get_an_engine_of_their_own(vllm: Faults) -> None:
    made, plain = engine(), make_backend(model_ref())
    two = [Request("m", "<image> and <image>: which is quiet?", (image(0), image(5)), choices=CHOICES)]
    for asked in (requests(choices=CHOICES), two, requests(choices=CHOICES)):
        for one, other in zip(completions(made.complete(asked)), completions(plain.complete(asked)), strict=True):
            assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-4)
    # Started twice: the second engine takes both.
    assert [one["limit_mm_per_prompt"]["image"] for one in vllm.engines] == [1, 2]


def test_the_next_request_of_a_chain_enters_beside_what_is_under_way(vllm: Faults) -> None:
    long, short = Request("m", "A long answer.", max_new_tokens=8), Request("m", "A short one.", max_new_tokens=1)
    more = Request("m", "What follows it.", max_new_tokens=2)
    answers = engine().complete([long, short], lambda answer: [more] if answer.key == short.key else [])
    assert [answer.key for answer in answers] == [long.key, short.key, more.key]
    under_way = vllm.together[vllm.together.index(2) :]  # after the trial
    assert under_way[:2] == [2, 2], "the chain's second request waited for the long answer"


def test_a_request_that_cannot_be_asked_fails_alone(vllm: Faults, tmp_path: Path) -> None:
    (broken := tmp_path / "broken.png").write_bytes(b"no image")
    unreadable = Request("m", "<image>", (Image(broken, "b"),), choices=CHOICES)
    too_long = Request("m", "words " * 300, choices=CHOICES)
    vllm.longest = 200
    asked = [*requests(choices=CHOICES), unreadable, too_long]
    with pytest.raises(StageError, match="does not answer a prompt that transformers answers"):
        engine().complete([too_long])
    running = engine()
    running.complete(requests(choices=CHOICES))
    answers = running.complete(asked)
    completions(answers[:-2])
    failed = [answer.reason for answer in answers[-2:] if isinstance(answer, Failure)]
    assert "broken.png cannot be read" in failed[0]
    assert "at most 200 are allowed" in failed[1]
    assert isinstance(engine().complete([unreadable])[0], Failure), "no prompt to try an engine with"


def test_an_engine_that_answers_otherwise_is_refused(vllm: Faults) -> None:
    vllm.shift = 2 * TOLERANCE["float32"]
    with pytest.raises(StageError) as refused:
        engine().complete(requests(choices=CHOICES))
    assert "differ by up to 0.002 (0.001 is allowed in float32)" in str(refused.value)
    assert "<image>" in str(refused.value) or "Short." in str(refused.value), "the prompt is named"
    vllm.shift = 2e-5
    trusted = engine()
    trusted.complete(requests(choices=CHOICES))
    facts = engine_facts(trusted)["engine"]
    assert facts["name"] == "vllm 0.23.0"
    trial = facts["trial"]
    assert isinstance(trial, dict)
    assert trial["prompts"] == len(requests()) <= 2 * PROMPTS
    assert 1e-5 < trial["difference"] < 1e-4


def test_texts_are_tried_by_their_likeliest_first_tokens(vllm: Faults) -> None:
    vllm.shift = 1.0
    with pytest.raises(StageError, match="answers differently from transformers"):
        engine().complete(requests(max_new_tokens=4))


def test_another_prompt_than_the_trained_one_is_refused(vllm: Faults) -> None:
    vllm.other_prompt = True
    with pytest.raises(StageError, match="reads a different prompt from training"):
        engine().complete(requests(choices=CHOICES))
    vllm.other_prompt = False
    running = engine()
    running.complete(requests(choices=CHOICES))
    vllm.other_prompt = True
    with pytest.raises(StageError, match=r"with image 000\.png"):  # also what the trial did not see
        running.complete(requests(choices=CHOICES)[:1])


def test_an_engine_that_dies_takes_its_process_with_it(vllm: Faults) -> None:
    running = engine()
    running.complete(requests(choices=CHOICES))
    vllm.deaths = 1
    with pytest.raises(EngineLostError, match="the vLLM engine died: EngineDeadError"):
        running.complete(requests(choices=CHOICES))
    vllm.deaths = 1
    with pytest.raises(StageError, match="on the first prompts") as refused:
        engine().complete(requests(choices=CHOICES))
    assert not isinstance(refused.value, EngineLostError), "others would die over it too"
    vllm.load_error = "no kernel image for this device"
    with pytest.raises(StageError, match=r"vLLM cannot load .*no kernel image"):
        engine().complete(requests(choices=CHOICES))


def test_answers_of_engines_and_versions_are_kept_apart(vllm: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, first = make_backend(model_ref()).identity, engine().identity
    assert len({exact, first, engine(dtype="bfloat16").identity}) == 3
    assert engine(batch_size="auto").identity == first
    monkeypatch.setattr(installed, "installed_version", lambda: "0.24.0")
    assert engine().identity != first


def test_without_vllm_the_pipeline_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "installed_version", lambda: "")
    with pytest.raises(UserError, match="vllm, which is not installed"):
        _ = engine().identity
    with pytest.raises(ValidationError, match="quantization needs backend huggingface"):
        model_ref(backend="vllm", quantization=4)


def test_one_adapter_is_applied_by_vllm_and_others_are_merged_once(
    vllm: Faults, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MSR_MERGED_MODELS", str(tmp_path / "merged"))
    adapter = lora()
    assert "only on a GPU" in adapters.why_merged((adapter,))
    monkeypatch.setattr(adapters, "sees_gpu", lambda: True)
    applied = adapters.engine_weights(model_ref(), Weights(adapters=(adapter,)), "i" * 64)
    assert applied.lora == adapter
    rank = json.loads((adapter / "adapter_config.json").read_text())["r"]
    assert applied.lora_rank >= rank
    assert not (tmp_path / "merged").exists()
    arguments = engine_arguments(model_ref(), EngineSetup(applied, EngineShare(), (), 0))
    assert arguments["enable_lora"]
    assert arguments["max_lora_rank"] == applied.lora_rank

    monkeypatch.setattr(adapters, "_SEEING", ("self_attn",))
    trained, asked = Weights(adapters=(adapter,)), requests(choices=CHOICES)
    made = [VllmBackend(model_ref(), trained) for _ in range(2)]
    answers = [completions(one.complete(asked)) for one in made]
    [folder] = (tmp_path / "merged").iterdir()
    assert [one["model"] for one in vllm.engines] == [str(folder)] * 2
    exact = completions(make_backend(model_ref(), trained).complete(asked))
    for one, again, other in zip(*answers, exact, strict=True):
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-4)
        assert again.choice_logprobs == one.choice_logprobs
    assert "merged into the model, because it changes vision layers" in str(made[0].facts)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"use_dora": True}, "does not know use_dora"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": 1_024}, "no room for rank 1024"),
        ({"rank_pattern": {"q_proj": 4}}, "different ranks"),
    ],
)
def test_what_vllm_cannot_apply_is_merged(settings: dict[str, Any], why: str, tmp_path: Path) -> None:
    source = lora()
    known = json.loads((source / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**known, **settings}))
    (tmp_path / "adapter_model.safetensors").write_bytes((source / "adapter_model.safetensors").read_bytes())
    assert why in adapters.why_merged((tmp_path,))


def test_layers_that_see_are_merged(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    source = lora()
    (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    save_file({"base_model.model.visual.blocks.0.attn.qkv.lora_A.weight": np.zeros((2, 2))},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    assert "vision layers" in adapters.why_merged((tmp_path,))


@pytest.mark.parametrize(
    ("version", "gpu", "name", "because"),
    [
        ("0.23.0", True, "vllm", "vLLM 0.23.0 is installed and a GPU is seen"),
        ("0.23.0", False, "huggingface", "no GPU is seen"),
        ("", True, "huggingface", "vLLM is not installed"),
    ],
)
def test_auto_takes_vllm_where_it_is_installed_and_a_gpu_is_seen(
    version: str, gpu: bool, name: str, because: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installed, "installed_version", lambda: version)
    monkeypatch.setattr(installed, "sees_gpu", lambda: gpu)
    chosen = installed.choose(model_ref(backend="auto"))
    assert (chosen.model.backend, chosen.because) == (name, because)
    assert installed.choose(model_ref(backend="vllm")).because == ""
    told: list[str] = []
    with open_backend(ExecutionConfig(), model_ref(backend="auto"), tmp_path, told.append) as backend:
        assert told == [f"  backend auto: {name} ({because})"]
        assert backend.facts["chosen"] == f"auto: {because}"
        assert backend.identity == make_backend(model_ref(backend=name)).identity
    assert make_backend(model_ref(backend="auto")).identity == make_backend(model_ref(backend=name)).identity


@pytest.mark.parametrize(("version", "gpu"), [("0.23.0", True), ("0.23.0", False), ("", True)])
def test_check_names_the_engine_that_auto_would_choose(
    version: str, gpu: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installed, "installed_version", lambda: version)
    monkeypatch.setattr(installed, "sees_gpu", lambda: gpu)
    (tmp_path / "p.yaml").write_text(scripted().replace("train: {model: *model}", "train: {model: {path: tiny}}"))
    rule = installed.automatic(model_ref())
    told = f"auto is {rule.model.backend} on this machine ({rule.because})"
    for backend in ("auto", "huggingface", "vllm"):
        sets = [f"{part}.model={{path: tiny, backend: {backend}}}" for part in ("summarize.items", "train")]
        named = rule.model.backend if backend == "auto" else backend
        found = engine_notes(load_pipeline(str(tmp_path / "p.yaml"), sets, tmp_path / "run"))
        # Of the scripted summaries of users nothing is said: no engine is asked for them.
        assert found == [f"engine of summarize.items.model, train.model: {named}; {told}"]


def test_bits_are_left_to_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "installed_version", lambda: "0.23.0")
    monkeypatch.setattr(installed, "sees_gpu", lambda: True)
    assert installed.choose(model_ref(backend="auto", quantization=4)).model.backend == "huggingface"


@pytest.mark.parametrize(
    ("each", "share"),
    [(None, EngineShare(1, 1.0)), (1, EngineShare(1, 1.0)), (4, EngineShare(4, 1.0)), (0.5, EngineShare(1, 0.5))],
)
def test_an_engine_has_the_gpus_of_its_worker(
    each: float | None, share: EngineShare, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine_share(ExecutionConfig(gpus_per_worker=each)) == share
    monkeypatch.setattr("msr_adapter.backends.vllm.engine.sees_gpu", lambda: True)
    setup = EngineSetup(adapters.EngineWeights("m"), share, (), 1)
    arguments = engine_arguments(ModelConfig(path="m", batch_size=16), setup)
    assert arguments["tensor_parallel_size"] == share.gpus
    assert arguments["gpu_memory_utilization"] == pytest.approx(0.9 * share.memory)
    assert arguments["max_num_seqs"] == 16
    assert "enforce_eager" not in arguments


def test_a_reward_model_is_left_to_transformers(vllm: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    from msr_adapter.backends.reward_model import RewardBackend

    monkeypatch.setattr(Weights, "reward", property(lambda _: True))
    assert isinstance(make_engine(model_ref(backend="vllm"), BASE, EngineShare()), RewardBackend)
