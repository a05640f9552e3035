"""Candidate lists as files: our Parquet and CSV, RecBole's `.inter` with labels, Elliot's text of negatives by user.

RecBole evaluates a labelled `.inter` as it is (`eval_args: {mode: labeled}`, `LABEL_FIELD: label`). Elliot's
`strategy: fixed` reads a line per user, a Python tuple and the negatives; the positive is in its own test file. A
second element of the tuple is a positive, as in the test files of neural collaborative filtering.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.data.examples import Examples
from msr_adapter.data.id_forms import near_matches
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.candidates import Candidates, ListKeys, with_targets
from msr_adapter.data.negatives.pools import SeenItems
from msr_adapter.data.readers.id_columns import id_text
from msr_adapter.data.readers.table_layout import LAYOUTS, Layout, Table
from msr_adapter.data.readers.table_scan import collect, column_names, of_a_side_file, scan, schema_of, whole_lines
from msr_adapter.errors import LISTED, Problem, UserError, listed, plural, raise_if_any
from msr_adapter.files import atomic_path
from msr_adapter.filesystem import absent, open_file
from msr_adapter.text_tables.file_faults import not_utf8

LISTS = {"line": pl.Int64, "user_id": pl.String, "item_id": pl.String, "label": pl.Int8}
"""Columns of a file of lists: the row or line of the file, ids as text, 1 = positive, null = neither 0 nor 1."""

_STEP = "Use the data, k_core, limit, split and seed that the file was made with, or correct the file"
_INTER = {"user_id": "user_id:token", "item_id": "item_id:token", "label": "label:float"}
_FIELD = "evaluate.protocol.candidates"
_MEND = "Correct the line, or export it again"


@dataclass(frozen=True)
class ListFormat:
    """A format of candidate lists."""

    name: str
    suffix: str
    """Of its files."""
    write: Callable[[pl.DataFrame, Path], None]
    """Writes user_id, item_id and label."""
    read: Callable[[Path], pl.DataFrame]
    """Reads `LISTS`."""


class ExportedLists(TypedDict):
    """What was exported."""

    format: str
    users: int
    rows: int
    digest: str
    """Of the lists, as everywhere."""


def format_of(path: Path) -> ListFormat:
    """Return the format that a file's suffix stands for; Elliot's where it is no format's."""
    return _of_suffix(path) or _format("elliot")


def _of_suffix(path: Path) -> ListFormat | None:
    return next((row for row in FORMATS if row.suffix == path.suffix.lower()), None)


def _format(name: str) -> ListFormat:
    return next(row for row in FORMATS if row.name == name)


def lists_of(data_dir: Path, split: str) -> pl.DataFrame:
    """Return a split's candidate lists (example_id, user_id, item_id, label) in their order, one for each user."""
    examples = schema.read_table(data_dir / "examples.parquet", schema.EXAMPLES).select(
        ["example_id", "split", "user_id"]
    )
    rows = schema.read_table(data_dir / "candidates.parquet", schema.CANDIDATES)
    users = pl.DataFrame(examples.filter(pc.equal(examples["split"], split)).select(["example_id", "user_id"]))
    joined = pl.DataFrame(rows).join(users, on="example_id", how="inner", maintain_order="left")
    return joined.select("example_id", "user_id", "item_id", "label")


def write_lists(lists: pl.DataFrame, name: str, path: Path) -> None:
    """Write lists (user_id, item_id, label; a user's rows together) in the format ``name``.

    `UserError` on ids that a text cannot hold.
    """
    with atomic_path(path) as temporary:
        _format(name).write(lists.select("user_id", "item_id", "label"), temporary)


def export_format(path: Path, name: str | None) -> str:
    """Return the format in which lists are to be written to ``path``: ``name``, or the one that its suffix stands for.

    `UserError` where the suffix is another format's, or nothing says the format.
    """
    named = _of_suffix(path)
    if name is None and named is None:
        known = ", ".join(f"{row.suffix} ({row.name})" for row in FORMATS)
        found, step = f"unknown kind of file {path.suffix!r}", f"Name it {path.with_suffix('.csv').name}, for one"
        raise UserError(Problem(str(path), "--out", found, f"one of {known}; --format elliot takes others too", step))
    name = name or format_of(path).name
    if name != format_of(path).name:
        found = f"the name of a file of the format {format_of(path).name}, not {name}"
        raise UserError(Problem(str(path), "--out", found, "", f"Name it {_format(name).suffix}"))
    return name


