"""A table of two files: columns of another table, joined to each row by a key."""

import polars as pl

from msr_adapter.config.schema import JoinConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.table_layout import Table, table_at
from msr_adapter.data.readers.table_scan import collect, column_names, file_problems, scan
from msr_adapter.errors import Problem, UserError, plural


def join_problems(table: Table, join: JoinConfig | None, setting: str) -> list[Problem]:
    """Return what is wrong with the file that is joined, ``setting``, and its key; rows are not read."""
    if join is None:
        return []
    if problems := file_problems(join.path, f"{setting}.path"):
        return problems
    found, other = list[Problem](), table_at(join.path)
    for one, name, key in ((table, join.by, "by"), (other, _key(join), "key" if join.key is not None else "by")):
        if name not in (columns := column_names(one)):
            there = f"columns found: {', '.join(columns)}"
            found.append(Problem(str(one.path), f"{setting}.{key}", f"no column {name!r}", there, "Correct it"))
    return found


def with_header_of(table: Table, join: JoinConfig | None) -> Table:
    """Return a table with the names of the columns that `joined` gives it, all empty; no row is read for it."""
    if join is None:
        return table
    header = column_names(table)
    more = [name for name in column_names(table_at(join.path)) if name not in header and name != _key(join)]
    frame = scan(table, header).with_columns(pl.lit(None, pl.String).alias(name) for name in more)
    return Table(table.path, table.layout, frame, table)


def joined(table: Table, join: JoinConfig | None, audit: Audit | None = None) -> Table:
    """Return a table with the columns of another beside its own, which win where names are the same.

    The rows and their order are those of ``table``; what the other lacks is empty, which an ``audit`` counts. The other
    is held in memory. `UserError` where it has a key twice, which would repeat rows.
    """
    if join is None:
        return table
    header, other = column_names(table), table_at(join.path)
    more = [name for name in column_names(other) if name not in header and name != _key(join)]
    right = collect(other, scan(other, [_key(join), *more]).select(_text(_key(join)), *more))
    keys = right["_key"].drop_nulls()
    if len(twice := keys.filter(keys.is_duplicated())):
        others = f", and so do {twice.n_unique() - 1:,} other keys" if twice.n_unique() > 1 else ""
        found = f"{twice[0]!r} stands in {(twice == twice[0]).sum()} rows{others}"
        raise UserError(Problem(str(join.path), _key(join), found, "one row for each key", "Join the other way round"))
    left = scan(table, header).with_columns(_text(join.by))
    if audit is not None:
        lost = collect(table, left.join(right.lazy(), on="_key", how="anti").select(pl.len())).item()
        if lost:
            audit.find("warning", f"{plural(lost, 'row')} of {table.path.name}: their {join.by} is not in "
                       f"{join.path.name}, so that {', '.join(more)} are empty there.", "joins")  # fmt: skip
    rows = left.join(right.lazy(), on="_key", how="left", maintain_order="left").drop("_key")
    return Table(table.path, table.layout, rows, table)


def _key(join: JoinConfig) -> str:
    return join.key if join.key is not None else join.by


def _text(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).str.strip_chars().alias("_key")
