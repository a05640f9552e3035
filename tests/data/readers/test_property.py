"""Random tables: every format gives what a plain loop over the rows gives, whatever the ids and texts hold."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from msr_adapter.config.schema import TableSourceConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.interaction_log import encode
from msr_adapter.data.readers.sources import read

NO_CONTROLS = st.characters(exclude_categories=["Cs", "Cc"])
IDS = st.text(NO_CONTROLS, min_size=1, max_size=6).map(str.strip).filter(bool)
WORDS = st.text(st.one_of(NO_CONTROLS, st.sampled_from('",\n\t[]{}\\')), max_size=12)
TIMES = st.integers(1_000_000_000, 2_000_000_000)  # far from 1970, which stands for missing ones
LOGS = st.lists(st.tuples(IDS, IDS, TIMES, st.integers(1, 5)), min_size=1, max_size=12)
ITEMS = st.lists(st.tuples(IDS, WORDS, WORDS), min_size=1, max_size=8)


def as_csv(header: list[str], rows: list[tuple[Any, ...]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([header, *rows])
    return text.getvalue().encode()


def as_jsonl(header: list[str], rows: list[tuple[Any, ...]]) -> bytes:
    return "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows).encode()


def write_all(folder: Path, name: str, header: list[str], rows: list[tuple[Any, ...]]) -> list[Path]:
    paths = [folder / f"{name}.{suffix}" for suffix in ("csv", "csv.gz", "jsonl", "jsonl.gz", "parquet")]
    for path, data in zip(paths, [as_csv(header, rows)] * 2 + [as_jsonl(header, rows)] * 2, strict=False):
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    pl.DataFrame(rows, schema=header, orient="row").write_parquet(paths[-1])
    return paths


def said(text: str) -> str | None:
    """Return a text as a corpus has it: a list that JSON wrote is joined, blank is nothing."""
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, list) and all(part is None or isinstance(part, str) for part in value):
        text = " ".join(part for part in value if part is not None)
    return text if text.strip() else None


@settings(max_examples=30)
@given(LOGS, ITEMS, st.integers(1, 5))
def test_every_format_gives_what_a_loop_gives(
    tmp_path_factory: Any, log: list[tuple[str, str, int, int]], items: list[tuple[str, str, str]], least: int
) -> None:
    folder = tmp_path_factory.mktemp("formats")
    kept = [(user, item, 1000 * time) for user, item, time, stars in log if stars >= least]
    known: dict[str, tuple[str | None, str | None]] = {}
    for item, title, text in items:
        known.setdefault(item, (said(title), said(text)))
    logs = write_all(folder, "log", ["user", "item", "time", "stars"], log)
    tables = write_all(folder, "items", ["item", "title", "description"], items)
    for interactions, catalogue in zip(logs, tables, strict=True):
        if not kept:
            continue
        source = TableSourceConfig(kind="table", interactions=interactions, items=catalogue, min_rating=least)
        audit = Audit()
        corpus = read(source, 0, audit)
        assert corpus.items is not None
        marked = [
            (user, item, 1000 * time, None if stars >= least else "low_rating") for user, item, time, stars in log
        ]
        assert corpus.interactions.collect().rows() == (kept if len(kept) == len(log) else marked), interactions.name
        assert corpus.items.rows() == [(item, *texts) for item, texts in known.items()], catalogue.name
        seen = encode(corpus, audit)
        assert audit.counts.get("interactions_dropped_low_rating", 0) == len(log) - len(kept)
        assert audit.counts["interactions_read"] == len(log)
        assert len(seen.user) == len({(user, item) for user, item, _ in kept})
        assert audit.counts["titles_dropped_duplicate"] == len(items) - len(known)
