"""Logits at the trained answers alone: the same loss and gradients, for every tested family, or the model as it was."""

import types
from typing import Any

import pytest
import torch

from msr_adapter.llamafactory.answer_logits import OFF, ON, agree, fewer_positions, keep_answers
from tests.support.tiny_models import BUILDERS, tiny_model

_IGNORED = -100


def _model(name: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    folder = tiny_model(name)
    vision = hasattr(AutoConfig.from_pretrained(folder), "vision_config")
    kind = AutoModelForImageTextToText if vision else AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32).train()


def _batch(words: int, *, answers: list[list[int]]) -> dict[str, Any]:
    """Return rows of 24 tokens, padded at the right, with labels at the positions of ``answers``."""
    ids = torch.randint(5, min(words, 60), (len(answers), 24), generator=torch.Generator().manual_seed(3))
    labels = torch.full_like(ids, _IGNORED)
    mask = torch.ones_like(ids)
    for row, places in enumerate(answers):
        labels[row, places] = ids[row, places]
        mask[row, max(places) + 1 :] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _loss_and_gradients(model: Any, batch: dict[str, Any]) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    torch.manual_seed(1)
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("name", BUILDERS)
def test_loss_and_gradients_are_those_of_all_logits(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = _model(name)
    text = model.config.get_text_config()
    batch = _batch(text.vocab_size, answers=[[20, 21], [17, 18], [22, 23]])
    if "gemma3" in name:
        batch["token_type_ids"] = torch.zeros_like(batch["input_ids"])
    loss, gradients = _loss_and_gradients(model, batch)
    keep_answers(model)
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    again, others = _loss_and_gradients(model, batch)
    assert again == pytest.approx(loss, abs=1e-5)
    assert others.keys() == gradients.keys()
    for key, gradient in gradients.items():
        torch.testing.assert_close(others[key], gradient, rtol=1e-4, atol=1e-6, msg=key)
    if name == "gemma3":  # it reads the mask by the places of all logits: seen on the first batch, and left alone
        assert OFF in capsys.readouterr().out
        assert seen == [24, 7, 24]
        return
    assert ON in capsys.readouterr().out
    assert seen == [
        24,
        7,
        7,
    ]  # the first batch both ways, then narrowed: 3 rows, each with other positions, and one over


def test_beneath_adapters_and_with_dropout(capsys: pytest.CaptureFixture[str]) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(
        _model("llama3"), LoraConfig(r=2, lora_dropout=0.5, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    model.train()
    batch = _batch(60, answers=[[20], [12]])
    loss, gradients = _loss_and_gradients(model, batch)
    keep_answers(model)
    again, others = _loss_and_gradients(model, batch)  # the comparison of the first batch uses no random number up
    assert again == pytest.approx(loss, abs=1e-5)
    assert gradients.keys() == others.keys()
    assert ON in capsys.readouterr().out


def test_several_texts_of_a_step_are_summed_alike() -> None:
    # The trainer divides by the labels of all batches of a step, not by those of one.
    model = _model("llama3")
    batch = _batch(60, answers=[[20, 21], [12]]) | {"num_items_in_batch": torch.tensor(11)}
    loss, _ = _loss_and_gradients(model, batch)
    keep_answers(model, say=False)
    assert _loss_and_gradients(model, batch)[0] == pytest.approx(loss, abs=1e-6)


def test_evaluation_and_rows_that_are_all_answer_are_left_alone() -> None:
    model = _model("llama3")
    keep_answers(model, say=False)
    batch = _batch(60, answers=[[20], [12]])
    with torch.no_grad():
        assert model.eval()(**batch).logits.shape[1] == 24
    model.train()
    everything = batch | {"labels": batch["input_ids"]}
    assert model(**everything).logits.shape[1] == 24
    assert fewer_positions(everything) is None
    assert fewer_positions({"input_ids": batch["input_ids"]}) is None
    assert fewer_positions(batch | {"labels": torch.full_like(batch["labels"], _IGNORED)}) is None
    assert fewer_positions(batch | {"logits_to_keep": 3}) is None


def test_a_model_that_reads_positions_otherwise_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    model = _model("llama3")
    plain = model.forward

    def shifts(self: Any, *args: Any, logits_to_keep: Any = 0, **kwargs: Any) -> Any:
        wrong = logits_to_keep if isinstance(logits_to_keep, int) else logits_to_keep - 1
        return plain(*args, logits_to_keep=wrong, **kwargs)

    model.forward = types.MethodType(shifts, model)
    batch = _batch(60, answers=[[20, 21], [12, 13]])
    loss, _ = _loss_and_gradients(model, batch)
    keep_answers(model)
    assert _loss_and_gradients(model, batch)[0] == pytest.approx(loss, abs=1e-6)
    assert _loss_and_gradients(model, batch)[0] == pytest.approx(loss, abs=1e-6)
    out = capsys.readouterr().out
    assert OFF in out
    assert "instead of" in out


def test_a_model_without_the_argument_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Old(torch.nn.Module):
        def forward(self, labels: Any = None) -> Any:
            raise AssertionError(labels)

    keep_answers(Old())
    assert "Old cannot be told which positions" in capsys.readouterr().out


def test_what_agrees() -> None:
    assert agree(2.0, 2.0001)
    assert not agree(2.0, 2.001)
    assert agree(2.0, 2.005, coarse=True)
    assert not agree(float("nan"), float("nan"))
