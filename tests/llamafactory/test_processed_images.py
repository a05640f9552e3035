"""An image is read and processed once: what its tokens were counted from is what the model is given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PillowImage

from msr_adapter.llamafactory.processed_images import ProcessedImages
from msr_adapter.llamafactory.prompt_encoder import Encoder
from tests.support.tiny_run import model_ref

FAMILIES = ("qwen2_vl", "qwen3_vl_nothink", "llava")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(4)]
    for number, path in enumerate(paths):
        PillowImage.new("RGB", (56 + 28 * number, 84), (60 * number, 80, 200 - 50 * number)).save(path)
    return paths


def count(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of images whenever some are processed."""
    seen: list[int] = []
    original = type(encoder.processor.image_processor).__call__

    def spy(self: Any, images: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        seen.append(len(images))
        return original(self, images, *args, **kwargs)

    monkeypatch.setattr(type(encoder.processor.image_processor), "__call__", spy)
    return seen


@pytest.mark.parametrize("template", FAMILIES)
def test_what_is_kept_equals_what_a_batch_gives(
    template: str, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, keeping = Encoder(model_ref(template)), Encoder(model_ref(template))
    keeping.keep_images()
    expected = plain.pixels(images)
    for path in images:
        assert keeping.encode("<image>\nWhat is it?", [path]) == plain.encode("<image>\nWhat is it?", [path])
    seen = count(keeping, monkeypatch)
    found = keeping.pixels(images)
    assert seen == [], "nothing is processed again"
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    again = keeping.pixels(images)
    assert seen == [4], "what was taken is not kept"
    assert all(torch.equal(again[name], expected[name]) for name in expected)


class Plugin:
    """An image plug-in whose images take 400 bytes each; one called `wide` does not stack with the others."""

    def get_mm_inputs(self) -> None: ...

    def _get_mm_inputs(
        self, images: Sequence[str], videos: Sequence[str], audios: Sequence[str], *_: Any, **__: Any
    ) -> Any:
        return {"pixel_values": torch.zeros(len(images), 200 if images == ["wide"] else 100)}


def watched(monkeypatch: pytest.MonkeyPatch, budget: int) -> tuple[Any, ProcessedImages]:
    monkeypatch.setattr("llamafactory.data.mm_plugin.BasePlugin.get_mm_inputs", Plugin.get_mm_inputs)
    plugin: Any = Plugin()
    return plugin, ProcessedImages(plugin, budget)


def test_the_oldest_go_when_the_budget_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, kept = watched(monkeypatch, 1_000)
    for name in "abc":
        plugin._get_mm_inputs([name], [], [], imglens=None)
    assert kept.take([Path("a")]) is None
    assert kept.take([Path("b"), Path("a")]) is None, "all or none"
    found = kept.take([Path("b"), Path("c")])
    assert found is not None
    assert found["pixel_values"].shape == (2, 100)


def test_what_does_not_stack_or_is_no_single_image_is_processed_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, kept = watched(monkeypatch, 10_000)
    for images, videos in ((["a"], []), (["wide"], []), (["b", "c"], []), (["d"], ["film"])):
        plugin._get_mm_inputs(images, videos, [])
    assert kept.take([Path("a"), Path("wide")]) is None
    assert all(kept.take([Path(name)]) is None for name in "bcd")


def test_a_plug_in_that_makes_more_of_a_batch_is_left_alone() -> None:
    plugin: Any = Plugin()
    kept = ProcessedImages(plugin)
    plugin._get_mm_inputs(["a"], [], [])
    assert kept.take([Path("a")]) is None
