"""Attributes of items and users: read, typed, told, and written for whoever renders prompts.

They are no part of what the stage's output is known by: a stage that says some of them counts their digests, so that a
new price makes anew what prices are said in, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.config.schema import AttributeType, DataConfig, UserAttributesConfig
from msr_adapter.data.audit.recognition import Recognition, recognition_lines
from msr_adapter.data.audit.report import Audit, Severity
from msr_adapter.data.readers.attribute_values import ATTRIBUTE, AttributeValues, require_columns, typed
from msr_adapter.data.readers.column_names import find_columns
from msr_adapter.data.readers.id_columns import as_text
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.table_layout import Table, table_at
from msr_adapter.data.readers.table_scan import collect, column_names, file_problems, scan, schema_of, tell_reading
from msr_adapter.data.readers.value_checks import check_rows, not_empty
from msr_adapter.errors import Problem, collecting, plural, raise_if_any
from msr_adapter.files import atomic_path, digest, write_json
from msr_adapter.prompts.attributes import KnownAttributes

_MANY = 0.5
"""Share of missing values from which on it is a warning."""


class AttributeFacts(TypedDict):
    """What is known of one attribute."""

    type: AttributeType
    missing: float
    """Share of the items or users without a value."""
    example: str
    digest: str
    """Of the values of all items or users of the run."""


Facts = dict[str, dict[str, AttributeFacts]]
"""`item` or `user` -> attribute -> what is known of it."""


@dataclass(frozen=True)
class OwnerAttributes:
    """The attributes of the items, or of the users, of a source."""

    ids: pl.Series
    values: Mapping[str, AttributeValues]


@dataclass(frozen=True)
class SourceAttributes:
    """The attributes of a source; none of those that are not configured."""

    items: OwnerAttributes | None = None
    users: OwnerAttributes | None = None
    audit: Audit = field(default_factory=Audit)
    """What was found on the way. Not in the audit of the stage, whose content all later stages depend on."""
    told: tuple[str, ...] = ()
    """A line for each attribute."""

    def known(self) -> KnownAttributes:
        """Return what templates are tried with: types, and which values may be missing."""
        kinds: list[dict[str, str | None]] = []
        missing = set()
        for owner, one in (("item", self.items), ("user", self.users)):
            values = one.values if one else {}
            kinds.append({name: each.kind for name, each in values.items()})
            missing |= {f"{owner}.{name}" for name, each in values.items() if each.missing}
        return KnownAttributes(kinds[0], kinds[1], frozenset(missing))

    @property
    def lines(self) -> list[str]:
        """What people are told of them."""
        found = [f"{one['severity']}: {one['text']} [{one['topic']}]" for one in self.audit.findings]
        return [*recognition_lines(self.audit.recognised), *self.told, *found]


def read_attributes(data: DataConfig, corpus: Corpus) -> SourceAttributes:
    """Return the attributes of the items (in the table that the reader returned) and of the users.

    `UserError` with all that is wrong with either.
    """
    problems, audit = list[Problem](), Audit()
    items = users = None
    with collecting(problems):
        items = _of_items(data, corpus)
    with collecting(problems):
        users = None if data.users is None else _of_users(data.users, audit)
    raise_if_any(problems)
    lines = [line for name, found in (("item", items), ("user", users)) if found for line in _lines(name, found, audit)]
    return SourceAttributes(items, users, audit, tuple(lines))


def check_users(data: DataConfig) -> list[Problem]:
    """Return what is wrong with the table of users, without reading its rows."""
    problems: list[Problem] = []
    if data.users is not None:
        problems += file_problems(data.users.path, "data.users.path")
        if not problems:
            with collecting(problems):
                _user_columns(data.users, table_at(data.users.path))
    return problems


def write_attributes(
    found: SourceAttributes, items: pl.Series, beside: pl.Series, users: pl.Series, out: Path
) -> Facts:
    """Write `item_attributes.parquet` and `user_attributes.parquet` of the run's ``items`` and ``users``.

    What is known of them is that of the items of the log and of the lists, not of those ``beside`` in the catalogue:
    these leave what was made as it is. `attributes.json` says it too. An id that the table lacks has no values.
    """
    facts: Facts = {}
    _tell_unknown_users(found, users)
    for owner, ids, one in (("item", pl.concat([items, beside]), found.items), ("user", users, found.users)):
        if one is None or not one.values:
            continue
        frame = pl.DataFrame({f"{owner}_id": ids}, schema={f"{owner}_id": pl.String})
        known = pl.DataFrame({f"{owner}_id": one.ids, **{name: each.values for name, each in one.values.items()}})
        frame = frame.join(known, on=f"{owner}_id", how="left", maintain_order="left")
        known = frame.head(len(items) if owner == "item" else frame.height)
        facts[owner] = {name: _facts(known[name], each) for name, each in one.values.items()}
        with atomic_path(out / f"{owner}_attributes.parquet") as path:
            pq.write_table(_plain(frame.to_arrow()), path)
    if facts:
        write_json(out / "attributes.json", found.audit.as_json(attributes=facts))
    return facts


def _plain(table: pa.Table) -> pa.Table:
    """Return a table with the types that all readers of Parquet know: text with small offsets."""
    names = {pa.large_string(): pa.string(), pa.string_view(): pa.string(), pa.large_list(pa.large_string()): _LISTS}
    names |= {pa.large_list(pa.string_view()): _LISTS, pa.list_(pa.string_view()): _LISTS}
    fields = [field.with_type(names.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields))


_LISTS = pa.list_(pa.string())


def _facts(values: pl.Series, of: AttributeValues) -> AttributeFacts:
    made = AttributeValues(of.kind, values)
    told = values.cast(pl.String) if isinstance(values.dtype, pl.Date | pl.Datetime) else values
    content = digest([of.kind, *told.to_list()])
    return AttributeFacts(type=of.kind, missing=round(made.missing, 6), example=made.example, digest=content)


def _of_items(data: DataConfig, corpus: Corpus) -> OwnerAttributes | None:
    wanted, types = data.items.attributes, data.items.types
    if not wanted:
        return None
    lacking = [name for name in wanted if corpus.items is None or f"{ATTRIBUTE}{name}" not in corpus.items.columns]
    if corpus.items is None or lacking:
        found = f"{', '.join(lacking)}: this source has no table of items with such columns"
        step = "Name the table of items in data.source, or read it as kind: table"
        raise_if_any([Problem("", "data.items.attributes", found, "columns of the table of items", step)])
        raise AssertionError
    problems, values = list[Problem](), dict[str, AttributeValues]()
    for name, column in wanted.items():
        with collecting(problems):
            values[name] = typed(column, corpus.items[f"{ATTRIBUTE}{name}"], types.get(name), "data.items.attributes")
    raise_if_any(problems)
    return OwnerAttributes(corpus.items["item_id"], values)


def _of_users(config: UserAttributesConfig, audit: Audit) -> OwnerAttributes:
    table = table_at(config.path)
    raise_if_any(file_problems(config.path, "data.users.path"))
    user = _user_columns(config, table)
    wanted = list(dict.fromkeys([user, *config.attributes.values()]))
    source = scan(table, wanted)
    dtype = schema_of(table, source)[user]
    whole = True
    if dtype.is_float():
        whole = bool(collect(table, source.select((pl.col(user) == pl.col(user).round()).all())).item())
    ids = as_text(user, dtype, whole)
    columns = {f"{ATTRIBUTE}{name}": pl.col(column) for name, column in config.attributes.items()}
    frame = collect(table, source.select(user_id=ids, **columns))
    tell_reading(table, audit, frame.height)
    if (frame["user_id"].fill_null("") == "").any():
        check_rows(table, [not_empty(user, ids)], wanted)
        frame = frame.filter(pl.col("user_id").fill_null("") != "")
    rows = frame.height
    frame = frame.unique("user_id", keep="first", maintain_order=True)
    if rows > frame.height:
        audit.count("user_rows_dropped_duplicate", rows - frame.height)
        audit.find("warning", f"{plural(rows - frame.height, 'row')} of {config.path.name} repeat a user: the first "
                   "row of each counts.", "attributes")  # fmt: skip
    problems, values = list[Problem](), dict[str, AttributeValues]()
    for name, column in config.attributes.items():
        with collecting(problems):
            of = config.types.get(name)
            values[name] = typed(column, frame[f"{ATTRIBUTE}{name}"], of, str(config.path))
    raise_if_any(problems)
    taken = {"users": user, **config.attributes}
    unused = tuple(name for name in column_names(table) if name not in wanted)
    audit.recognise(Recognition(config.path.name, taken, rows, "", unused=unused))
    return OwnerAttributes(frame["user_id"], values)


def _user_columns(config: UserAttributesConfig, table: Table) -> str:
    """Return the column of the user ids; `UserError` with the columns that the table lacks."""
    header, problems, user = column_names(table), list[Problem](), ""
    with collecting(problems):
        user = find_columns(str(table.path), header, ("user",), {"user": config.user})["user"]
    problems = [replace(problem, next_step="Set data.users.user to the column of the ids") for problem in problems]
    with collecting(problems):
        require_columns(table, header, config.attributes, "data.users.attributes")
    raise_if_any(problems)
    return user


def _lines(owner: str, found: OwnerAttributes, audit: Audit) -> list[str]:
    """Return a line for each attribute, and note what should be known of it."""
    lines = []
    for name, one in found.values.items():
        called = f"{owner}.{name}"
        share = (
            f"{one.missing:.0%} missing" if one.missing >= 0.005 else "a few missing" if one.missing else "none missing"
        )
        lines.append(f"{called}: {one.kind}, {share}{f', such as {one.example}' if one.example else ''}")
        if one.words:
            audit.find("info", f"{called}: {plural(one.words, 'value')} that are a word for nothing (nan, NULL, none) "
                       "count as missing.", "attributes")  # fmt: skip
        if one.cut:
            audit.find("info", f"{called}: {plural(one.cut, 'value')} shortened for prompts.", "attributes")
        if one.missing >= _MANY:
            audit.find("warning", f"{called} has no value for {one.missing:.0%} of the {owner}s: a template is to say "
                       f"what stands there, as in {{{{ {called} or 'unknown' }}}}.", "attributes")  # fmt: skip
    return lines


def _tell_unknown_users(found: SourceAttributes, users: pl.Series) -> None:
    """Say how many users of the log the table of users lacks."""
    if found.users is None:
        return
    audit = found.audit
    lacking = len(users) - int(np.asarray(users.is_in(found.users.ids.implode())).sum())
    audit.count("users_without_attributes", lacking)
    if lacking:
        severity: Severity = "warning" if lacking == len(users) else "info"
        many = f"{lacking:,} of {plural(len(users), 'user')} of the log"
        audit.find(severity, f"{many} are not in the table of users and have no attributes.", "attributes")
