"""Which kind of source a file or folder is, told by the names of files and by headers: what `msr init` begins with."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msr_adapter.data.published_tables import published_tables, settings_of
from msr_adapter.data.readers.column_names import canonical
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.data.readers.table_scan import GENERIC, column_names
from msr_adapter.errors import Problem, UserError
from msr_adapter.filesystem import absent, files_below
from msr_adapter.text_tables.opening import plain_suffix

_MOST_LISTED = 6


@dataclass(frozen=True)
class LikelySource:
    """A kind of source and the files that it would read."""

    kind: str
    keys: Mapping[str, Path]
    """Key of `data.source` -> file or folder."""
    why: str
    """What it was told by."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What `data.source` says beside them: all of it, where a bundled pipeline reads such files."""
    layout: str = ""
    """The name of that pipeline."""


def likely_source(path: Path) -> LikelySource:
    """Return what a file or folder is taken for. Raises `UserError`, with what lies there, where nothing fits."""
    if not path.exists():
        raise UserError(Problem("", "LOG", absent(path), "a log of interactions, or a folder that holds one"))
    found = next((source for layout in (*_LAYOUTS, _tables) for source in layout(path)), None)
    if found is not None:
        return found
    if not path.is_dir():
        return LikelySource("table", {"interactions": path}, "a table of its own")
    if any(entry.name.endswith(".parquet") for entry, _ in files_below(path)):
        return LikelySource("table", {"interactions": path}, "a folder of Parquet")
    tables = sorted(one for one in path.iterdir() if plain_suffix(one) in GENERIC)
    here = ", ".join(one.name for one in tables[:_MOST_LISTED]) or "no table"
    step = f"Name the log itself, such as {tables[0]}" if tables else "Name the log itself"
    wanted = "a log, or a published data set (MovieLens, MicroLens, RecBole, H&M, KuaiRec, PixelRec, Amazon ...)"
    raise UserError(Problem("", "LOG", f"{path} has no published layout; in it: {here}", wanted, step))


def _movielens(path: Path) -> Iterator[LikelySource]:
    for log, items in (("u.data", "u.item"), ("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv")):
        if (path / log).is_file() and (path / items).is_file():
            yield LikelySource("movielens", {"folder": path}, f"{log} and {items}")


def _hm(path: Path) -> Iterator[LikelySource]:
    log = path / "transactions_train.csv"
    if log.is_file():
        yield LikelySource("hm", _there(transactions=log, articles=path / "articles.csv"), log.name)


def _kuairec(path: Path) -> Iterator[LikelySource]:
    for folder in (path, path / "data"):
        logs = [log for log in (folder / "big_matrix.csv", folder / "small_matrix.csv") if log.is_file()]
        for log in logs[:1]:
            keys = _there(interactions=log, captions=folder / "kuairec_caption_category.csv")
            yield LikelySource("kuairec", keys, log.name)


def _microlens(path: Path) -> Iterator[LikelySource]:
    pairs, titles = _some(path, "*_pairs.tsv", "*_pairs.csv"), _some(path, "*_titles.csv", "*_title_en.csv")
    if pairs and titles:
        yield LikelySource("microlens", {"pairs": pairs[0], "titles": titles[0]}, pairs[0].name)


def _official_amazon(path: Path) -> Iterator[LikelySource]:
    if files := _some(path, "*_user_items_negs_train.csv"):
        yield LikelySource("mllm-msr-amazon", {"folder": path}, files[0].name)


def _pixelrec(path: Path) -> Iterator[LikelySource]:
    items = path / "item_info.csv"
    if (logs := _some(path, "Pixel*.csv")) and items.is_file():
        yield LikelySource("pixelrec", {"interactions": logs[0], "items": items}, logs[0].name)


def _atomic(path: Path) -> Iterator[LikelySource]:
    """Tell RecBole's files, whose header has types, from MMRec's."""
    log = path if path.suffix == ".inter" else next(iter(_some(path, "*.inter")), None)
    if log is None:
        return
    header = column_names(table_at(log))
    kind = "mmrec" if "xlabel" in {canonical(name) for name in header} else "recbole"
    items = log.with_suffix(".item") if kind == "recbole" else log
    keys = _there(interactions=log, items=items) if items != log else {"interactions": log}
    yield LikelySource(kind, keys, f"the header of {log.name}")


def _amazon(path: Path) -> Iterator[LikelySource]:
    metas = _some(path, "meta_*.jsonl", "meta_*.jsonl.gz")
    for meta in metas[:1]:
        reviews = meta.with_name(meta.name.removeprefix("meta_"))
        if reviews.is_file():
            yield LikelySource("amazon-2023", {"reviews": reviews, "meta": meta}, meta.name)


def _huggingface(path: Path) -> Iterator[LikelySource]:
    saved = [name for name in ("dataset_dict.json", "dataset_info.json") if (path / name).is_file()]
    if saved:
        yield LikelySource("huggingface", {"interactions": path}, saved[0])


def _mind(path: Path) -> Iterator[LikelySource]:
    if (path / "behaviors.tsv").is_file() and (path / "news.tsv").is_file():
        yield LikelySource("mind", {"folder": path}, "behaviors.tsv and news.tsv")


def _netflix(path: Path) -> Iterator[LikelySource]:
    if (logs := _some(path, "combined_data_*.txt")) and (path / "movie_titles.csv").is_file():
        yield LikelySource("netflix", {"folder": path}, logs[0].name)


def _tables(path: Path) -> Iterator[LikelySource]:
    for layout, log, others in published_tables(path):
        settings = settings_of(layout, log.absolute(), {key: one.absolute() for key, one in others.items()})
        yield LikelySource("table", {"interactions": log}, log.name, settings, f"logs/{layout.name}")


_LAYOUTS: tuple[Callable[[Path], Iterable[LikelySource]], ...] = (
    _movielens, _hm, _kuairec, _microlens, _official_amazon, _pixelrec, _atomic, _amazon, _huggingface,
    _mind, _netflix,
)  # fmt: skip
"""Published layouts, those first whose files have names that nothing else has."""


def _there(**files: Path) -> dict[str, Path]:
    return {key: path for key, path in files.items() if path.is_file()}


def _some(folder: Path, *patterns: str) -> list[Path]:
    """Return the files of a folder that match the first pattern that any matches."""
    if not folder.is_dir():
        return []
    names = sorted(one for one in folder.iterdir() if one.is_file())
    for pattern in patterns:
        shape = re.compile(".*".join(map(re.escape, pattern.split("*"))))
        if found := [one for one in names if shape.fullmatch(one.name)]:
            return found
    return []
