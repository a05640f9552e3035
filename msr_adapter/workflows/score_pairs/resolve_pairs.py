"""Who and what the rows of a table of pairs name: looked up in the data, with every id that nobody knows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.arrays import Codes
from msr_adapter.data.audit.ids import near_text
from msr_adapter.data.id_forms import near_matches
from msr_adapter.data.pairs_file import PairsFile, lines_of
from msr_adapter.errors import LISTED, Problem
from msr_adapter.workflows.recommend.histories import SeenBeside, read_histories, read_seen
from msr_adapter.workflows.recommend.user_shards import AskedUsers
from msr_adapter.workflows.score_pairs.request import PairsRequest

REASONS = ("", "no user", "unknown user", "user without history", "no item", "unknown item")
"""Why a row has no score, by its number; 0 = it has one."""
_NO_USER, _UNKNOWN_USER, _NO_HISTORY, _NO_ITEM, _UNKNOWN_ITEM = range(1, len(REASONS))
_STEPS = {
    _NO_USER: "Complete the rows",
    _UNKNOWN_USER: "Correct the ids",
    _NO_HISTORY: "Leave them out: there is nothing to tell the model of them",
    _NO_ITEM: "Complete the rows",
    _UNKNOWN_ITEM: "Correct the ids, or describe items of no catalogue by a title: --columns item=NAME,title=NAME",
}


@dataclass(frozen=True)
class KnownUsers:
    """Users who may be scored."""

    numbers: pl.DataFrame
    """user, number: what stands for the user in shards, from 0 on; null = none, by ``reason``."""
    asked: AskedUsers | None
    """Whose summaries are to be written, by number; None: those of the run are taken, an example each."""
    most: int
    """No number is that large."""


@dataclass(frozen=True)
class KnownItems:
    """What may be scored: the catalogue, and what the table describes itself."""

    numbers: pl.DataFrame
    """item, code: its row in ITEMS."""
    inline: pl.DataFrame
    """title, image, code; distinct."""


def users_of(roles: Path, data_dir: Path, wanted: PairsRequest) -> KnownUsers:
    """Look up the users of a table: all that is known of them, or as the evaluation knows them."""
    ids = _distinct(roles, "user")
    return _test_users(ids, data_dir) if wanted.histories == "test" else _all_users(ids, data_dir)


def _all_users(ids: pl.Series, data_dir: Path) -> KnownUsers:
    histories = read_histories(data_dir)
    texts = ids.to_arrow().cast(pa.string())
    places = histories.places(texts)
    beside = read_seen(data_dir, texts, histories.items)
    known = places >= 0
    reasons = np.where(known, 0, np.where(beside.counts() > 0, _NO_HISTORY, _UNKNOWN_USER))
    kept = texts.filter(pa.array(known))
    # What they have seen beside their histories is nothing to a score.
    nothing = SeenBeside(np.zeros(len(kept) + 1, np.int64), np.empty(0, np.int32))
    asked = AskedUsers(kept.to_pylist(), places[known], histories, nothing)
    numbers = np.where(known, np.cumsum(known) - 1, -1)
    return KnownUsers(_numbered(ids, numbers, reasons), asked, int(known.sum()))


def _test_users(ids: pl.Series, data_dir: Path) -> KnownUsers:
    examples = pl.scan_parquet(data_dir / "examples.parquet", glob=False).filter(pl.col("split") == "test")
    # Of several targets of one user, the history before the last one knows most.
    last = examples.group_by("user_id").agg(pl.col("example_id").max()).collect()
    found = ids.to_frame("user_id").join(last, on="user_id", how="left", maintain_order="left")["example_id"]
    numbers = found.fill_null(-1).to_numpy()
    reasons = np.where(numbers >= 0, 0, _UNKNOWN_USER)
    return KnownUsers(_numbered(ids, numbers, reasons), None, int(numbers.max(initial=-1)) + 1)


def _numbered(ids: pl.Series, numbers: Codes, reasons: Codes) -> pl.DataFrame:
    columns = {"user": ids, "number": numbers.astype(np.int32), "user_reason": reasons.astype(np.uint8)}
    return pl.DataFrame(columns)


def items_of(roles: Path, data_dir: Path, *, by_title: bool) -> KnownItems:
    """Look up the items of a table; ``by_title``: titles stand for items whose id is empty or in no catalogue."""
    ids = schema.read_table(data_dir / "items.parquet", schema.ITEMS, ["item_id"])["item_id"]
    catalogue = pl.DataFrame({"item": pl.Series(ids.to_pylist(), dtype=pl.String)}).with_row_index("code")
    numbers = catalogue.select("item", pl.col("code").cast(pl.Int32))
    rows = pl.scan_parquet(roles, glob=False)
    inline = rows.select("title", "image").head(0)
    if by_title:
        described = rows.join(numbers.lazy(), on="item", how="anti").filter(pl.col("title").is_not_null())
        # A join keeps no order, and codes decide which prompts are answered together.
        inline = described.group_by("title", "image").agg(pl.col("row").min()).sort("row").drop("row")
    described_items = inline.collect(engine="streaming")
    codes = pl.Series("code", np.arange(len(ids), len(ids) + described_items.height), dtype=pl.Int32)
    return KnownItems(numbers, described_items.with_columns(codes))


def code_part(part: pl.DataFrame, users: KnownUsers, items: KnownItems) -> pl.DataFrame:
    """Return number, code and reason of every row of a part of the roles, in its order."""
    coded = part.join(users.numbers, on="user", how="left", maintain_order="left")
    coded = coded.join(items.numbers, on="item", how="left", maintain_order="left")
    if items.inline.height:
        coded = coded.join(
            items.inline.rename({"code": "inline"}), on=["title", "image"], how="left", nulls_equal=True,
            maintain_order="left",
        ).with_columns(pl.coalesce("code", "inline").alias("code"))  # fmt: skip
    of_user = pl.when(pl.col("user").is_null()).then(_NO_USER).otherwise(pl.col("user_reason").cast(pl.Int32))
    item = pl.when(pl.col("item").is_null()).then(_NO_ITEM).otherwise(_UNKNOWN_ITEM)
    of_item = pl.when(pl.col("code").is_null()).then(item).otherwise(0)
    reason = pl.when(of_user != 0).then(of_user).otherwise(of_item)
    return coded.select(
        pl.col("number").fill_null(-1).cast(pl.Int32), pl.col("code").fill_null(-1).cast(pl.Int32),
        reason.cast(pl.UInt8).alias("reason"), of_user.cast(pl.UInt8).alias("of_user"),
        of_item.cast(pl.UInt8).alias("of_item"),
    )  # fmt: skip


class Faults:
    """Rows that cannot be scored: how many for each reason, and the first ids with their rows."""

    def __init__(self) -> None:
        self.rows: dict[int, int] = {}
        """Reason -> rows with it; a row may have one for its user and one for its item."""
        self.unscored: dict[int, int] = {}
        """The same, each row by the first of its reasons."""
        self._first: dict[int, dict[str, int]] = {}
        """Reason -> id -> its first row in the file."""

    def add(self, part: pl.DataFrame, coded: pl.DataFrame) -> None:
        """Note the faults of a part of the roles."""
        for reason, count in coded.filter(pl.col("reason") > 0)["reason"].value_counts().iter_rows():
            self.unscored[reason] = self.unscored.get(reason, 0) + count
        for field, column in (("user", "of_user"), ("item", "of_item")):
            bad = part.select("row", pl.col(field).fill_null("")).with_columns(coded[column].alias("reason"))
            bad = bad.filter(pl.col("reason") > 0)
            for reason, count in bad["reason"].value_counts().iter_rows():
                self.rows[reason] = self.rows.get(reason, 0) + count
                first = self._first.setdefault(reason, {})
                # A row without an id is one of its own.
                mine = bad.filter(pl.col("reason") == reason).head(LISTED * LISTED)
                for row, text in mine.select("row", field).iter_rows():
                    if len(first) < LISTED:
                        first.setdefault(text or f"\0{row}", row)

    def problems(self, pairs: PairsFile, known: Mapping[str, pl.Series]) -> Iterator[Problem]:
        """Yield a problem for each reason; ``known`` has the ids that there are, of users and items."""
        lines = lines_of(pairs, [row for first in self._first.values() for row in first.values()])
        for reason, first in sorted(self._first.items()):
            field = "user" if reason <= _NO_HISTORY else "item"
            line = "row" if pairs.table.layout.kind == "parquet" else "line"
            named = [f"{line} {lines[row]}" if text[0] == "\0" else f"{text} ({line} {lines[row]})"
                     for text, row in first.items()]  # fmt: skip
            step = _STEPS[reason]
            if reason in (_UNKNOWN_USER, _UNKNOWN_ITEM):
                near = near_matches(pl.Series(list(first)), known[field])
                step = near_text(near, "the log" if field == "user" else "the catalogue").strip() or step
            yield Problem(str(pairs.table.path), pairs.columns.get(field, field), self._told(reason, named), "",
                          f"{step.rstrip('.')}; or keep the rows without a score: --unknown skip")  # fmt: skip

    def _told(self, reason: int, named: Sequence[str]) -> str:
        rows = self.rows[reason]
        many = f"{rows:,} row{'s' if rows != 1 else ''}"
        return f"{many}: {REASONS[reason]}: {', '.join(named)}" + (" and others" if rows > len(named) else "")


def known_ids(users: KnownUsers, items: KnownItems, data_dir: Path) -> dict[str, pl.Series]:
    """Return the ids that there are, to find those that a wrong one may have been meant for."""
    if users.asked is not None:
        names = users.asked.histories.users.to_pylist()
    else:
        examples = schema.read_table(data_dir / "examples.parquet", schema.EXAMPLES, ["user_id", "split"])
        names = examples.filter(pc.equal(examples["split"], "test"))["user_id"].unique().to_pylist()
    return {"user": pl.Series(names, dtype=pl.String), "item": items.numbers["item"]}


def _distinct(roles: Path, field: str) -> pl.Series:
    column = pl.scan_parquet(roles, glob=False).select(pl.col(field).drop_nulls().unique(maintain_order=True))
    return column.collect(engine="streaming")[field]