def export_candidates(data_dir: Path, split: str, name: str | None, path: Path) -> ExportedLists:
    """Write a split's lists in the format ``name`` (None: the one of the file's suffix); return what was exported.

    `UserError` where `export_format` raises it, on ids that a text cannot hold, and where nothing can be written.
    """
    name = export_format(path, name)
    lists = lists_of(data_dir, split)
    try:
        write_lists(lists, name, path)
    except OSError as error:
        raise UserError(Problem(str(path), "--out", f"cannot be written ({error.strerror})")) from error
    rows = lists.to_arrow().select(schema.CANDIDATES.names).cast(schema.CANDIDATES)
    digest = schema.candidates_digest(lambda name: rows[name].chunks)
    return ExportedLists(format=name, users=lists["user_id"].n_unique(), rows=lists.height, digest=digest)


def read_lists(path: Path) -> pl.DataFrame:
    """Read `LISTS`, in the order of the file. `UserError` on what is no such file, with its first bad lines."""
    if not path.is_file():
        raise UserError(Problem(str(path), _FIELD, absent(path), "", "Correct the path; it starts from the YAML"))
    try:
        return (_format("elliot") if _begins_with_a_tuple(path) else format_of(path)).read(path)
    except UserError as error:
        raise UserError(of_a_side_file(problem, _FIELD, _MEND) for problem in error.problems) from error
    except UnicodeDecodeError as error:
        raise UserError(of_a_side_file(problem, _FIELD, _MEND) for problem in not_utf8(path)) from error


def _begins_with_a_tuple(path: Path) -> bool:
    """Say whether a `.csv` has Elliot's text, as earlier versions wrote it under that name."""
    if path.suffix.lower() != ".csv":
        return False
    with open_file(path) as file:
        return file.read(1) == b"("


def _write_elliot(lists: pl.DataFrame, path: Path) -> None:
    _require_plain_ids(lists)
    several = lists.group_by("user_id").agg(pl.col("label").sum()).filter(pl.col("label") > 1).height
    if several:
        found = f"{plural(several, 'list')} with several positives, which the text of Elliot does not name"
        raise UserError(Problem(str(path.name), "--format", found, "", "Export as parquet, csv or recbole"))
    negatives = lists.filter(pl.col("label") == 0).group_by("user_id", maintain_order=True).agg("item_id")
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines("\t".join([repr((user,)), *items]) + "\n" for user, items in negatives.iter_rows())


def _write_recbole(lists: pl.DataFrame, path: Path) -> None:
    _require_plain_ids(lists)
    lists.select(pl.col(name).alias(header) for name, header in _INTER.items()).cast(
        {_INTER["label"]: pl.Float64}
    ).write_csv(path, separator="\t", quote_style="never")


def _write_csv(lists: pl.DataFrame, path: Path) -> None:
    _require_plain_ids(lists)
    lists.write_csv(path)


def _read_csv(path: Path) -> pl.DataFrame:
    return _selected(Table(path, LAYOUTS[".csv"]), {name: name for name in _INTER})


def _read_parquet(path: Path) -> pl.DataFrame:
    return _selected(Table(path, LAYOUTS[".parquet"]), {name: name for name in _INTER})


def _read_recbole(path: Path) -> pl.DataFrame:
    table = Table(path, Layout("delimited", "\t", quoted=False))
    header = {name.partition(":")[0]: name for name in column_names(table)}
    return _selected(table, {name: header.get(name, name) for name in _INTER})


