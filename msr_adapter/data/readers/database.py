"""Queries of a database through ADBC, streamed into Parquet: one transaction that only reads, constant memory.

The address comes from an environment variable and is written nowhere; what a driver says is shown redacted.
"""

import importlib.util
import os
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from msr_adapter.errors import Problem, UserError
from msr_adapter.redaction import quoted

INSTALL = "Run `pip install 'msr-adapter[sql]'`"
_DRIVERS = {
    "postgresql": "adbc_driver_postgresql", "postgres": "adbc_driver_postgresql", "sqlite": "adbc_driver_sqlite",
    "duckdb": "adbc_driver_duckdb",
}  # fmt: skip
"""Scheme of an address -> package."""
_ROW_GROUP = 2**17
_READ_ONLY = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"


@dataclass(frozen=True)
class Database:
    """An address; not to be shown, which its representation respects."""

    variable: str
    """Of the environment, which messages name instead."""
    _url: str

    def __repr__(self) -> str:
        return f"Database({self.variable})"

    @property
    def scheme(self) -> str:
        """What kind of database it is."""
        return self._url.partition(":")[0].lower()

    @property
    def secrets(self) -> list[str]:
        """What no message may hold: the address, and the password in it."""
        with suppress(ValueError):
            parts = urllib.parse.urlsplit(self._url)
            words = [parts.password or "", urllib.parse.unquote(parts.password or ""), parts.netloc.rpartition("@")[0]]
            return [self._url, *(word for word in words if word)]
        return [self._url]

    @contextmanager
    def cursor(self) -> Iterator[Any]:
        """Yield a cursor in a transaction that only reads and sees one state; `UserError` where none can be had."""
        with self.explaining("", "Check that the database runs and that its address is right"):
            connection = self._connect()
        with closing(connection), closing(connection.cursor()) as cursor:
            if self.scheme.startswith("postgres"):
                with self.explaining("", "Let the user of the address read"):
                    cursor.execute(_READ_ONLY)
            yield cursor

    def _connect(self) -> Any:
        driver, address = _DRIVERS[self.scheme], self._driver_address()
        if self.scheme != "duckdb":
            return import_module(f"{driver}.dbapi").connect(address)
        # The driver's own `connect` knows no options, and would open the file to write.
        manager = import_module("adbc_driver_manager")
        library = import_module(driver).driver_path()
        opened = manager.AdbcDatabase(
            driver=library, entrypoint="duckdb_adbc_init", path=address, access_mode="READ_ONLY"
        )
        return import_module("adbc_driver_manager.dbapi").Connection(opened, manager.AdbcConnection(opened))

    def _driver_address(self) -> str:
        if self.scheme.startswith("postgres"):
            return self._url
        path = urllib.parse.unquote(self._url.partition("://")[2].removeprefix("/")) or self._url.partition(":")[2]
        path = path if path.startswith("/") else str(Path(path).absolute())
        if not Path(path).is_file():
            raise UserError(Problem("", self.variable, "names a file of a database that is not there", "an absolute "
                                    "path after four slashes, a relative one after three"))  # fmt: skip
        return f"file:{urllib.parse.quote(path)}?mode=ro" if self.scheme == "sqlite" else path

    @contextmanager
    def explaining(self, setting: str, step: str = "Correct the query") -> Iterator[None]:
        """Turn what the driver raises inside into a `UserError` without secrets."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            if not type(error).__module__.startswith(("adbc", "pyarrow")):
                raise
            where = setting or f"the database of {self.variable}"
            raise UserError(Problem("", where, quoted(error, self.secrets), "", step)) from None


def database_at(variable: str) -> Database:
    """Return the database whose address is in an environment variable; `UserError` where that cannot be."""
    url = os.environ.get(variable, "")
    setting, known = "data.source.url_env", ", ".join(f"{name}://" for name in _DRIVERS)
    if not url:
        raise UserError(Problem("", setting, f"the environment has no {variable}", "the address of a database",
                                f"export {variable}=postgresql://user:password@host/name"))  # fmt: skip
    database = Database(variable, url)
    if database.scheme not in _DRIVERS:
        raise UserError(Problem("", setting, f"{variable} holds no address that is known", known, "Correct it"))
    if importlib.util.find_spec(_DRIVERS[database.scheme]) is None:
        step = INSTALL if database.scheme != "duckdb" else "Run `pip install duckdb`"
        raise UserError(Problem("", setting, f"{_DRIVERS[database.scheme]} is not installed", next_step=step))
    return database


def write_rows(cursor: Any, query: str, target: Path) -> int:
    """Write what a query returns as Parquet, batch by batch; return the number of rows."""
    cursor.execute(query)
    reader, rows = cursor.fetch_record_batch(), 0
    schema = pa.schema([_storable(field) for field in reader.schema])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in reader:
            rows += batch.num_rows
            writer.write_table(_cast(batch, schema), row_group_size=_ROW_GROUP)
    return rows


def schema_of_query(cursor: Any, query: str) -> pa.Schema:
    """Return the columns of a query; no row is fetched."""
    cursor.execute(f"SELECT * FROM ({plain(query)}) AS q LIMIT 0")
    return pa.schema([_storable(field) for field in cursor.fetch_record_batch().schema])


def plain(query: str) -> str:
    """Return a query that can stand within another."""
    return re.sub(r"[;\s]+$", "", query)


def literal(value: object) -> str:
    """Return a value that came from the database as SQL for the same column."""
    if isinstance(value, bool) or value is None or isinstance(value, bytes):
        raise TypeError(f"no order of {type(value).__name__}")
    if isinstance(value, int | float | Decimal):
        return str(value)
    text = value.isoformat(sep=" ") if isinstance(value, datetime) else str(value)
    if isinstance(value, date | str):
        return "'" + text.replace("'", "''") + "'"
    raise TypeError(f"no order of {type(value).__name__}")


def _storable(field: pa.Field) -> pa.Field:
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_null(kind):
        kind = pa.string()
    return pa.field(field.name, kind)


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    columns = [column.storage if isinstance(column, pa.ExtensionArray) else column for column in batch.columns]
    return pa.table([column.cast(field.type) for column, field in zip(columns, schema, strict=True)], schema=schema)
