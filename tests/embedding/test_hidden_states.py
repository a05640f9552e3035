"""The run's own model as an embedder: what the mean is of, images, batches."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from msr_adapter.backends.loaded_model import LoadedModel
from msr_adapter.backends.prefix_cache.batch_sizer import BatchSizer
from msr_adapter.embedding.hidden_states import HiddenStatesBackend
from msr_adapter.embedding.vector_text import to_vector
from msr_adapter.files import file_digest
from msr_adapter.generation import Completion, Failure, Image, Request
from msr_adapter.llamafactory.model_weights import BASE
from tests.support.tiny_run import model_ref


def vectors(backend: HiddenStatesBackend, requests: list[Request]) -> list[np.ndarray]:
    answers = backend.complete(requests)
    assert all(isinstance(answer, Completion) for answer in answers)
    return [to_vector(answer.text) for answer in answers if isinstance(answer, Completion)]


def test_a_vector_is_the_mean_over_the_tokens_between_those_of_the_template(tmp_path: Path) -> None:
    import torch

    model = model_ref()
    text = "Blue Harbour"
    (found,) = vectors(HiddenStatesBackend(model), [Request("x", text)])
    loaded = LoadedModel(model, BASE, BatchSizer(4))
    ids = loaded.encoder.encode(text)
    own = loaded.encoder.tokenizer.encode(text, add_special_tokens=False)
    before, after = loaded.encoder.frame
    assert ids[before : len(ids) - after] == own
    with torch.inference_mode():
        made = loaded.network(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    mean = made.hidden_states[-1][0, before : len(ids) - after].mean(0)
    assert found == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)
    assert np.linalg.norm(found) == pytest.approx(1)


def test_the_image_counts_and_neighbours_in_a_batch_do_not(tmp_path: Path) -> None:
    backend = HiddenStatesBackend(model_ref())
    images = []
    for number in range(2):
        path = tmp_path / f"{number}.png"
        PillowImage.new("RGB", (56, 56), ("red", "blue")[number]).save(path)
        images.append(Image(path, file_digest(path)))
    requests = [
        Request("x", "A"), Request("x", "<image>\nA", (images[0],)), Request("x", "<image>\nA", (images[1],)),
        Request("x", "A much longer text of many words, so that the others are padded"),
    ]  # fmt: skip
    together = vectors(backend, requests)
    for request, vector in zip(requests, together, strict=True):
        assert vectors(backend, [request])[0] == pytest.approx(vector, abs=1e-5)
    assert all(np.abs(one - other).max() > 1e-4 for one, other in pairwise(together))


def test_an_image_that_is_gone_fails_alone(tmp_path: Path) -> None:
    gone = Image(tmp_path / "gone.png", "0")
    first, second = HiddenStatesBackend(model_ref()).complete(
        [Request("x", "<image>\nA", (gone,)), Request("x", "A")]
    )  # fmt: skip
    assert isinstance(first, Failure)
    assert "gone.png cannot be read" in first.reason
    assert isinstance(second, Completion)
