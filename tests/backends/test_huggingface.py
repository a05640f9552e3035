"""One forward pass a batch gives what a plain forward pass gives a prompt; greedy text is greedy."""

import functools
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from msr_adapter.backends import make_backend
from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError, UserError
from msr_adapter.generation.request import Backend, Failure, Image, Request
from msr_adapter.llamafactory.model_weights import Weights, is_small, resolve_model, trained_stamp
from msr_adapter.llamafactory.prompt_encoder import collate
from tests.support.tiny_run import model_ref, stages

FAMILIES = ("qwen2_vl", "qwen3_vl_nothink", "llava")
CHOICES = ("Yes", "No")


def image(number: int) -> Image:
    return Image(stages().data / "images" / f"{number:03d}.png", f"digest-{number}")


def requests(**settings: Any) -> list[Request]:
    """Prompts of unlike length, with unlike images, some without."""
    return [
        Request("m", "<image>\nWill the user choose this?", (image(0),), **settings),
        Request("m", "A user's preferences: quiet landscapes. No image here.", **settings),
        Request("m", "Short.", **settings),
        Request("m", "First <image> then " + "words " * 20, (image(5),), **settings),
        Request("m", "<image>", (image(2),), **settings),
    ]


def backend(template: str, batch_size: int) -> HuggingFaceBackend:
    made = make_backend(model_ref(template, batch_size=batch_size))
    assert isinstance(made, HuggingFaceBackend)
    return made


def forward_last(model: HuggingFaceBackend, request: Request, extra: Sequence[int] = ()) -> torch.Tensor:
    """Return all logits after the last token by a plain, unpadded, full forward pass: the reference."""
    loaded = model._load()
    files = [part.path for part in request.images]
    ids = [*loaded.encoder.encode(request.prompt, files), *extra]
    batch = collate(loaded.encoder.collator(loaded.network), [ids], [files])
    with torch.inference_mode():
        return loaded.network(**batch, use_cache=False).logits[0, -1]


@pytest.mark.parametrize("template", FAMILIES)
def test_scores_equal_a_plain_forward_pass(template: str) -> None:
    batched = backend(template, 8)
    asked = requests(choices=CHOICES)
    tokens = batched._load().encoder.answer_tokens(CHOICES)
    for request, answer in zip(asked, batched.complete(asked), strict=True):
        expected = forward_last(batched, request).log_softmax(-1)[list(tokens)]
        assert answer.choice_logprobs == pytest.approx(expected.tolist(), abs=1e-5)
        assert (answer.key, answer.finish_reason, answer.tokens_out) == (request.key, "choice", 0)


@pytest.mark.parametrize("template", FAMILIES)
def test_right_padding_gives_the_same_logits(template: str) -> None:
    """Training pads on the right: the position of padding must not matter."""
    model = backend(template, 8)
    asked = requests(choices=CHOICES)
    loaded = model._load()
    collator = loaded.encoder.collator(loaded.network)
    collator.tokenizer.padding_side = "right"
    files = [[part.path for part in request.images] for request in asked]
    prompts = [loaded.encoder.encode(request.prompt, paths) for request, paths in zip(asked, files, strict=True)]
    with torch.inference_mode():
        logits = loaded.network(**collate(collator, prompts, files), use_cache=False).logits
    tokens = list(loaded.encoder.answer_tokens(CHOICES))
    for row, (ids, answer) in enumerate(zip(prompts, model.complete(asked), strict=True)):
        expected = logits[row, len(ids) - 1].log_softmax(-1)[tokens]
        assert answer.choice_logprobs == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.parametrize("template", FAMILIES)
def test_batched_text_is_greedy_and_equals_one_at_a_time(template: str) -> None:
    together, alone = backend(template, 8), backend(template, 1)
    asked = requests(max_new_tokens=6)
    answers = together.complete(asked)
    assert answers == alone.complete(asked)
    loaded = together._load()
    for request, answer in zip(asked, answers, strict=True):
        made: list[int] = []
        while len(made) < 6 and (not made or made[-1] not in loaded.encoder.stop_ids):
            made.append(int(forward_last(together, request, made).argmax()))
        stopped = made[-1] in loaded.encoder.stop_ids
        kept = made[:-1] if stopped else made
        assert answer.text == loaded.encoder.tokenizer.decode(kept, skip_special_tokens=True).strip()
        assert (answer.finish_reason, answer.tokens_out) == ("stop" if stopped else "length", len(kept))


