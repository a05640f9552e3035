"""Which images are to be downloaded: those of the kept items that lists may have.

Of a table of millions, few items may have an interaction: where no list has the others, their images are not asked for.
"""

from dataclasses import dataclass

import polars as pl

from msr_adapter.config.schema import DataConfig, ProtocolConfig, SplitConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.checks import packed_problems
from msr_adapter.data.filters import clean
from msr_adapter.data.images.locate import image_key, image_name, is_url, item_of
from msr_adapter.data.images.several import further_columns, image_names
from msr_adapter.data.interaction_log import encode
from msr_adapter.data.readers.items import FURTHER_IMAGE
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import check_source, read
from msr_adapter.data.temporal import moments_of
from msr_adapter.data.unseen_items import kept_unseen
from msr_adapter.errors import raise_if_any


@dataclass(frozen=True)
class WantedImages:
    """The images of the items looked at."""

    urls: dict[str, str]
    """What identifies an image in the index of downloads (`image_key`) -> URL, in the order of the ids."""
    items: int
    otherwise: int
    """Items that name a file or hold an image's bytes."""
    unlisted: int = 0
    """Items beside these that name a URL, kept without an interaction and in no list."""

    @property
    def without(self) -> int:
        """Items that name no image."""
        return self.items - len({item_of(key)[0] for key in self.urls}) - self.otherwise


def wanted_images(
    data: DataConfig,
    seed: int,
    *,
    every_item: bool,
    split: SplitConfig | None = None,
    protocol: ProtocolConfig | None = None,
) -> WantedImages:
    """Read the source and return the URLs of the kept items that lists may have, or of every item of the table.

    `UserError` with every problem of the source.
    """
    raise_if_any(packed_problems(data) or check_source(data.source))
    audit = Audit()
    audit.several_images = further_columns(data.images)
    corpus = read(data.source, seed, audit)
    named = _image_names(corpus)
    unlisted = 0
    if not every_item:
        # Of a split by time, filters count what was known when training ends.
        log = encode(
            corpus,
            Audit(),
            keep_repeats=data.repeats == "keep",
            moments=None if split is None else moments_of(split),
        )
        log = clean(log, corpus, data, seed, Audit())
        kept, unseen = log.items, kept_unseen(log, data.limit, seed, Audit())
        if protocol is not None and protocol.catalogue == "all":
            kept, unseen = pl.concat([kept, unseen]), unseen.clear()
        unlisted = len(_urls(_values(_of(unseen, named), data.images.max)))
        named = _of(kept, named)
    values = _values(named, data.images.max)
    urls = _urls(values)
    by_url = len({item_of(key)[0] for key in urls})
    return WantedImages(urls, len(values), sum(bool(names) for _, names in values) - by_url, unlisted)


def _of(ids: pl.Series, named: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({"item_id": ids}).join(named, on="item_id", how="left")


def _values(named: pl.DataFrame, most: int) -> list[tuple[str, list[str | bytes]]]:
    """Return item and its first ``most`` images, in the order of the ids."""
    rows = named.sort("item_id").iter_rows()
    if most == 1:
        return [(str(item), [name for value in values if (name := image_name(value))]) for item, *values in rows]
    return [(str(item), [name for value in values for name in image_names(value)][:most]) for item, *values in rows]


def _urls(values: list[tuple[str, list[str | bytes]]]) -> dict[str, str]:
    return {
        image_key(item, number): name
        for item, names in values
        for number, name in enumerate(names, 1)
        if isinstance(name, str) and is_url(name)
    }


def _image_names(corpus: Corpus) -> pl.DataFrame:
    if corpus.items is None:
        return pl.DataFrame(schema={"item_id": pl.String})
    columns = [name for name in corpus.items.columns if name == "image" or name.startswith(FURTHER_IMAGE)]
    return corpus.items.select("item_id", *columns)