def _selected(table: Table, columns: dict[str, str]) -> pl.DataFrame:
    """Return `LISTS` of a table. `UserError` on columns that are not there."""
    there, first = column_names(table), 2 if table.is_delimited else 1
    raise_if_any(
        Problem(str(table.path), name, "no such column", f"columns found: {', '.join(there)}", f"{_FIELD} wants it")
        for name, column in columns.items()
        if column not in there
    )
    label = pl.col(columns["label"]).cast(pl.Float64, strict=False)
    valid = pl.when(label.is_in([0.0, 1.0])).then(label).cast(pl.Int8).alias("label")
    frame = scan(table, columns.values())
    types = schema_of(table, frame)
    ids = [id_text(columns[name], types[columns[name]]).alias(name) for name in ("user_id", "item_id")]
    collect(table, frame.select(**whole_lines(table), rows=pl.len()))  # fails on lines with too many fields
    return collect(table, frame.select(*ids, valid).with_row_index("line", first).cast({"line": pl.Int64}))


def _read_elliot(path: Path) -> pl.DataFrame:
    problems: list[Problem] = []
    columns: dict[str, list[object]] = {name: [] for name in LISTS}
    with path.open(encoding="utf-8-sig") as file:
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


def _require_plain_ids(lists: pl.DataFrame) -> None:
    problems = []
    for field in ("user_id", "item_id"):
        bad = lists.filter(pl.col(field).str.contains(r"[\t\r\n]"))[field].unique().sort()
        if len(bad):
            hold = "holds" if len(bad) == 1 else "hold"
            found = f"{plural(len(bad), 'id')} {hold} a tab or a line break, such as {bad[0]!r}"
            problems.append(Problem("", field, found, "plain text", "Export as parquet"))
    raise_if_any(problems)


def read_imported(path: Path, log: Log, examples: Examples, seed: int, exclude: str = "seen") -> Candidates:
    """Return the test lists of a file, each list in the file's order; Elliot's get the split's targets.

    `UserError` with every problem: unknown or untested users, unknown items, negatives that the user has seen (where
    ``exclude`` is `seen`), repeated items, not exactly one positive, another positive than the split's target, no
    negative, test users without a list.
    """
    lists = _coded(read_lists(path), log, examples)
    lists = lists.with_columns(seen=_seen(lists, log) if exclude == "seen" else pl.lit(False))
    beside = examples.beside_targets(log, lists["example"].to_numpy(), lists["item"].to_numpy())
    lists = lists.with_columns(beside=pl.Series(beside, dtype=pl.Boolean) & (pl.col("label") == 1))
    named = bool((lists["label"] == 1).any())  # Elliot's lists do not name their positives
    raise_if_any(_problems(str(path), lists, log, examples, named))
    lists = lists.sort("example", maintain_order=True)
    example, item = lists["example"].to_numpy().astype(np.int64), lists["item"].to_numpy()
    if named:
        return Candidates(example, item, lists["label"].to_numpy())
    # As if they had been drawn: the split's target at its seeded position among the file's negatives.
    tests, counts = np.unique(example, return_counts=True)
    targets = log.item[examples.target[tests]]
    keys = ListKeys(log, seed).of(examples.user[tests], examples.target[tests])
    return with_targets(np.repeat(tests, counts + 1), targets, item, counts, keys)


def _coded(lists: pl.DataFrame, log: Log, examples: Examples) -> pl.DataFrame:
    """Add the codes of users and items, the test example, and that example's target; null = there is none."""
    tests = np.flatnonzero(examples.split == 2)
    of_user = {"user": examples.user[tests], "example": tests, "target": log.item[examples.target[tests]]}
    users = pl.DataFrame({"user_id": log.users, "user": np.arange(len(log.users), dtype=np.int32)})
    items = pl.DataFrame({"item_id": log.items, "item": np.arange(len(log.items), dtype=np.int32)})
    return (
        lists.join(users, on="user_id", how="left", maintain_order="left")
        .join(items, on="item_id", how="left", maintain_order="left")
        .join(pl.DataFrame(of_user), on="user", how="left", maintain_order="left")
    )


