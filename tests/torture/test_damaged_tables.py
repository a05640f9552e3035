"""Damaged tables: the rows that are read are those of an independent parser, or the difference is told.

A good log and a good table of items in csv, tsv, JSON lines and Parquet are damaged at random, one to three times, and
read. What is read must equal what an oracle reads: Python's `csv`, `json` or PyArrow. Where it does not, the reader
must have refused the file or have said something of it in the audit that it does not say of the good file.

The oracle's conventions:
- Text is UTF-8, a byte order mark at its begin is none of it. What is no UTF-8, or no JSON, the reader must refuse.
- csv: `csv.reader` with the file's separator and no option more. The first row that is not empty is the header; rows
  whose fields are all blank are none; a short row ends in empty fields; one with more fields than the header must be
  refused. Ids are stripped; a row without one must be refused. A title that is blank is no title.
- JSON lines: a line that is not blank is one object. NaN is null. Numbers are equal by their value, true and false are
  their words, lists and objects are equal as JSON. Of a key that stands twice the last counts: Python's own rule.
- Parquet: what PyArrow reads; where it refuses a file and Polars does not, the rows must be those of the good file.
  Where PyArrow refuses its own note on the schema alone, which Parquet does not need, nothing is compared.
- A header in which the oracle does not find its columns by name must be refused, or nothing is compared.
"""

import csv
import io
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from msr_adapter.config.schema import TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.sources import read
from msr_adapter.errors import UserError

NUMBER = int(os.environ.get("MSR_TORTURE_TABLES", "200"))
FIRST = int(os.environ.get("MSR_TORTURE_TABLES_FROM", "0"))
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
FIELDS = {"log": ("user", "item"), "items": ("item", "title")}
TITLES = ("Plain lamp", "City, The", 'say "hi"', "two\nlines", "caf\u00e9 \U0001f600", "tab\there", "C:\\dir", "",
          "x; y", "Old blanket", "Red chair", "Blue clock", "7 samurai", "wooden", "NaN", "null")  # fmt: skip

KEYS = (b'"title": "late", ', b'"user": "u9", ', b'"item": "i99", ', b'"rating": NaN, ', b'"a": {"user": 1}, ',
        b'"item" : 5, ', b'"user": 1.50, ', b'"title": ["a", null], ', b'"title": true, ', b'"x": 1e999, ',
        b'"title": "\\ud83d", ', b'"item": 123456789012345678901234567890, ')  # fmt: skip

Row = tuple[Any, ...]
Damage = Callable[[bytes, random.Random], bytes]


