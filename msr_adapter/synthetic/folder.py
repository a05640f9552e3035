"""A shop as a plain folder, the way people bring their own data."""

from pathlib import Path

import pyarrow.csv as pa_csv

from msr_adapter.synthetic.dataset import SyntheticDataset


def write_shop(shop: SyntheticDataset, folder: Path) -> None:
    """Write ``interactions.csv``, ``items.csv`` and ``images/{item_id}.png`` for a generic table pipeline."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    pa_csv.write_csv(shop.interactions, folder / "interactions.csv")
    pa_csv.write_csv(shop.items, folder / "items.csv")
    for item in shop.items["item_id"].to_pylist():
        shop.draw(item).save(images / f"{item}.png")
