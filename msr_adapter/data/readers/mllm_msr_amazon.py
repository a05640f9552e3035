"""The official repository's processed Amazon files: one line per user, `user<TAB>items<TAB>negatives`, ids by number.

Two flaws of the files decide how they are read. The items of a user are ordered by how often an item occurs, not by
time, so that the "last" one is the rarest; and lists repeat items, so that a target may stand in its own history.
Separators are `,` or `, `, and negatives may begin with a blank: every id is stripped.
"""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from msr_adapter.config.schema import OfficialAmazonSourceConfig
from msr_adapter.data.audit.recognition import POSITIONS, Recognition
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.amazon import check_meta, read_meta
from msr_adapter.data.readers.log_and_items import NO_ITEMS
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import Layout, Table
from msr_adapter.data.readers.table_scan import collect, scan
from msr_adapter.data.readers.value_checks import ValueRule, check_rows, is_empty, not_empty
from msr_adapter.errors import Problem, UserError, collecting, raise_if_any
from msr_adapter.filesystem import absent

_LISTS = Layout("delimited", "\t", quoted=False, names=("user", "items", "negatives"))
_MAP = Layout("delimited", "\t", quoted=False)
_TRAIN, _TEST, _ITEM_MAP, _USER_MAP = (
    "_user_items_negs_train.csv", "_user_items_negs_test.csv", "_i_map.tsv", "_u_map.tsv"
)  # fmt: skip


@dataclass(frozen=True)
class _Files:
    """The files of one category."""

    train: Path
    test: Path
    item_map: Path
    user_map: Path | None


def mllm_msr_amazon_files(source: OfficialAmazonSourceConfig) -> dict[str, Path | None]:
    """Return the files that are read, by role; only the metadata when the others are not all there."""
    found = _find(source)
    lists = {} if isinstance(found, Problem) else {role: path for role, path in vars(found).items() if path is not None}
    return {"meta": source.meta, **lists}


def check_mllm_msr_amazon(source: OfficialAmazonSourceConfig) -> list[Problem]:
    """Return a problem for each file that is missing."""
    found = _find(source)
    return [*([found] if isinstance(found, Problem) else []), *check_meta(source.meta)]


def read_mllm_msr_amazon(source: OfficialAmazonSourceConfig, context: ReadContext) -> Corpus:
    """Read both files; the split column says which one a user is from. `UserError` with the problems of all files."""
    files = _find(source)
    if isinstance(files, Problem):
        raise UserError(files)
    problems: list[Problem] = []
    maps: dict[str, pl.DataFrame] = {}
    for role, path, number in (("items", files.item_map, "item_id"), ("users", files.user_map, "user_id")):
        if path is not None:
            with collecting(problems):
                maps[role] = _read_map(path, number)
    raise_if_any(problems)
    parts, items = [], None
    for path, split in ((files.train, "train"), (files.test, "test")):
        with collecting(problems):
            lists = _read_lists(path, split, maps["items"], maps.get("users"), context.audit)
            parts.append(_pairs(lists, maps["items"], maps.get("users")))
    if source.meta is not None:
        with collecting(problems):
            meta = read_meta(source.meta, context.audit)
            # An item that the metadata lacks has no title, rather than being dropped.
            items = maps["items"].select(item_id="original").unique(maintain_order=True)
            described = items.join(meta, on="item_id", how="semi").height
            context.audit.count("titles_dropped_not_in_map", len(meta) - described)
            items = items.join(meta, on="item_id", how="left", maintain_order="left")
    raise_if_any(problems)
    _tell(source, context.audit)
    return Corpus(pl.concat(parts), items)


def _find(source: OfficialAmazonSourceConfig) -> _Files | Problem:
    where, setting = str(source.folder), "data.source.folder"
    if not source.folder.is_dir():
        found = absent(source.folder, "folder")
        return Problem(where, setting, found, f"a folder with *{_TRAIN}", "Paths are relative to the YAML")
    there = sorted(path.name.removesuffix(_TRAIN) for path in source.folder.glob(f"*{_TRAIN}"))
    wanted = [source.category] if source.category is not None else there
    if len(wanted) != 1 or wanted[0] not in there:
        found = f"categories there: {', '.join(there) or 'none'}"
        return Problem(where, "data.source.category", found, f"one with *{_TRAIN}", "Name one category")
    paths = {end: source.folder / f"{wanted[0]}{end}" for end in (_TRAIN, _TEST, _ITEM_MAP, _USER_MAP)}
    lacking = [path.name for end, path in paths.items() if end != _USER_MAP and not path.is_file()]
    if lacking:
        return Problem(where, setting, f"lacks {', '.join(lacking)}", "", "Put the files of a category side by side")
    return _Files(paths[_TRAIN], paths[_TEST], paths[_ITEM_MAP],
                  paths[_USER_MAP] if paths[_USER_MAP].is_file() else None)  # fmt: skip