def tables(draw: random.Random) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a good log and of its items."""
    log = [{"user": f"u{n % 5}", "item": f"i{draw.randrange(12):02}", "timestamp": 1_600_000_000 + 977 * n,
            "note": draw.choice(("fine", "so so", "good, really"))} for n in range(24)]  # fmt: skip
    items = [{"item": f"i{n:02}", "title": draw.choice(TITLES) or None, "category": draw.choice("ab")}
             for n in range(14)]  # fmt: skip
    return {"log": log, "items": items}


def written(rows: list[dict[str, Any]], suffix: str, draw: random.Random) -> bytes:
    """Return the rows as a file of a kind, written in one of the ways in which people write it."""
    if suffix == ".parquet":
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer, compression=draw.choice(("snappy", "none", "zstd")))
        return buffer.getvalue()
    if suffix == ".jsonl":
        ascii_, space = draw.random() < 0.5, draw.choice(((", ", ": "), (",", ":")))
        return "".join(json.dumps(row, ensure_ascii=ascii_, separators=space) + "\n" for row in rows).encode()
    text = io.StringIO()
    quoting = draw.choice((csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC))
    ends = draw.choice(("\n", "\n", "\r\n"))
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",", quoting=quoting,
                            lineterminator=ends)  # fmt: skip
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _at(data: bytes, draw: random.Random, text: bytes) -> bytes:
    place = draw.randrange(len(data) + 1)
    return data[:place] + text + data[place:]


def _in_lines(change: Callable[[list[bytes], random.Random], None]) -> Damage:
    def damage(data: bytes, draw: random.Random) -> bytes:
        lines = data.splitlines(keepends=True)
        change(lines, draw)
        return b"".join(lines)

    return damage


def _flip(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 4))):
        changed[draw.randrange(len(changed))] = draw.randrange(256)
    return bytes(changed)


def _delete(data: bytes, draw: random.Random) -> bytes:
    place = draw.randrange(len(data))
    return data[:place] + data[place + draw.choice((1, 1, 2, 30)) :]


def _repeat(lines: list[bytes], draw: random.Random) -> None:
    lines.insert(draw.randrange(len(lines)), draw.choice(lines))


def _lose(lines: list[bytes], draw: random.Random) -> None:
    if len(lines) > 1:
        del lines[draw.randrange(len(lines))]


def _other_end(lines: list[bytes], draw: random.Random) -> None:
    place = draw.randrange(len(lines))
    lines[place] = lines[place].rstrip(b"\r\n") + draw.choice((b"\r", b"\r\n", b"\n", b"\r\r\n", b"\n\n", b""))


def _late_key(lines: list[bytes], draw: random.Random) -> None:
    place = draw.randrange(len(lines))
    key = draw.choice(KEYS)
    lines[place] = lines[place].replace(b"{", b"{" + key, 1)


def _words(*choices: bytes) -> Damage:
    return lambda data, draw: _at(data, draw, draw.choice(choices))


TEXT_DAMAGES: tuple[Damage, ...] = (
    _flip, _delete, lambda data, draw: data[: draw.randrange(len(data))], _in_lines(_repeat), _in_lines(_lose),
    _in_lines(_other_end), _words(b'"'), _words(b'"', b'""', b'"""', b"'"), _words(b"\\", b'\\"', b"\\\\", b"\\N"),
    _words(b"\0"), _words(b"\xef\xbb\xbf"), lambda data, draw: b"\xef\xbb\xbf" + data,
    _words("é".encode("latin-1"), "ü".encode("utf-16")), _words(b",", b"\t", b";", b"\n", b"\r", b"\n\n"),
    _words(b'"\n"', b'",', b',"', b'\t"', b'"\t', b'"\n', b'\n"'), _words("\u2028".encode(), b"\x1a", b"\x0b", b"\x85"),
    lambda data, draw: data.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\r\r\n", b"\n\n"))),
    lambda data, draw: data.replace(b'"', draw.choice((b"", b'\\"', b'""', b"'"))),
)  # fmt: skip
JSON_DAMAGES: tuple[Damage, ...] = (
    *(3 * [_in_lines(_late_key)]), _words(b"NaN", b"-Infinity", b"null", b"{}", b"[]"),
    lambda data, draw: b"[" + data.replace(b"}\n", b"},\n").rstrip(b",\n") + b"]\n",
)  # fmt: skip


def damaged(data: bytes, suffix: str, draw: random.Random) -> bytes:
    """Return a file with one to three damages."""
    if suffix == ".parquet":
        choices: tuple[Damage, ...] = (_flip, _delete, TEXT_DAMAGES[2], _words(b"\0", b"PAR1"))
    else:
        choices = (*TEXT_DAMAGES, *JSON_DAMAGES) if suffix == ".jsonl" else TEXT_DAMAGES
    for _ in range(draw.choice((1, 1, 2, 3))):
        data = draw.choice(choices)(data, draw) or b"\n"
    return data


class RefusedError(Exception):
    """The oracle takes the file for none of its kind."""


def expected(data: bytes, suffix: str, fields: tuple[str, ...]) -> list[Row] | None:
    """Return the rows that the oracle reads; None where it does not find the columns."""
    if suffix == ".parquet":
        try:
            table = pq.read_table(io.BytesIO(data))
            columns = table.to_pydict()
        except Exception as error:
            if "flatbuffers" in str(error):
                return None
            raise RefusedError from error
        return list(zip(*(columns[name] for name in fields), strict=True)) if {*fields} <= set(columns) else None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RefusedError from error
    if suffix == ".jsonl":
        return _expected_json(text, fields)
    rows = [
        row for row in csv.reader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",") if row
    ]
    header = [re.sub(r"[\s_-]", "", name.partition(":")[0]).casefold() for name in rows[0]] if rows else []
    if any(name not in header for name in fields):
        return None
    rows = [row for row in rows[1:] if any(field.strip() for field in row)]
    if any(len(row) > len(header) for row in rows):
        raise RefusedError
    padded = [row + [""] * (len(header) - len(row)) for row in rows]
    return [tuple(row[header.index(name)] for name in fields) for row in padded]


