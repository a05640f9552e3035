"""Which order of the question saves more: the published formulas, and what `msr check` makes of them."""

import json
from pathlib import Path

import pytest

from msr_adapter.config.schema import PipelineConfig
from msr_adapter.pipeline.prompt_order import PromptShape, compare_orders, share_left
from msr_adapter.pipeline.run_folder import RunFolder
from tests.support.tiny_run import model_ref, write_upstream


@pytest.mark.parametrize(
    ("image", "reuse", "user_first", "item_first"),
    [(576, 1, 1.31, 1.0), (576, 5, 1.31, 2.30), (576, 20, 1.31, 3.04), (2144, 5, 1.09, 3.51), (2880, 20, 1.07, 7.85),
     (256, 5, 1.59, 1.76), (64, 5, 2.27, 1.32), (64, 20, 2.27, 1.41)],
)  # fmt: skip
def test_ratios_by_the_formulas(image: int, reuse: int, user_first: float, item_first: float) -> None:
    """21 candidates, 20 tokens before, a user summary of 200, titles of 30, a closing question of 60."""
    shape = PromptShape(rows=21 * 1000, users=1000, items=21 * 1000 // reuse, user_summary=200, title=30, image=image)
    assert 1 / share_left(shape, 20, 80, item_first=False) == pytest.approx(user_first, abs=0.006)
    assert 1 / share_left(shape, 20, 80, item_first=True) == pytest.approx(item_first, abs=0.006)


def pipeline(prompt: str) -> PipelineConfig:
    model = model_ref().model_dump()
    values = {
        "name": "x", "data": {"source": {"kind": "synthetic"}},
        "summarize": {"items": {"model": model}, "users": {"model": model}},
        "train": {"model": model, "prompt": prompt}, "evaluate": {"protocol": {"name": "p"}},
    }  # fmt: skip
    return PipelineConfig.model_validate(values)


def say(folder: Path, image: float | None, prompt: str = "recommend") -> list[str]:
    (folder / "lengths").mkdir(exist_ok=True)
    lengths = {"image": image and {"median": image}, "user_summary": {"median": 120}, "overhead": 30}
    (folder / "lengths" / "lengths.json").write_text(json.dumps(lengths))
    return compare_orders(pipeline(prompt), RunFolder(folder))


def shares(line: str) -> tuple[int, int]:
    one, other = (int(part.split("%")[0]) for part in line.split(" leaves ")[1:])
    return one, other


def test_check_says_which_order_saves_more(tmp_path: Path) -> None:
    """12 items, 4 users with 10 candidates each: an item is shown to 3.3 users."""
    write_upstream(tmp_path, candidates=10)
    [small], [large] = say(tmp_path, 4.0), say(tmp_path, 2_000.0)
    assert shares(small)[0] < shares(small)[1] < 100
    assert shares(large)[1] < shares(large)[0] < 100
    assert shares(large)[1] == pytest.approx(100 * 12 / 40, abs=8)
    assert "a candidate is shown to 3.3 users" in small
    assert "counted by the model's tokenizer" in small
    assert large.endswith("the order is part of what is trained")
    assert not say(tmp_path, 2_000.0, "recommend-image-first")[0].endswith("trained")


def test_nothing_is_said_where_the_length_of_images_is_unknown(tmp_path: Path) -> None:
    write_upstream(tmp_path)
    assert say(tmp_path, None) == []
