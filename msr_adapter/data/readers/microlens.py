"""MicroLens as published: pairs as csv (user,item,timestamp) or tsv (user<TAB>items, oldest first), titles as csv."""

from pathlib import Path

import polars as pl

from msr_adapter.config.schema import MicroLensSourceConfig
from msr_adapter.data.audit.recognition import POSITIONS, Recognition
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.column_names import ALIASES, canonical
from msr_adapter.data.readers.items import first_rows
from msr_adapter.data.readers.log_and_items import LOG, LOG_MORE, RowRules, check_file, read_named_log
from msr_adapter.data.readers.parse_errors import delimited_file
from msr_adapter.data.readers.reader import Corpus, ReadContext
from msr_adapter.data.readers.table_layout import Layout, Table, table_at
from msr_adapter.data.readers.table_scan import collect, explaining, file_problems, scan, tell_reading
from msr_adapter.data.readers.value_checks import check_rows, is_empty, not_empty
from msr_adapter.errors import Problem, UserError, collecting, listed, raise_if_any
from msr_adapter.text_tables.opening import plain_suffix

_LISTS = Layout("delimited", "\t", quoted=False, names=("user", "items"))
_RECORD = r"^\s*\d+\s*(?:,|$)"
_QUOTED = r'^\s*"((?:[^"]|"")*)"\s*$'


def read_microlens(source: MicroLensSourceConfig, context: ReadContext) -> Corpus:
    """Read MicroLens; `UserError` with the problems of both files."""
    problems: list[Problem] = []
    interactions, items = pl.LazyFrame(), None
    with collecting(problems):
        lists = plain_suffix(source.pairs) == ".tsv"
        rules = RowRules(missing_times=source.missing_times)
        if lists:
            interactions = _read_lists(source.pairs, context.audit)
        else:
            interactions = read_named_log(table_at(source.pairs), {}, context.audit, rules)
    with collecting(problems):
        titles = _read_titles(source.titles, context.audit)
        items = first_rows(titles, context.audit)
        taken = {"item": "first column", "title": "what follows"}
        context.audit.recognise(Recognition(source.titles.name, taken, titles.height))
    raise_if_any(problems)
    return Corpus(interactions, items)


def check_microlens(source: MicroLensSourceConfig) -> list[Problem]:
    """Return what is wrong with the files of a MicroLens source, without reading their rows."""
    problems = file_problems(source.pairs, "data.source.pairs", (".csv", ".tsv"))
    if not problems and plain_suffix(source.pairs) == ".csv":
        problems = check_file(source.pairs, "data.source.pairs", LOG, {}, LOG_MORE)
    return problems + file_problems(source.titles, "data.source.titles", (".csv",))


def _read_lists(path: Path, audit: Audit) -> pl.LazyFrame:
    """Return one row per listed item; the timestamp is the position in the user's list, from 0."""
    table = Table(path, _LISTS)
    lines = scan(table, ()).select(pl.all().str.strip_chars())
    bad = is_empty(pl.col("user")) | is_empty(pl.col("items"))
    if collect(table, lines.select(bad.sum())).item():
        check_rows(table, [not_empty("user", _stripped("user")), not_empty("items", _stripped("items"))], ())
    items = pl.col("items").str.split(" ").alias("item_id")
    pairs = lines.filter(~bad).select(pl.col("user").alias("user_id"), items).explode("item_id")
    pairs = pairs.filter(~is_empty(pl.col("item_id")))
    if not (rows := collect(table, pairs.select(pl.len())).item()):
        raise UserError(Problem(str(path), "", "no interactions", "lines of user<TAB>item item item"))
    audit.recognise(Recognition(path.name, {"user": "first column", "item": "second column"}, rows, POSITIONS))
    # Lines of one user are one list, however far apart they stand.
    return pairs.with_columns(pl.int_range(pl.len()).over("user_id").alias("timestamp"))


def _stripped(name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars()


def _read_titles(path: Path, audit: Audit) -> pl.DataFrame:
    """Read item,title with or without a header; commas of an unquoted title are part of it.

    Published ids are numbers. Where every line begins with one, each line is a record: one that opens a quotation mark
    and never closes it swallows no other. Any other file is read as csv, row by row in Python (about 1 s per million).
    """
    lines = collect(table_at(path), pl.scan_lines(path, name="line", glob=False)).to_series().str.strip_prefix("\ufeff")
    lines = lines.filter(lines.str.strip_chars() != "")
    if len(lines) and canonical(lines[0].partition(",")[0].strip('"')) in map(canonical, ALIASES["item"]):
        body = lines[1:]
    else:
        body = lines
    if not body.str.contains(_RECORD).all():  # some line continues a record, as only a csv reader can tell
        return _read_csv(path, audit)
    if body.is_empty():
        raise UserError(_no_titles(path))
    title = pl.col("line").str.extract(r"^[^,]*,((?s).*)$").fill_null("")
    plain = pl.coalesce(title.str.extract(_QUOTED).str.replace_all('""', '"'), title)
    return body.to_frame("line").select(pl.col("line").str.extract(r"(\d+)").alias("item_id"), title=plain)


def _read_csv(path: Path, audit: Audit) -> pl.DataFrame:
    table = table_at(path)
    tell_reading(table, audit)
    with explaining(table):
        rows = [(line, row) for line, row in delimited_file(table).records() if any(map(str.strip, row))]
    if rows and canonical(rows[0][1][0]) in map(canonical, ALIASES["item"]):
        del rows[0]
    bad = [Problem(f"{path}:{line}", "item", "empty", "an id", "Correct the row") for line, row in rows
           if not row[0].strip()]  # fmt: skip
    raise_if_any(listed(bad, len(bad), str(path)))
    if not rows:
        raise UserError(_no_titles(path))
    ids, titles = [row[0].strip() for _, row in rows], [",".join(row[1:]) for _, row in rows]
    return pl.DataFrame({"item_id": ids, "title": titles}, schema={"item_id": pl.String, "title": pl.String})


def _no_titles(path: Path) -> Problem:
    return Problem(str(path), "", "no titles", "rows of item,title")