def _expected_json(text: str, fields: tuple[str, ...]) -> list[Row] | None:
    try:
        if text.lstrip(" \t\r\n").startswith("["):
            objects = json.loads(text)
        else:
            objects = [json.loads(line) for line in text.split("\n") if line.strip(" \t\r")]
    except (ValueError, RecursionError) as error:
        raise RefusedError from error
    if not all(isinstance(one, dict) for one in objects):
        raise RefusedError
    keys = {key for one in objects for key in one}
    return [tuple(one.get(name) for name in fields) for one in objects] if {*fields} <= keys else None


def alike(read_: str | None, wanted: Any, suffix: str) -> bool:
    """Return whether a value that was read is what the oracle has."""
    if (
        wanted is None
        or (isinstance(wanted, float) and wanted != wanted)
        or (isinstance(wanted, str) and not wanted.strip())
    ):
        return read_ is None or not read_.strip()
    if read_ is None:
        return isinstance(wanted, list) and not any(wanted)
    if isinstance(wanted, str):
        return read_.strip() == wanted.strip()
    if isinstance(wanted, bool):
        return read_ == str(wanted).lower()
    if isinstance(wanted, int | float):
        return read_ == str(wanted) or (isinstance(wanted, float) and float(read_) == wanted)
    if isinstance(wanted, list) and suffix == ".jsonl":  # a list of texts is joined
        return read_ == " ".join(one for one in wanted if one) or json.loads(read_) == wanted
    return bool(json.loads(read_) == wanted)


def got(folder: Path, which: str, suffix: str) -> tuple[list[tuple[str | None, ...]], set[str]]:
    """Return the rows that are read of a table, and what is said of its file."""
    log, items = folder / f"log{suffix if which == 'log' else '.csv'}", folder / f"items{suffix}"
    audit = Audit()
    source = TableSourceConfig(kind="table", interactions=log, items=items if which == "items" else None)
    corpus = read(source, 0, audit)
    rows: pl.DataFrame | None = corpus.items
    if which == "log":
        rows = corpus.interactions.select("user_id", "item_id").collect()
    assert rows is not None
    told = {finding["text"] for finding in audit.findings if finding["severity"] == "warning"}
    return rows.select("user_id", "item_id").rows() if which == "log" else rows.select("item_id", "title").rows(), told


def verdict(folder: Path, seed: int) -> str:
    """Damage and read one file; return what is silently wrong, or nothing."""
    draw = random.Random(seed)
    suffix, which = SUFFIXES[seed % 4], ("log", "items")[seed // 4 % 2]
    rows = tables(draw)
    good = written(rows[which], suffix, draw)
    bad = damaged(good, suffix, draw)
    path = folder / f"{which}{suffix}"
    (folder / "log.csv").write_bytes(written(rows["log"], ".csv", random.Random(0)))
    path.write_bytes(good)
    _, usual = got(folder, which, suffix)
    path.write_bytes(bad)
    try:
        found, told = got(folder, which, suffix)
    except UserError as error:
        return "" if str(folder) in str(error) else f"a refusal without the file: {error}"
    if told - usual:
        return ""
    try:
        wanted = expected(bad, suffix, FIELDS[which])
    except RefusedError:
        if suffix == ".parquet" and [tuple(row) for row in found] == expected(good, suffix, FIELDS[which]):
            return ""
        return f"read what the oracle refuses: {found[:3]}"
    if wanted is None:
        return ""
    if which == "items":  # of a repeated item the first row counts
        first: dict[str, Row] = {}
        for row in wanted:
            first.setdefault(_id(row[0]), row)
        wanted = list(first.values())
    if len(wanted) != len(found):
        return f"{len(found)} rows instead of {len(wanted)}"
    wrong = [(a, b) for a, b in zip(found, wanted, strict=True) if not all(map(alike, a, b, [suffix] * len(a)))]
    return f"{wrong[:3]}" if wrong else ""


def _id(value: Any) -> str:
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


@pytest.mark.slow
def test_no_damage_changes_rows_without_a_word(tmp_path: Path) -> None:
    seeds = range(FIRST, FIRST + NUMBER)
    wrong = {f"{seed}{SUFFIXES[seed % 4]}": fault for seed in seeds if (fault := verdict(tmp_path, seed))}
    assert wrong == {}
