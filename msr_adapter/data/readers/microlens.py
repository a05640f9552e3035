"""MicroLens as published: pairs as csv (user,item,timestamp) or tsv (user<TAB>items, oldest first), titles as csv."""

import csv
from pathlib import Path

import polars as pl

from msr_adapter.config.models import Columns, MicroLensSource
from msr_adapter.data.audit import Audit, collecting, listed, raise_if_any
from msr_adapter.data.corpus import Corpus
from msr_adapter.data.readers.aliases import ALIASES, canonical
from msr_adapter.data.readers.explain import explain
from msr_adapter.data.readers.rows import check_rows, not_empty
from msr_adapter.data.readers.table import INTERACTION_FIELDS, check_file, first_titles, read_interactions
from msr_adapter.data.readers.tabular import file_problems
from msr_adapter.errors import Problem, UserError


def read_microlens(source: MicroLensSource, audit: Audit) -> Corpus:
    """Read MicroLens; `UserError` with the problems of both files."""
    problems: list[Problem] = []
    with collecting(problems):
        lists = source.pairs.suffix.lower() == ".tsv"
        interactions = _read_lists(source.pairs) if lists else read_interactions(source.pairs, Columns(), audit)
    with collecting(problems):
        titles = first_titles(_read_titles(source.titles), audit)
    raise_if_any(problems)
    return Corpus(interactions.lazy(), titles)


def check_microlens(source: MicroLensSource) -> list[Problem]:
    """Return what is wrong with the files of a MicroLens source, without reading their rows."""
    problems = file_problems(source.pairs, "data.source.pairs", (".csv", ".tsv"))
    if not problems and source.pairs.suffix.lower() == ".csv":
        problems = check_file(source.pairs, "data.source.pairs", INTERACTION_FIELDS, Columns())
    return problems + file_problems(source.titles, "data.source.titles", (".csv",))


def _read_lists(path: Path) -> pl.DataFrame:
    """Return one row per listed item; the timestamp is the position in the user's list, from 0."""
    try:
        lines = pl.read_csv(path, separator="\t", has_header=False, infer_schema=False, quote_char=None)
    except pl.exceptions.PolarsError as error:
        raise UserError(explain(path, str(error))) from error
    user, items = lines.to_series(0), lines.to_series(1) if lines.width > 1 else pl.Series([None] * lines.height)
    frame = pl.DataFrame({"user_id": user, "items": items.cast(pl.String)}).select(pl.all().str.strip_chars())
    rules = [not_empty("user", frame["user_id"]), not_empty("items", frame["items"])]
    check_rows(path, rules, width=2, has_header=False)
    pairs = frame.select("user_id", pl.col("items").str.split(" ").alias("item_id")).explode("item_id")
    pairs = pairs.filter(pl.col("item_id").is_not_null() & (pl.col("item_id") != ""))
    if not pairs.height:
        raise UserError(Problem(str(path), "", "no interactions", "lines of user<TAB>item item item"))
    return pairs.with_columns(pl.int_range(pl.len()).over("user_id").alias("timestamp"))


def _read_titles(path: Path) -> pl.DataFrame:
    """Read item,title with or without a header; commas of an unquoted title are part of it."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(explain(path, str(error))) from error
    if rows and canonical(rows[0][1][0]) in map(canonical, ALIASES["item"]):
        del rows[0]
    bad = [Problem(f"{path}:{line}", "item", "empty", "an id", "Correct the row") for line, row in rows
           if not row[0].strip()]  # fmt: skip
    raise_if_any(listed(bad, len(bad), str(path)))
    if not rows:
        raise UserError(Problem(str(path), "", "no titles", "rows of item,title"))
    ids, titles = [row[0].strip() for _, row in rows], [",".join(row[1:]) for _, row in rows]
    return pl.DataFrame({"item_id": ids, "title": titles}, schema={"item_id": pl.String, "title": pl.String})
