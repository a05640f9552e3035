"""`msr recommend` shows several images an item, and those of the latest choices, as training did."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from msr_adapter.backends.scripted import ScriptedBackend
from msr_adapter.generation import Request
from msr_adapter.pipeline import run
from msr_adapter.progress import Reporter
from tests.support.recommending import ITEMS, TAKEN, load, order, without_training, write_pipeline


@pytest.mark.parametrize("out", ["recs.parquet", "parts"])
def test_images_of_the_latest_choices_stand_before_those_of_the_candidate(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pipeline(tmp_path)
    (tmp_path / "pipeline").symlink_to(tmp_path)
    (tmp_path / "covers").mkdir()
    for number, item in enumerate(ITEMS):
        for place in (0, 1):
            Image.new("RGB", (30, 30), (number, 90 * place, 50)).save(tmp_path / f"covers/{item}_{place}.png")
    sets = ("train.history_images=2", f"data.images.folder={tmp_path / 'covers'}", "data.images.max=2")
    monkeypatch.setattr("msr_adapter.pipeline.planning.STAGES", without_training())
    run(load(tmp_path, tmp_path, *sets), ("train",), reporter=Reporter(quiet=True))
    asked: list[Request] = []
    answer = ScriptedBackend.complete

    def spy(self: ScriptedBackend, requests: Any, *follow: Any) -> Any:
        asked.extend(request for request in requests if request.choices)
        return answer(self, requests, *follow)

    monkeypatch.setattr(ScriptedBackend, "complete", spy)
    order(tmp_path, sets, out=tmp_path / out)
    assert asked
    latest = {tuple(f"- Title {item}: <image> <image>" for item in items[-2:]) for items in TAKEN.values()}
    for request in asked:
        lines = request.prompt.splitlines()
        assert tuple(line for line in lines if line.startswith("- ")) in latest
        assert request.prompt.count("<image>") == len(request.images)
        named = [line.removeprefix("- ").split(": <")[0].removeprefix("Title ") for line in lines if "Title " in line]
        shown = [Image.open(image.path).getpixel((0, 0)) for image in request.images]
        wanted = [item.removeprefix("Title ") for item in named[:-1]] + [named[-1].split("Title ")[-1]]
        assert [pixel[:2] for pixel in shown] == [  # type: ignore[index]
            (ITEMS.index(item), 90 * place) for item in wanted for place in (0, 1)
        ]
