"""Shops in which price, brand or a second image matter; all else of them is as it was drawn without."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from msr_adapter.synthetic import Shopping, SyntheticDataset, generate, write_dataset
from msr_adapter.synthetic.vocabulary import BRANDS, PRICE_BANDS

BOTH = Shopping(attributes=True, second_image=True)


def shop(shopping: Shopping = BOTH, **changes: Any) -> SyntheticDataset:
    numbers: dict[str, Any] = {
        "users": 200,
        "items": 150,
        "interactions_per_user": 8,
        "noise": 0.7,
        "seed": 3,
    } | changes
    return generate(**numbers, shopping=shopping)


def share_of_favourites(dataset: SyntheticDataset, codes: np.ndarray, table: np.ndarray) -> float:
    """Return the share of choices whose word is among the user's favourites."""
    users = [int(user[1:]) - 1 for user in dataset.interactions["user_id"].to_pylist()]
    items = [int(item[1:]) - 1 for item in dataset.interactions["item_id"].to_pylist()]
    return float((table[users, codes[items]] > 0).mean())


def test_all_else_is_as_it_was_drawn_without() -> None:
    plain, more = shop(Shopping()), shop()
    assert more.items.select(["item_id", "title"]).equals(plain.items)
    assert np.array_equal(more.preferences.motif, plain.preferences.motif)
    assert more.draw("i007").tobytes() == plain.draw("i007").tobytes() == more.draw_all("i007")[0].tobytes()
    assert len(plain.draw_all("i007")) == 1
    assert not more.interactions.equals(plain.interactions)


def test_items_have_a_price_of_their_band_and_a_brand() -> None:
    dataset = shop()
    facets, prices = dataset.facets, np.array(dataset.items["price"].to_pylist())
    low, high = np.array(PRICE_BANDS)[facets.price_band].T
    assert ((low <= prices) & (prices < high)).all()
    assert np.allclose(prices * 100, np.round(prices * 100))
    assert set(dataset.items["brand"].to_pylist()) == set(BRANDS)
    titles = " ".join(dataset.items["title"].to_pylist())
    assert not any(brand in titles for brand in BRANDS)


@pytest.mark.parametrize("shopping", [BOTH, Shopping(drift=0.2, offered=0.5, attributes=True)])
def test_users_choose_by_price_and_brand(shopping: Shopping) -> None:
    dataset = shop(shopping)
    facets, liked = dataset.facets, dataset.preferences
    assert facets.brand is not None
    assert facets.price_band is not None
    assert liked.brand is not None
    assert liked.price is not None
    assert share_of_favourites(dataset, facets.brand, liked.brand) > 1.3 * 2 / len(BRANDS)
    assert share_of_favourites(dataset, facets.price_band, liked.price) > 1.3 / len(PRICE_BANDS)


def test_users_choose_by_the_second_image() -> None:
    dataset = shop()
    assert dataset.facets.second_motif is not None
    assert share_of_favourites(dataset, dataset.facets.second_motif, dataset.preferences.motif) > 0.3  # 0.2 by chance


def test_preference_counts_all_that_is_liked() -> None:
    dataset = shop()
    liked, facets = dataset.preferences, dataset.facets
    assert facets.brand is not None
    assert facets.price_band is not None
    assert facets.second_motif is not None
    assert facets.second_colour is not None
    assert liked.brand is not None
    assert liked.price is not None
    by_hand = (
        liked.motif[4, facets.motif[9]] + liked.colour[4, facets.colour[9]] + liked.genre[4, facets.genre[9]]
        + liked.appeal[9] + liked.brand[4, facets.brand[9]] + liked.price[4, facets.price_band[9]]
        + liked.motif[4, facets.second_motif[9]] + liked.colour[4, facets.second_colour[9]]
    )  # fmt: skip
    assert dataset.true_preference(["u005"], ["i010"]).tolist() == [pytest.approx(by_hand)]


def test_a_written_dataset_has_them_too(tmp_path: Path) -> None:
    dataset = shop(items=30, users=5)
    write_dataset(dataset, tmp_path)
    assert (tmp_path / "items.csv").read_text(encoding="utf-8").startswith('"item_id","title","price","brand"\n')
    with Image.open(tmp_path / "images" / "i30_2.png") as image:
        assert image.tobytes() == dataset.draw_all("i30")[1].tobytes()
