"""Real trainings by every objective and method: what they change, what they are compared with, what is then scored."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from objectives import data_for, logits, signs, train_here
from tiny_run import model_ref, train_config, trained

from msr_adapter.llamafactory.encode import Encoder, collate
from msr_adapter.llamafactory.weights import Weights, trained_weights
from msr_adapter.prompts import Prompts
from msr_adapter.rows import CandidateRows


# PEFT warns of a second adapter, although the first is merged and gone.
@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_dpo_after_sft_learns_from_the_sft_model_and_all_of_it_is_scored() -> None:
    sft = trained("lora").out
    config = train_config(objective="dpo", start=sft.parent, max_steps=8, batch_size=8)
    done = train_here(config)
    log = [json.loads(line) for line in (done.out / "model" / "trainer_log.jsonl").read_text().splitlines()]
    # Before the first step the model is its own reference: the loss of a model on top of the base's would not be ln 2.
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert done.summary["last_loss"] < math.log(2)
    chain = trained_weights(done.out)
    assert chain == Weights(adapters=(sft / "model", done.out / "model"))
    before, after = (logits(config.model, weights) for weights in (trained_weights(sft), chain))
    assert (signs() * (after - before)).mean() > 0.5  # the right answers' odds rose
    alone = logits(config.model, Weights(adapters=(done.out / "model",)))
    assert np.abs(alone - after).max() > 0.1  # on the base, the same adapter is another model
    np.testing.assert_allclose(_merged_by_peft(chain), after, atol=2e-3)


def _merged_by_peft(weights: Weights) -> list[float]:
    """Return the same odds from transformers and PEFT alone, one prompt at a time."""
    import torch
    from peft import PeftModel
    from transformers import Qwen2VLForConditionalGeneration

    model, encoder = model_ref(), Encoder(model_ref())
    network = Qwen2VLForConditionalGeneration.from_pretrained(model.path)
    for folder in weights.adapters:
        network = PeftModel.from_pretrained(network, folder).merge_and_unload()
    collator, tokens = encoder.collator(network), list(encoder.answer_tokens(("Yes", "No")))
    made, found = data_for("sft"), []
    for row in CandidateRows(made.data, made.users, Prompts(), "train", images=True):
        images = [row.image.path] if row.image else []
        with torch.inference_mode():
            batch = collate(collator, [encoder.encode(row.prompt, images)], [images])
            yes, no = network.eval()(**batch).logits[0, -1, tokens].tolist()
        found.append(yes - no)
    return found


def test_kto_on_llava_moves_the_right_answers_up() -> None:
    config = train_config("llava", objective="kto", max_steps=8, batch_size=16)
    done = train_here(config)
    assert (done.out / "model" / "adapter_model.safetensors").stat().st_size > 0
    assert done.summary["rows"] == 88  # two of each candidate
    before, after = logits(config.model), logits(config.model, trained_weights(done.out))
    assert (signs() * (after - before)).mean() > 0.1


def weights_of(folder: Path) -> dict[str, "np.ndarray"]:
    from safetensors.numpy import load_file

    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}
