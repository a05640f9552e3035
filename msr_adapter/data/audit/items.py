"""What a model is shown of the items: titles and images that are missing, repeated, or nearly so."""

import numpy as np
import polars as pl

from msr_adapter.arrays import Mask, Rows
from msr_adapter.data.audit.audited_data import AuditInputs
from msr_adapter.data.audit.report import Audit, Statistics
from msr_adapter.data.audit.thresholds import note
from msr_adapter.heuristics import title_vectors
from msr_adapter.heuristics.near_duplicates import near_pairs
from msr_adapter.heuristics.title_overlap import split_words

NEAR_ITEMS = 100_000
"""Most items that are searched for nearly equal titles: the most popular ones."""
_SHOWN = 60
_NAMED = 3


def check_titles(e: AuditInputs, audit: Audit) -> Statistics:
    """Find empty, equal and nearly equal titles, and lists whose negatives have the target's. O(characters)."""
    titles = pl.Series("title", e.catalogue.titles, dtype=pl.String)
    group, size = _groups(split_words(titles).list.join(" "))
    empty = (titles == "").to_numpy()
    with_image = empty & np.array([image.path is not None for image in e.images], dtype=bool)
    note(audit, "empty-titles", float(with_image.mean()),
         f"{_of(with_image)} have an image but no title ({_such(e, with_image)}). Complete the table "
         "of items.")  # fmt: skip
    if empty.all():
        return {"empty": 1.0}
    same = (size > 1) & ~empty
    common = _clip(titles[int(np.argmax(np.where(empty, 0, size)))])
    note(audit, "same-titles", float(same.mean()),
         f"{_of(same)} have the title of another item (such as {common}, {int(size[~empty].max()):,} items): a model "
         "that reads titles cannot tell them apart. Merge items that are the same, or add what differs to the "
         "title.")  # fmt: skip
    near, looked_at = _check_near(e, titles, group, audit)
    duplicates = _check_duplicates(e, np.where(empty, -1, group), audit)
    return {"empty": float(empty.mean()), "same": float(same.mean()), "nearly_same": near,
            "nearly_same_of": looked_at, "lists_with_duplicate": duplicates}  # fmt: skip


def check_images(e: AuditInputs, audit: Audit) -> Statistics:
    """Find images that several items share, one that many share, and items with nothing to show. O(items)."""
    digests = pl.Series("image", [image.digest for image in e.images], dtype=pl.String)
    bare = digests.is_null().to_numpy() & (pl.Series(e.catalogue.titles, dtype=pl.String) == "").to_numpy()
    audit.name("items_with_nothing_to_show", (e.catalogue.ids[row] for row in np.flatnonzero(bare).tolist()))
    note(audit, "nothing-to-show", float(bare.mean()),
         f"{_of(bare)} have neither a title nor an image ({_such(e, bare)}): the model is asked about nothing. Give "
         "one, or leave these items out of the log.")  # fmt: skip
    has = digests.is_not_null().to_numpy()
    if audit.counts.get("items_placeholder"):  # our own grey image stands for what the audit counts as missing
        has &= np.array([image.fault is None for image in e.images])
    if not has.any():
        return {"with_image": 0.0, "nothing_to_show": float(bare.mean())}
    _, size = _groups(digests.filter(pl.Series(has)))
    shared, largest = float((size > 1).mean()), int(size.max())
    path = np.array([image.path for image in e.images], dtype=object)[has][int(size.argmax())]
    note(audit, "placeholder-image", largest / len(size) if largest >= 5 else 0,
         f"{largest:,} items show the same image ({path}): it looks like a placeholder. If it is, remove "
         "those files, so that these items are asked about by their title.")  # fmt: skip
    note(audit, "same-images", shared,
         f"{shared:.1%} of the items with an image share it with another item. Check that images are matched to "
         "the right items.")  # fmt: skip
    return {"with_image": float(has.mean()), "shared": shared, "largest_group": largest,
            "nothing_to_show": float(bare.mean())}  # fmt: skip


def _check_near(e: AuditInputs, titles: pl.Series, group: Rows, audit: Audit) -> tuple[float, int]:
    """Look among distinct titles only: equal ones are counted elsewhere."""
    _, first = np.unique(group, return_index=True)
    chosen = first[np.argsort(-e.popularity[first], kind="stable")[:NEAR_ITEMS]]
    pairs = chosen[near_pairs(title_vectors(titles[chosen.tolist()]))]
    share = len(np.unique(pairs)) / max(len(chosen), 1)
    such = " and ".join(_clip(titles[int(item)]) for item in pairs[:1].flat)
    note(audit, "near-titles", share,
         f"{share:.1%} of the titles are nearly the same as another (such as {such}). Merge items that are the same, "
         "or put what differs first.")  # fmt: skip
    return share, len(chosen)


def _check_duplicates(e: AuditInputs, group: Rows, audit: Audit) -> float:
    lists = e.lists
    if not len(lists):
        return 0.0
    titles, owner = group[lists.items], np.repeat(np.arange(len(lists)), np.diff(lists.offsets))
    target = titles[lists.labels == 1][owner]
    duplicate = (lists.labels == 0) & (titles == target) & (target >= 0)
    share = len(np.unique(owner[duplicate])) / len(lists)
    note(audit, "duplicate-negatives", share,
         f"In {share:.1%} of the test lists a negative has the same title as the target, so no model that "
         "reads titles can tell them apart. Merge items that are the same.")  # fmt: skip
    return share


def _groups(values: pl.Series) -> tuple[Rows, Rows]:
    """Return the number of each value's group of equals, and the size of that group."""
    # Ranks begin at 1, so that 0 is left for what is null.
    group = values.rank("dense").fill_null(0).to_numpy().astype(np.int64)
    return group, np.bincount(group)[group]


def _of(mask: Mask) -> str:
    return f"{int(mask.sum()):,} of {len(mask):,} items"


def _such(e: AuditInputs, mask: Mask) -> str:
    shown = [repr(e.catalogue.ids[row]) for row in np.flatnonzero(mask)[:_NAMED].tolist()]
    return ", ".join(shown) if len(shown) == mask.sum() else f"such as {', '.join(shown)}"


def _clip(title: str) -> str:
    return repr(title if len(title) <= _SHOWN else f"{title[: _SHOWN - 1]}…")