def test_the_dtype_is_the_configured_one() -> None:
    exact, half = (make_backend(model_ref(dtype=dtype)) for dtype in ("float32", "bfloat16"))
    asked = requests(choices=CHOICES)
    pairs = list(zip(exact.complete(asked), half.complete(asked), strict=True))
    assert isinstance(half, HuggingFaceBackend)
    assert half._load().network.dtype == torch.bfloat16
    assert all(b.choice_logprobs == pytest.approx(a.choice_logprobs, abs=0.5) for a, b in pairs)
    assert any(b.choice_logprobs != a.choice_logprobs for a, b in pairs)


def test_text_stops_at_the_end_of_the_turn() -> None:
    model = backend("qwen2_vl", 8)
    loaded = model._load()
    asked = requests(max_new_tokens=8)
    # Make the token that the first prompt begins with a stop token: it must end the text before it.
    first = int(forward_last(model, asked[0]).argmax())
    loaded.encoder.tokenizer.eos_token_id = first
    answer = model.complete(asked[:1])[0]
    assert (answer.text, answer.finish_reason, answer.tokens_out) == ("", "stop", 0)


def test_mixed_requests_keep_their_order() -> None:
    model = backend("qwen2_vl", 2)
    mixed = [pair for both in zip(requests(choices=CHOICES), requests(max_new_tokens=3), strict=True) for pair in both]
    answers = model.complete(mixed)
    assert [answer.key for answer in answers] == [request.key for request in mixed]
    assert [bool(answer.choice_logprobs) for answer in answers] == [True, False] * 5
    assert model.complete([]) == []


def test_text_after_text_without_images_is_unaffected() -> None:
    """M-RoPE offsets are state that a call with images leaves on the model."""
    model = backend("qwen2_vl", 8)
    asked = requests(max_new_tokens=5)
    texts = [request for request in asked if not request.images]
    before = model.complete(texts)
    model.complete(asked)
    assert model.complete(texts) == before


