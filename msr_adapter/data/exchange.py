"""Candidate lists as files: our Parquet, RecBole's `.inter` with labels, Elliot's text of negatives by user.

RecBole evaluates a labelled `.inter` as it is (`eval_args: {mode: labeled}`, `LABEL_FIELD: label`). Elliot's
`strategy: fixed` reads a line per user, a Python tuple and the negatives; the positive is in its own test file. A
second element of the tuple is a positive, as in the test files of neural collaborative filtering.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.data.audit import listed, raise_if_any
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import atomic_path

LISTS = {"line": pl.Int64, "user_id": pl.String, "item_id": pl.String, "label": pl.Int8}
"""Columns of a file of lists: the row or line of the file, ids as text, 1 = positive, null = neither 0 nor 1."""

_INTER = {"user_id": "user_id:token", "item_id": "item_id:token", "label": "label:float"}
_FIELD = "evaluate.protocol.candidates"


def format_of(path: Path) -> str:
    """Return the format that a file's name stands for: parquet, recbole (`.inter`) or elliot (all else)."""
    return {".parquet": "parquet", ".inter": "recbole"}.get(path.suffix.lower(), "elliot")


def lists_of(data_dir: Path, split: str) -> pl.DataFrame:
    """Return a split's frozen candidates (example_id, user_id, item_id, label) in their order; an example is a user."""
    examples = schema.read_table(data_dir / "examples.parquet", schema.EXAMPLES).select(
        ["example_id", "split", "user_id"]
    )
    rows = schema.read_table(data_dir / "candidates.parquet", schema.CANDIDATES)
    users = pl.DataFrame(examples.filter(pc.equal(examples["split"], split)).select(["example_id", "user_id"]))
    joined = pl.DataFrame(rows).join(users, on="example_id", how="inner", maintain_order="left")
    return joined.select("example_id", "user_id", "item_id", "label")


def write_lists(lists: pl.DataFrame, kind: str, path: Path) -> None:
    """Write lists (user_id, item_id, label; a user's rows together). `UserError` on ids that a text cannot hold."""
    if kind != "parquet":
        raise_if_any(_unwritable(lists))
    with atomic_path(path) as temporary:
        _WRITERS[kind](lists.select("user_id", "item_id", "label"), temporary)


def export_candidates(data_dir: Path, split: str, kind: str | None, path: Path) -> dict[str, Any]:
    """Write a split's lists in the format ``kind`` (None: the name's); return it, counts and the lists' digest.

    Raises `UserError` on faults.
    """
    kind = kind or format_of(path)
    lists = lists_of(data_dir, split)
    if kind != format_of(path):
        step = {"parquet": "Name it .parquet", "recbole": "Name it .inter"}.get(kind, "Name it .tsv")
        raise UserError(
            Problem(str(path), "--out", f"the name of a file of the format {format_of(path)}, not {kind}", "", step)
        )
    try:
        write_lists(lists, kind, path)
    except OSError as error:
        raise UserError(Problem(str(path), "--out", f"cannot be written ({error.strerror})")) from error
    rows = lists.to_arrow().select(schema.CANDIDATES.names).cast(schema.CANDIDATES)
    digest = schema.candidates_digest(lambda name: rows[name].chunks)
    return {"format": kind, "users": lists["user_id"].n_unique(), "rows": lists.height, "digest": digest}


def read_lists(path: Path) -> pl.DataFrame:
    """Read `LISTS`, in the order of the file. `UserError` on what is no such file, with its first bad lines."""
    if not path.is_file():
        raise UserError(Problem(str(path), _FIELD, "no such file", "", "Correct the path; it starts from the YAML"))
    try:
        return _READERS[format_of(path)](path)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise UserError(Problem(str(path), _FIELD, f"cannot be read ({error})", "", "Export it again")) from error


def has_positives(lists: pl.DataFrame) -> bool:
    """Say whether lists name their positives: Elliot's do not."""
    return bool((lists["label"] == 1).any())


