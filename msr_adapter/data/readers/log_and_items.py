"""A log and its table of items, whose columns are found by name: what most readers are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from msr_adapter.config.schema import EventsConfig
from msr_adapter.config.schema.sources import MissingTimes
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.attribute_values import require_columns
from msr_adapter.data.readers.clicks import not_read
from msr_adapter.data.readers.column_choice import Configured, choose_columns
from msr_adapter.data.readers.events import EventRules, EventWords
from msr_adapter.data.readers.interactions import LogColumns, read_log
from msr_adapter.data.readers.items import ItemColumns, read_items
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.table_layout import Table, table_at
from msr_adapter.data.readers.table_scan import column_names, file_problems
from msr_adapter.data.readers.value_forms import AS_USUAL, ValueForms
from msr_adapter.errors import Problem, UserError, collecting, raise_if_any

LOG = ("user", "item")
"""Fields that a log must have."""
LOG_MORE = ("timestamp", "order", "split", "clicked", "impression", "session")
"""Fields of a log that are used where they are there."""
ITEM = ("item", "title")
"""Fields that a table of items must have."""
ITEM_MORE = ("text", "category", "image")
"""Fields of a table of items that are used where they are there."""


@dataclass(frozen=True)
class RowRules:
    """Which rows of a log are kept."""

    least: float | None = None
    """The lowest rating."""
    missing_times: MissingTimes = "error"
    """What becomes of rows without a time."""
    drop_without_id: bool | None = None
    """Whether rows that lack an id are left out, and not refused; None = refused, and nobody can ask otherwise."""
    events: EventsConfig | None = None
    """What the events of the log mean; None = it has none."""
    written: ValueForms = AS_USUAL
    """How times and numbers are written."""


@dataclass(frozen=True)
class ItemsSettings:
    """What the pipeline says of the table of items alone."""

    key: str = "items"
    """What it calls the table."""
    columns: Configured | None = None
    """The names of its columns; None = those of the log's settings."""


NO_ITEMS = "No table of items is given, so every title is empty. Set data.source.{} to use titles."


def read_tables(
    log: Table,
    items: Table | None,
    configured: Configured,
    audit: Audit,
    rules: RowRules | None = None,
    of_items: ItemsSettings | None = None,
) -> Corpus:
    """Read a log and its items, whose columns are found by name; `UserError` with the problems of both.

    ``configured`` holds for both, but for what ``of_items`` says of the items.
    """
    of_items = of_items or ItemsSettings()
    problems: list[Problem] = []
    interactions, catalogue = pl.LazyFrame(), None
    headers: list[list[str]] = [[], []]
    for place, table in enumerate((log, items)):
        if table is not None:
            with collecting([]):  # told below, where the table is read
                headers[place] = column_names(table)
    with collecting(problems):
        interactions = read_named_log(log, configured, audit, rules, headers[1])
    if items is not None:
        with collecting(problems):
            columns = configured if of_items.columns is None else of_items.columns
            catalogue = read_named_items(items, columns, audit, headers[0], rules)
    raise_if_any(problems)
    if catalogue is None:
        audit.find("info", NO_ITEMS.format(of_items.key))
    said = None if rules is None or rules.events is None else EventWords.of(rules.events)
    return Corpus(interactions, catalogue, events=said)


def read_named_log(
    table: Table, configured: Configured, audit: Audit, rules: RowRules | None = None, beside: Sequence[str] = ()
) -> pl.LazyFrame:
    """Return the log of a table whose columns are found by name; ``beside`` is the header of the table of items."""
    rules = rules or RowRules()
    chosen = choose_columns(table, log_needs(rules.least), LOG_MORE, configured, beside)
    chosen.tell(audit)
    if "clicked" not in chosen.names and (text := not_read(column_names(table))):
        audit.find("warning", text, "columns")
    split: Literal["asked for", "found"] = "asked for" if configured.get("split") else "found"
    names, events = _with_sessions(table, chosen.names, rules.events, audit), None
    if rules.events is not None:
        require_columns(table, column_names(table), {"event": rules.events.column}, "data.source.events.column")
        names, events = {**names, "event": rules.events.column}, EventRules(rules.events.column, rules.events)
        if rules.events.shown and "impression" not in names:
            text = f"{table.path.name} has no column that says what was shown together: that of one user and time is."
            audit.find("warning", f"{text} Name one in data.source.columns.impression.", "events")
    wanted = LogColumns(
        names,
        rules.least,
        rules.missing_times,
        rules.drop_without_id,
        split=split,
        events=events,
        written=rules.written,
        unused=tuple(name for name in column_names(table) if name not in names.values()),
        passed_over=chosen.passed_over,
    )
    return read_log(table, wanted, audit)


def _with_sessions(table: Table, names: dict[str, str], said: EventsConfig | None, audit: Audit) -> dict[str, str]:
    """Return the names without that of the session where nothing asks for it, which is told."""
    if "session" not in names or (said is not None and said.same == "session"):
        return names
    if said is not None:
        why = f"data.source.events.same is {said.same}; session makes one of what a user does with an item in a session"
    elif names["session"] == names["user"]:
        why = "it is the user"
    else:
        return names
    audit.find("info", f"Sessions of {table.path.name} are not read from {names['session']}: {why}.", "columns")
    return {field: name for field, name in names.items() if field != "session"}


def log_needs(least: float | None) -> tuple[str, ...]:
    """Return the fields that a log must have; ``least`` is the lowest rating that is kept."""
    return LOG if least is None else (*LOG, "rating")


def read_named_items(
    table: Table, configured: Configured, audit: Audit, beside: Sequence[str] = (), rules: RowRules | None = None
) -> pl.DataFrame:
    """Return the items of a table whose columns are found by name; ``beside`` is the header of the log."""
    chosen = choose_columns(table, ITEM, ITEM_MORE, configured, beside)
    chosen.tell(audit)
    names = chosen.names
    more = {field: names[field] for field in ITEM_MORE if field in names}
    columns = ItemColumns(
        names["item"], names["title"], more, unused=chosen.unused, passed_over=chosen.passed_over,
        drop_without_id=None if rules is None else rules.drop_without_id,
    )  # fmt: skip
    return read_items(table, columns, audit)


def check_file(
    path: Path, setting: str, needs: tuple[str, ...], configured: Configured, more: tuple[str, ...] = ()
) -> list[Problem]:
    """Return what is wrong with one file and its header, without reading its rows."""
    return file_problems(path, setting) or header_problems(table_at(path), needs, configured, more)


def header_problems(
    table: Table, needs: tuple[str, ...], configured: Configured, more: tuple[str, ...] = ()
) -> list[Problem]:
    """Return which columns a table lacks, without reading its rows."""
    try:
        choose_columns(table, needs, more, configured)
    except UserError as error:
        return list(error.problems)
    return []
