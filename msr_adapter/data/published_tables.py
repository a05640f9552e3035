"""Published logs that are tables with a few keys: each is a bundled pipeline below `logs/`, found by names of files."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from msr_adapter.files import bundled
from msr_adapter.text_tables.opening import open_plain

_LOOKED_AT = 2**16


@dataclass(frozen=True)
class PublishedTable:
    """A published layout; all but the names of its files stands in its bundled pipeline."""

    name: str
    """Of the pipeline."""
    log: str
    """What the log is called, `*` for what differs."""
    files: Mapping[str, str] | None = None
    """The same for others, by their key: items, join.path. Those that are not there are left out, a join excepted."""
    begins: str = ""
    """What the first line of the log matches, where its name says too little."""

    @property
    def source(self) -> dict[str, Any]:
        """The source of the bundled pipeline; its paths lead to where its own data would be."""
        text = (bundled("pipelines") / "logs" / f"{self.name}.yaml").read_text(encoding="utf-8")
        found: dict[str, Any] = yaml.safe_load(text)["data"]["source"]
        return found


PUBLISHED_TABLES = (
    PublishedTable("amazon-2014", "reviews_*.json*", {"items": "meta_*.json*"}, '"reviewerID"'),
    PublishedTable("amazon-2018", "*.json*", {"items": "meta_*.json*"}, '"reviewerID".*"unixReviewTime"'),
    PublishedTable("amazon-ratings", "ratings_*.csv", begins=r"^A\w+,\w+,[1-5]\.0,\d{9,10}$"),
    PublishedTable("bookcrossing", "*Book-Ratings.csv", {"items": "*Books.csv"}, '^"?User-ID"?;"?ISBN"?;'),
    PublishedTable("diginetica", "train-item-views.csv", {"items": "products.csv"}, "^session_?id;user_?id;item_?id;"),
    PublishedTable("goodreads", "goodreads_interactions*.json*", {"items": "goodreads_books*.json*"}),
    PublishedTable(
        "instacart", "order_products__*.csv", {"join.path": "orders.csv", "items": "products.csv"},
        "^order_id,product_id,",
    ),
    PublishedTable(
        "lastfm-1k", "userid-timestamp-artid-artname-traid-traname.tsv",
        {"items": "userid-timestamp-artid-artname-traid-traname.tsv"},
    ),
    PublishedTable("lastfm-hetrec", "user_taggedartists-timestamps.dat", {"items": "artists.dat"}),
    PublishedTable("lightgcn", "train.txt", begins=r"^\d+( \d+){2,} ?$"),
    PublishedTable("online-retail", "*.csv", {"items": "*.csv"}, "^(InvoiceNo|Invoice),StockCode,Description,"),
    PublishedTable("rees46", "20??-???.csv", begins="^event_time,event_type,product_id,"),
    PublishedTable("retailrocket", "events.csv", begins="^timestamp,visitorid,event,itemid"),
    PublishedTable("sasrec", "*.txt", begins=r"^\d+ \d+$"),
    PublishedTable("shopify", "orders*.csv", {"items": "products*.csv"}, "^Name,Email,.*Lineitem sku"),
    PublishedTable("steam", "steam*reviews*.json*", {"items": "steam_games.json*"}, r"^\{u?'"),
    PublishedTable("steam-200k", "steam-200k.csv", {"items": "steam-200k.csv"}),
    PublishedTable("taobao", "UserBehavior.csv", begins=r"^\d+,\d+,\d+,(pv|buy|cart|fav),\d+$"),
    PublishedTable(
        "yelp", "yelp_academic_dataset_review.json", {"items": "yelp_academic_dataset_business.json"}
    ),
    PublishedTable("yoochoose", "yoochoose-clicks*.dat"),
)  # fmt: skip
"""All of them, in the order of their names: of two that fit, the first whose first line says so is taken."""


def published_tables(path: Path) -> Iterator[tuple[PublishedTable, Path, dict[str, Path]]]:
    """Yield the layouts that a file or folder has, with the log and the other files, by their key."""
    logs = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.is_file())
    for layout in PUBLISHED_TABLES:
        for log in logs:
            if _is_called(layout.log, log.name) and not log.name.startswith("meta_") and _begins(log, layout.begins):
                near = sorted(one for one in log.parent.iterdir() if one.is_file())
                found = {
                    key: one for key, pattern in (layout.files or {}).items() for one in _chosen(pattern, log, near)
                }
                if all(key in found for key in layout.files or {} if key.startswith("join")):
                    yield layout, log, found
                    break


def settings_of(layout: PublishedTable, log: Path, others: Mapping[str, Path]) -> dict[str, Any]:
    """Return what `data.source` says of a log of such a layout and the ``others`` by their key."""
    source = dict(layout.source) | {"interactions": str(log), "items": None}
    for key, path in others.items():
        name, _, part = key.partition(".")
        source[name] = {**source[name], part: str(path)} if part else str(path)
    if source["items"] is None:
        source = {key: value for key, value in source.items() if not key.startswith("items_")}
    return source


def _chosen(pattern: str, log: Path, near: list[Path]) -> list[Path]:
    """Return the one file that belongs to a log: itself, or the first that is called so."""
    return [log] if _is_called(pattern, log.name) else [one for one in near if _is_called(pattern, one.name)][:1]


def _is_called(pattern: str, name: str) -> bool:
    shape = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
    return re.fullmatch(shape, name) is not None


def _begins(log: Path, pattern: str) -> bool:
    if not pattern:
        return True
    try:
        with open_plain(log) as file:
            line = file.readline(_LOOKED_AT).decode("utf-8-sig", "replace")
    except (OSError, EOFError):
        return False
    return re.search(pattern, line.rstrip("\r\n")) is not None