def _write_elliot(lists: pl.DataFrame, path: Path) -> None:
    negatives = lists.filter(pl.col("label") == 0).group_by("user_id", maintain_order=True).agg("item_id")
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join([repr((user,)), *items]) + "\n" for user, items in negatives.iter_rows())


def _write_recbole(lists: pl.DataFrame, path: Path) -> None:
    lists.select(pl.col(name).alias(header) for name, header in _INTER.items()).cast(
        {_INTER["label"]: pl.Float64}
    ).write_csv(path, separator="\t", quote_style="never")


def _read_parquet(path: Path) -> pl.DataFrame:
    return _taken(path, pl.scan_parquet(path), {name: name for name in _INTER}, first=1)


def _read_recbole(path: Path) -> pl.DataFrame:
    frame = pl.scan_csv(path, separator="\t", infer_schema=False, quote_char=None)
    header = {name.partition(":")[0]: name for name in frame.collect_schema().names()}
    return _taken(path, frame, {name: header.get(name, name) for name in _INTER}, first=2)


def _taken(path: Path, frame: pl.LazyFrame, columns: dict[str, str], first: int) -> pl.DataFrame:
    """Return `LISTS` of a table whose first row stands in line ``first``. `UserError` on columns that are not there."""
    there = frame.collect_schema().names()
    raise_if_any(
        Problem(str(path), name, "no such column", f"columns found: {', '.join(there)}", f"{_FIELD} wants it")
        for name, column in columns.items()
        if column not in there
    )
    label = pl.col(columns["label"]).cast(pl.Float64, strict=False)
    ids = [pl.col(columns[name]).cast(pl.String).str.strip_chars().alias(name) for name in ("user_id", "item_id")]
    valid = pl.when(label.is_in([0.0, 1.0])).then(label).cast(pl.Int8).alias("label")
    return frame.select(*ids, valid).with_row_index("line", first).cast({"line": pl.Int64}).collect()


def _read_elliot(path: Path) -> pl.DataFrame:
    problems: list[Problem] = []
    columns: dict[str, list[Any]] = {name: [] for name in LISTS}
    with path.open(encoding="utf-8") as file:
        for number, user, positives, negatives in _elliot_lines(file, path, problems):
            size = len(positives) + len(negatives)
            columns["line"] += [number] * size
            columns["user_id"] += [user] * size
            columns["item_id"] += [*positives, *negatives]
            columns["label"] += [1] * len(positives) + [0] * len(negatives)
    raise_if_any(listed(problems, len(problems), str(path)))
    return pl.DataFrame(columns, schema=LISTS)


def _elliot_lines(
    file: Iterator[str], path: Path, problems: list[Problem]
) -> Iterator[tuple[int, str, list[str], list[str]]]:
    """Yield (line, user, positives, negatives)."""
    for number, line in enumerate(file, 1):
        head, *items = line.rstrip("\r\n").split("\t")
        try:
            key = ast.literal_eval(head)
            user, *positives = (str(part) for part in key)
        except (ValueError, SyntaxError, TypeError):
            found = f"the text {head[:40]!r}"
            problems.append(Problem(f"{path}:{number}", "user", found, "a tuple such as ('u1',)", "Or name it .inter"))
            continue
        yield number, user, positives, [item.strip() for item in items if item.strip()]


def _unwritable(lists: pl.DataFrame) -> list[Problem]:
    problems = []
    for field in ("user_id", "item_id"):
        bad = lists.filter(pl.col(field).str.contains(r"[\t\r\n]"))[field].unique().sort()
        if len(bad):
            found = f"{len(bad):,} ids hold a tab or a line break, such as {bad[0]!r}"
            problems.append(Problem("", field, found, "plain text", "Export as parquet"))
    return problems


_WRITERS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    "parquet": lambda lists, path: lists.write_parquet(path),
    "recbole": _write_recbole,
    "elliot": _write_elliot,
}
_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    "parquet": _read_parquet,
    "recbole": _read_recbole,
    "elliot": _read_elliot,
}
FORMATS = tuple(_WRITERS)