@pytest.mark.parametrize("template", FAMILIES)
@pytest.mark.parametrize("kind", ["choices", "max_new_tokens"])
def test_logits_do_not_depend_on_the_batch(template: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neighbours of unlike length and with unlike images change no row's logits, in scoring and in writing."""
    model = backend(template, 8)
    network = model._load().network
    asked = requests(**{kind: CHOICES if kind == "choices" else 1})
    model.complete(asked)  # the first prompts are put to the test, which takes passes of its own
    seen: list[torch.Tensor] = []
    forward = network.forward

    def spy(**inputs: Any) -> Any:
        output = forward(**inputs)
        seen.append(output.logits[:, -1])
        return output

    monkeypatch.setattr(network, "forward", spy)
    model.complete(asked)
    together = torch.cat(seen)
    for request in asked:
        alone = forward_last(model, request)
        assert (together - alone).abs().amax(-1).min() < 1e-5


def test_a_pass_is_sorted_by_length_and_reads_one_position(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backend("qwen2_vl", 2)
    network = model._load().network
    model._load().batch_sizer.pass_cost = 1_000
    asked = requests(choices=CHOICES)
    model.complete(asked)
    seen: list[tuple[int, ...]] = []
    forward = network.forward

    def spy(**inputs: Any) -> Any:
        output = forward(**inputs)
        seen.append((*inputs["input_ids"].shape, *output.logits.shape[:2]))
        return output

    monkeypatch.setattr(network, "forward", spy)
    answers = model.complete(asked)
    head = seen[0][1]
    lengths = sorted((answer.tokens_in - head for answer in answers), reverse=True)
    assert seen[0] == (1, head, 1, 1)
    starts = [sum(rows for rows, *_ in seen[1:place]) for place in range(1, len(seen))]
    assert seen[1:] == [
        (end - start, lengths[start], end - start, 1) for start, end in pairwise([*starts, len(lengths)])
    ]
    assert max(rows for rows, *_ in seen) == 2


def test_out_of_memory_halves_the_batch_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backend("qwen2_vl", 8)
    asked = requests(choices=CHOICES)
    expected = model.complete(asked)
    network = model._load().network
    model._load().batch_sizer.pass_cost = 1_000
    forward, sizes = network.forward, []

    def small_gpu(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError
        return forward(**inputs)

    monkeypatch.setattr(network, "forward", small_gpu)
    for got, wanted in zip(model.complete(asked), expected, strict=True):
        assert got.choice_logprobs == pytest.approx(wanted.choice_logprobs, abs=1e-5)
    assert sizes[:2] == [1, 5]
    assert sorted(sizes[2:]) == [1, 2, 2]
    sizes.clear()
    model.complete(asked)
    assert sorted(sizes) == [1, 1, 2, 2], "what was learned is kept"


@pytest.mark.parametrize("streamed", [True, False])
def test_writing_frees_memory_after_the_failed_pass_is_forgotten(
    streamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = backend("qwen2_vl", 8)
    asked = requests(max_new_tokens=3)
    expected = model.complete(asked)
    network, freed = model._load().network, list[object]()
    forward = network.forward

    @functools.wraps(forward)  # `generate` looks at its arguments
    def small_gpu(**inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError
        return forward(**inputs)

    monkeypatch.setattr(network, "forward", small_gpu)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: freed.append(sys.exc_info()[1]))
    if not streamed:
        monkeypatch.setattr(model._load(), "decoder", lambda *_: None)
    assert model.complete(asked) == expected
    assert freed
    assert set(freed) == {None}, "a traceback in hand keeps the tensors of the pass"


def test_a_prompt_that_never_fits_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backend("qwen2_vl", 8)

    def no_gpu(**_: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(model._load().network, "forward", no_gpu)
    with pytest.raises(StageError, match="does not fit"):
        model.complete(requests(choices=CHOICES)[:1])


def test_identity_covers_what_can_change_an_answer_and_loads_nothing(tmp_path: Path) -> None:
    base = model_ref()
    plain = HuggingFaceBackend(base)
    others = [
        base.model_copy(update=change)
        for change in (
            {"default_system": ""}, {"default_system": "x"}, {"dtype": "bfloat16"},
            {"image_max_pixels": 784}, {"image_min_pixels": 800},
            {"path": model_ref("llava").path, "template": "llava"},
        )
    ]  # fmt: skip
    a, b = tmp_path / "a", tmp_path / "b"
    for number, folder in enumerate((a, b)):
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(bytes([number]))
        (folder / "adapter_config.json").write_text("{}")
    backends: list[Backend] = [plain, *map(HuggingFaceBackend, others)]
    backends += [HuggingFaceBackend(base, Weights(adapters=chain)) for chain in ((a,), (b,), (a, b), (b, a))]
    assert len({each.identity for each in backends}) == len(backends)
    assert HuggingFaceBackend(base.model_copy(update={"batch_size": 3})).identity == plain.identity
    assert plain._loaded is None


def test_a_trained_folder_is_its_weights_not_its_logs(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(b"w")
    config = tmp_path / "adapter_config.json"
    config.write_text('{"target_modules": ["q", "k"], "base_model_name_or_path": "here"}')
    before = trained_stamp(tmp_path)
    (tmp_path / "trainer_log.jsonl").write_text("later")
    config.write_text('{"target_modules": ["k", "q"], "base_model_name_or_path": "there"}')
    assert trained_stamp(tmp_path) == before
    (tmp_path / "adapter_model.safetensors").write_bytes(b"v")
    assert trained_stamp(tmp_path) != before


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained weights"):
        trained_stamp(tmp_path)


def test_model_paths(tmp_path: Path) -> None:
    assert resolve_model("Org/Name") == "Org/Name"
    assert resolve_model(str(tmp_path)) == str(tmp_path.resolve())
    with pytest.raises(UserError, match="is not a folder"):
        resolve_model(str(tmp_path / "absent"))
    assert is_small(model_ref())
    assert not is_small(ModelConfig(path="Org/Name"))


# LLaMA-Factory leaves a file open that Pillow cannot read.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_image_fails_its_request_alone(tmp_path: Path) -> None:
    whole = image(1)
    paths = [tmp_path / name for name in ("cut.png", "text.png", "absent.png")]
    paths[0].write_bytes(whole.path.read_bytes()[:-40])
    paths[1].write_text("no image")
    model = backend("qwen2_vl", 4)
    asked = [Request(model.identity, "Look: <image>", (shown,), max_new_tokens=2)
             for shown in (whole, *(Image(path, path.name) for path in paths), whole)]  # fmt: skip
    answers = model.complete(asked)
    failures = [answer.reason for answer in answers if isinstance(answer, Failure)]
    assert [isinstance(answer, Failure) for answer in answers] == [False, True, True, True, False]
    assert all(path.name in reason for path, reason in zip(paths, failures, strict=True))
    assert answers[0] == answers[4]
