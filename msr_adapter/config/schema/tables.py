"""How a table is written and what its columns are called: parts of several kinds of sources."""

import codecs
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from msr_adapter.config.schema.base import StrictModel, allowed

ONE_CHARACTER = r"^[\x01-\x09\x0b\x0c\x0e-!#-\[\]-~]$"
"""In ASCII; neither a line end nor a quotation mark nor a backslash."""


def _require_names(names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    called = [name for name in names if name != "_"]
    if len(called) < 2 or not all(name.strip() for name in called) or len(set(called)) < len(called):
        shown = ", ".join(map(repr, names)) or "nothing"
        raise ValueError(f"{shown}; expected two different names or more, none empty (_ for a column that is not read)")
    return names


ColumnNames = Annotated[
    tuple[str, ...] | None, Field(json_schema_extra=allowed("a list of names, or null")), AfterValidator(_require_names)
]
"""The columns of a file without a header."""


def _name_of_number(name: object) -> object:
    return str(name) if isinstance(name, int) and not isinstance(name, bool) else name


ColumnName = Annotated[
    str, BeforeValidator(_name_of_number, json_schema_input_type=str | int),
    Field(json_schema_extra=allowed("a name, or the number of a column of a file without a header")),
]  # fmt: skip
"""A column; those of a file without a header are called 1, 2, 3 ... where nothing names them."""


def _require_encoding(name: str | None) -> str | None:
    if name is None:
        return None
    try:
        "".encode(name)  # of text: `hex` and `zip` are codecs too
        return codecs.lookup(name).name
    except (LookupError, TypeError, ValueError):
        raise ValueError(f"{name!r}; expected a name such as utf-8, cp1252, latin-1 or utf-16") from None


Encoding = Annotated[
    str | None, Field(json_schema_extra=allowed("the name of an encoding, or null")), AfterValidator(_require_encoding)
]
"""How the characters of a file of text are written."""

REMOTE_SCHEMES = ("s3", "gs", "gcs", "az", "abfs", "https", "http")
"""What the address of a table begins with that lies in a bucket or on the web; it stands where a path may."""

TableFormat = Literal["csv", "tsv", "jsonl", "parquet", "python", "lists"]
"""What a file holds: rows of fields, JSON, Parquet, Python's dicts, or lines of a user and all of the user's items."""


class ColumnsConfig(StrictModel):
    """Names of the columns of a table, or their numbers where it has no header; null = found by the usual names."""

    user: ColumnName | None = None
    """Column of the user ids, which are text: leading zeros survive."""
    item: ColumnName | None = None
    """Column of the item ids, in the log and in the table of items."""
    timestamp: ColumnName | None = None
    """Seconds or milliseconds since 1970, or dates (ISO, `YYYYMMDD`, days of Excel); `""` = there is none, and the rows
    are in the order in which things happened."""
    order: ColumnName | None = None
    """Column of the log that puts rows of one time in order: numbers from 0, such as a place in the basket or the
    milliseconds of a session, which are added to the time as milliseconds."""
    split: ColumnName | None = None
    """Column of the log that says train, validation or test."""
    rating: ColumnName | None = None
    """Column of the log that `min_rating` is held against."""
    clicked: ColumnName | None = None
    """Column of the log that says 1 of what was clicked and 0 of what was shown and not clicked; null = all rows are
    interactions. What was not clicked is no history, no target and not seen; `negatives.kind: impressions` draws it."""
    impression: ColumnName | None = None
    """Column of the log that says which rows were shown together; null = those of one user at one time. Read with
    `clicked`."""
    session: ColumnName | None = None
    """Column of the log that says which of a user's rows are of one session. With `data.repeats: keep`, one row of a
    user and an item stays of each: in a log without `events` the first, in one with them where `events.same` is
    session. A row without a session is by itself. Without `events`, a column that is the user's too says nothing."""
    title: ColumnName | None = None
    """Column of the item titles."""
    text: ColumnName | None = None
    """Column of the item descriptions; lists are joined."""
    category: ColumnName | None = None
    """Column of the item categories; lists are joined by ` > `."""
    image: ColumnName | None = None
    """Column of the item images: a path, a URL, or the bytes."""


class FileFormatConfig(StrictModel):
    """How a file is written, where it leaves that open; null = told by what the file holds."""

    format: TableFormat | None = None
    """What the file holds, whatever its name ends with; `jsonl` may also be one JSON array of objects."""
    delimiter: str | None = Field(None, pattern=ONE_CHARACTER, json_schema_extra=allowed("one ASCII character"))
    """What separates the fields of a csv or tsv: `","`, `"\\t"`, `";"`, `"|"`."""
    quote: Literal["double", "none"] | None = None
    """double = fields may stand in quotation marks; none = a mark is text like any other."""
    escape: Literal["double", "backslash"] | None = None
    """How a mark is written within a quoted field: doubled (RFC 4180), or behind a backslash."""
    names: ColumnNames = None
    """Names of the columns of a csv or tsv whose first line is a row already, in their order, `_` for those that are
    not read: `[item_id, _, title]`; null = the first line says them."""
    header: bool = True
    """Whether the first line of a csv or tsv names the columns. false without `names` = they are called 1, 2, 3 ..."""
    encoding: Encoding = None
    """How a file of text is encoded (`cp1252`, `latin-1`, `utf-16`); null = UTF-8, or UTF-16 by its first bytes."""


class JoinConfig(StrictModel):
    """A table whose columns belong to the rows of another."""

    path: Path
    """A table of any format, one row for each key; it is held in memory."""
    by: ColumnName
    """The column of the key, in both tables."""
    key: ColumnName | None = None
    """What the joined table calls that column; null = as `by`."""


class HubTableConfig(StrictModel):
    """A Hugging Face data set."""

    path: str = Field(json_schema_extra=allowed("a folder (`./...`), or a data set's name on the hub"))
    """A folder saved by `save_to_disk`, a folder of Parquet files, or a data set's name on the hub."""
    config: str | None = None
    """Which configuration of a hub data set."""
    split: str | None = None
    """One split; null = all of them."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set; a run is only redone when this changes."""