def _problems(path: str, lists: pl.DataFrame, log: Log, examples: Examples, named: bool) -> Iterator[Problem]:
    """Yield one problem for each bad row or list, so many of a kind, then the count of the others."""
    is_negative, known = pl.col("label") == 0, pl.col("user").is_not_null() & pl.col("item").is_not_null()
    twice = known & (pl.struct("user", "item").cum_count().over("user", "item") > 1)
    for mask, field, found in (
        (pl.col("label").is_null(), "label", pl.lit("neither 0 nor 1")),
        (pl.col("user").is_null(), "user_id", pl.format("unknown user '{}'", "user_id")),
        (pl.col("user").is_not_null() & pl.col("example").is_null(), "user_id",
         pl.format("the user '{}' is not tested", "user_id")),
        (pl.col("item").is_null(), "item_id", pl.format("unknown item '{}'", "item_id")),
        (known & is_negative & pl.col("seen"), "item_id",
         pl.format("the user '{}' interacted with the negative '{}'", "user_id", "item_id")),
        (twice, "item_id", pl.format("the item '{}' is twice in the list of '{}'", "item_id", "user_id")),
        (known & ~is_negative & (pl.col("item") != pl.col("target")) & ~pl.col("beside"), "item_id",
         pl.format("the positive '{}' of the user '{}' is not the target of the split", "item_id", "user_id")),
    ):  # fmt: skip
        yield from _listed(path, field, lists.filter(mask).select("line", found.alias("found")))
    for field, ids in (("user", log.users), ("item", log.items)):
        unknown = lists.filter(pl.col(field).is_null())[f"{field}_id"].drop_nulls().unique(maintain_order=True)
        if near := near_matches(unknown, ids):
            found_ = f"{len(near):,} of {plural(len(unknown), f'unknown {field}')} {'is' if len(near) == 1 else 'are'} "
            found_ += f"in the log in another form ({near.examples()})"
            yield Problem(path, f"{field}_id", found_, "", f"Write them as the log does: {near.advice()}")
    yield from _list_problems(path, lists, log, examples, named)


def _list_problems(path: str, lists: pl.DataFrame, log: Log, examples: Examples, named: bool) -> Iterator[Problem]:
    tested = lists.filter(pl.col("example").is_not_null())
    sums = tested.group_by("user_id", "example", maintain_order=True).agg(
        pl.col("line").first(),
        positives=((pl.col("label") == 1) & ~pl.col("beside")).sum(),
        negatives=(pl.col("label") == 0).sum(),
    )
    if named:
        found = pl.format("{} positives for the user '{}'; exactly one is needed", "positives", "user_id")
        yield from _listed(path, "label", sums.filter(pl.col("positives") != 1).select("line", found=found))
    found = pl.format("no negative for the user '{}'", "user_id")
    yield from _listed(path, "label", sums.filter(pl.col("negatives") == 0).select("line", found=found))
    tests = np.flatnonzero(examples.split == 2)
    missing = tests[~np.isin(tests, sums["example"].to_numpy())]
    if len(missing):
        users = ", ".join(map(repr, log.users.gather(examples.user[missing[:3]]).to_list()))
        found_ = f"{len(missing):,} of {len(tests):,} test users have no list (such as {users})"
        yield Problem(path, "", found_, "a list for every test user", _STEP)


def _seen(lists: pl.DataFrame, log: Log) -> pl.Series:
    """Return whether the user interacted with the item in any split; false where one of them is unknown."""
    known = (lists["user"].is_not_null() & lists["item"].is_not_null()).to_numpy()
    result = np.zeros(len(lists), dtype=bool)
    user, item = (lists[name].fill_null(0).to_numpy()[known] for name in ("user", "item"))
    result[known] = SeenItems(log, log.bounds(), user).by(np.arange(len(user)), item)
    return pl.Series(result)


def _listed(path: str, field: str, bad: pl.DataFrame) -> Iterator[Problem]:
    for line, found in bad.head(LISTED).iter_rows():
        yield Problem(f"{path}:{line}", field, found, "", _STEP if line == bad["line"][0] else "")
    if bad.height > LISTED:
        yield Problem(path, field, f"and {bad.height - LISTED:,} more like these")


FORMATS = (
    ListFormat("parquet", ".parquet", lambda lists, path: lists.write_parquet(path), _read_parquet),
    ListFormat("csv", ".csv", _write_csv, _read_csv),
    ListFormat("recbole", ".inter", _write_recbole, _read_recbole),
    ListFormat("elliot", ".tsv", _write_elliot, _read_elliot),
)
"""A file with a suffix of its own is Elliot's, whose files have no suffix in common."""
