"""Items that came after the training: recommended, read in histories, and no reason to train again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from msr_adapter.errors import UserError
from msr_adapter.files import file_digest
from tests.support.recommending import (
    DAY,
    START,
    Asked,
    items_of,
    load,
    order,
    own_run,
    rows,
    trained,
    write,
    write_pipeline,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("new-items")
    write_pipeline(folder)
    with trained(folder) as made:
        yield made


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return own_run(finished, tmp_path)


def new(folder: Path, *more: tuple[str, str]) -> Path:
    return write(folder / "new.csv", ("item_id", "title"), [("n1", "First of all"), ("bb", "Between"), *more])


def test_they_are_ranked_beside_the_catalogue_by_what_they_say(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    weights = folder / "run" / "train" / "model" / "x.safetensors"
    before, data = file_digest(weights), file_digest(folder / "run" / "data" / "items.parquet")
    counts = order(folder, items=new(folder), candidates="all", top=12)
    assert {"n1", "bb"} <= set(items_of(folder, "u0"))
    assert counts["new_items_retrieved"] == 2
    assert {row["title"] for row in rows(folder) if row["item_id"] == "n1"} == {"First of all"}
    assert all(row["logit"] is not None for row in rows(folder))
    assert [one for one in asked.scored if "First of all" in one.prompt]
    assert not [one for one in asked.texts if "First of all" in one.prompt]  # a candidate is shown, not described
    assert file_digest(weights) == before
    assert file_digest(folder / "run" / "data" / "items.parquet") == data


def test_their_file_names_the_candidates_too(folder: Path) -> None:
    path = new(folder)
    order(folder, items=path, candidates=str(path), top=2)
    assert {row["item_id"] for row in rows(folder)} == {"n1", "bb"}


def test_interactions_with_them_count_for_old_and_new_users(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    later = write(folder / "later.csv", ("user_id", "item_id", "timestamp"),
                  [("u0", "n1", START + 500 * DAY), ("nobody", "bb", START + 500 * DAY)])  # fmt: skip
    who = write(folder / "who.csv", ("user_id",), [("u0",), ("nobody",)])
    order(folder, items=new(folder), interactions=later, users=who, candidates="all", top=12)
    found = {row["user_id"]: row for row in rows(folder)}
    assert "n1" not in items_of(folder, "u0")
    assert "bb" in items_of(folder, "u0")
    assert "bb" not in items_of(folder, "nobody")
    assert found["nobody"]["history_items"] == 1
    assert found["nobody"]["ranked_by"] == "model"
    described = [one.prompt for one in asked.texts]
    assert [text for text in described if "First of all" in text]  # read in a history, so it was described


def test_without_them_the_same_interactions_are_left_out(folder: Path) -> None:
    later = write(folder / "later.csv", ("user_id", "item_id", "timestamp"),
                  [("u0", "n1", START + 500 * DAY), ("u0", "j", START + 501 * DAY)])  # fmt: skip
    order(folder, interactions=later, candidates="all", top=12)
    assert "n1" not in items_of(folder, "u0")


def test_what_the_catalogue_has_may_stand_there_unless_it_says_something_else(folder: Path) -> None:
    order(folder, items=new(folder, ("a", "Title a")), candidates="all", top=12)
    with pytest.raises(UserError, match="1 of its items is in the catalogue with other words: a"):
        order(folder, items=new(folder, ("a", "Another title")), candidates="all", top=12)


def test_what_is_no_table_of_items_is_refused_with_the_option(folder: Path) -> None:
    with pytest.raises(UserError, match="--items"):
        order(folder, items=write(folder / "new.csv", ("what", "title"), [("n1", "x")]))
    with pytest.raises(UserError, match="--items"):
        order(folder, items=folder / "absent.csv")


def test_their_images_are_found_as_those_of_the_source_and_shown(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = folder / "images"
    images.mkdir()
    for item in ("a", "n1"):
        Image.new("RGB", (30, 30), (200, 10, 10)).save(images / f"{item}.png")
    asked = Asked(monkeypatch)
    path = new(folder)
    order(folder, (f"data.images.folder={images}",), items=path, candidates=str(path), top=2)
    shown = {bool(one.images) for one in asked.scored if "First of all" in one.prompt}
    assert shown == {True}
    assert {bool(one.images) for one in asked.scored if "Between" in one.prompt} == {False}
    assert load(folder / "pipeline", folder)