def _read_map(path: Path, number: str) -> pl.DataFrame:
    """Return number, original of a map with the header `original<TAB>user_id` or `item_id`."""
    table = Table(path, _MAP)
    columns = collect(table, scan(table, ()).head(0)).columns
    if lacking := {"original", number} - set(columns):
        found = f"no column {', '.join(sorted(lacking))}"
        raise UserError(Problem(str(path), "", found, f"original, {number}; columns found: {', '.join(columns)}"))
    frame = collect(table, scan(table, ()).select(pl.col(number, "original").str.strip_chars()))
    if frame.null_count().sum_horizontal().item():
        check_rows(table, [not_empty(name, pl.col(name)) for name in (number, "original")], ())
    return frame.drop_nulls().rename({number: "number"}).unique("number", keep="first", maintain_order=True)


def _read_lists(path: Path, split: str, items: pl.DataFrame, users: pl.DataFrame | None, audit: Audit) -> pl.LazyFrame:
    """Return user, items (a list of numbers), split; `UserError` with the lines that are bad or unknown to the maps."""
    table = Table(path, _LISTS)
    numbers = pl.col("items").str.split(",").list.eval(pl.element().str.strip_chars())
    user = pl.col("user").str.strip_chars()
    known = numbers.list.eval(pl.element().is_in(items["number"].implode())).list.all()
    rules = [
        not_empty("user", user),
        ValueRule(
            "items", is_empty(pl.col("items").str.strip_chars()) | ~known.fill_null(False), "numbers of the item map"
        ),
    ]
    if users is not None:
        rules.append(
            ValueRule("user", ~is_empty(user) & ~user.is_in(users["number"].implode()), "a number of the user map")
        )
    bad = pl.any_horizontal(rule.bad for rule in rules)
    # What is wrong with the published files is counted, not mended: whoever compares numbers should know of it.
    # The last item of a list is its target, as in the repository that published them.
    distinct, negatives = numbers.list.n_unique(), pl.col("negatives").str.split(",").list.len()
    counts = collect(table, scan(table, ()).select(
        bad=bad.sum(), rows=pl.len(), repeated=(distinct < numbers.list.len()).sum(),
        target_in_history=numbers.list.reverse().list.slice(1).list.contains(numbers.list.last()).sum(),
        negatives=negatives.sum(),
    )).row(0, named=True)  # fmt: skip
    if counts["bad"]:
        check_rows(table, rules, ())
    if counts["bad"] == counts["rows"]:
        raise UserError(Problem(str(path), "", "no interactions", "lines of user<TAB>items<TAB>negatives"))
    taken = {"user": "first column", "item": "second column"}
    audit.recognise(Recognition(path.name, taken, counts["rows"], POSITIONS, unused=("third column: negatives",)))
    for name in ("repeated", "target_in_history", "negatives"):
        audit.count(f"published_{name}", counts[name])
    return scan(table, ()).filter(~bad).select(user.alias("user"), numbers.alias("items"), pl.lit(split).alias("split"))


def _pairs(lists: pl.LazyFrame, items: pl.DataFrame, users: pl.DataFrame | None) -> pl.LazyFrame:
    """Return one row per listed item under its original ids; the timestamp is the position in the list, from 0."""
    places = pl.int_ranges(0, pl.col("items").list.len(), dtype=pl.Int64).alias("timestamp")
    pairs = lists.with_columns(places).explode("items", "timestamp")
    pairs = pairs.with_columns(_original("items", items).alias("item_id"))
    user = pl.col("user") if users is None else _original("user", users)
    return pairs.select(user.alias("user_id"), "item_id", "timestamp", "split")


def _original(column: str, names: pl.DataFrame) -> pl.Expr:
    return pl.col(column).replace_strict(names["number"], names["original"], return_dtype=pl.String)


def _tell(source: OfficialAmazonSourceConfig, audit: Audit) -> None:
    counts = audit.counts
    audit.find("warning", "The published lists are ordered by how often an item occurs, not by time: the last item of "
               "a user is the rarest, not the latest. Numbers on them say nothing about sequences; for that, use kind "
               "amazon-2023 on the raw reviews.")  # fmt: skip
    audit.find("warning", f"{counts['published_repeated']:,} published lists repeat an item and in "
               f"{counts['published_target_in_history']:,} the target stands in its own history. The first stays, so "
               "that no history holds its target.")  # fmt: skip
    audit.find("info", f"The {counts['published_negatives']:,} published negatives are not used: candidates are drawn "
               "by the protocol.")  # fmt: skip
    if source.meta is None:
        audit.find("info", NO_ITEMS.format("meta"))
