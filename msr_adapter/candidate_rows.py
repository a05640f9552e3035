"""One candidate -> one prompt: the rows that training learns from and scoring asks about, rendered by one function."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.arrays import Codes
from msr_adapter.config.schema import AnswersConfig
from msr_adapter.errors import StageError, plural
from msr_adapter.generation.request import Image, Request
from msr_adapter.prompts import Prompts
from msr_adapter.prompts.vectorized import PromptTable

ANSWERS = AnswersConfig().trained
"""What the recommender is trained to answer, and what is scored, unless `train.answers` says otherwise."""
_CHUNK = 4_096
"""Rows whose prompts are in memory at a time when all are walked through."""


@dataclass(frozen=True)
class CandidateRow:
    """One candidate of one example, as it is asked."""

    example_id: int
    item_id: str
    label: int
    prompt: str
    image: Image | None
    """The file that the prompt's placeholder stands for; its path starts with the data stage's folder."""


def ask(row: CandidateRow, answers: AnswersConfig, identity: str) -> Request:
    """Return the request to the model ``identity`` that scores a row by the log-probabilities of ``answers``."""
    return Request(identity, row.prompt, (row.image,) if row.image else (), answers.trained, also=answers.also)


class CandidateRows(Sequence[CandidateRow]):
    """The candidates of one split in the order of CANDIDATES. A row's prompt is rendered when the row is read."""

    def __init__(
        self,
        data_dir: Path,
        users_dir: Path,
        prompts: Prompts,
        split: str,
        *,
        images: bool,
        quote: Callable[[str], str] | None = None,
    ) -> None:
        """Read the stage tables. With ``images`` false, no row has one (an ablation); ``quote`` escapes all prompts.

        ``users_dir`` has the user summaries that prompts show. Raises `StageError` if an example has no summary or a
        candidate is no item: a stage upstream is broken. Memory: 9 bytes a row, and each example's rendered summary.
        """
        catalogue = PromptCatalogue(data_dir, images=images)
        chunks = schema.read_chunks(data_dir / "candidates.parquet", schema.CANDIDATES)
        kept = read_examples(data_dir, split)
        located = _read_candidates(chunks, kept, catalogue.ids)
        self._fill(located, kept, catalogue, _user_summaries(users_dir, kept), prompts, quote)

    @classmethod
    def of(
        cls, candidates: pa.Table, catalogue: "PromptCatalogue", users_dir: Path, prompts: Prompts
    ) -> "CandidateRows":
        """Return the rows of ``candidates``: whole examples in order, of a catalogue that is at hand."""
        kept = np.unique(candidates["example_id"].to_numpy())
        rows = cls.__new__(cls)
        located = _read_candidates([candidates], kept, catalogue.ids)
        rows._fill(located, kept, catalogue, _user_summaries(users_dir, kept), prompts, None)
        return rows

    @classmethod
    def of_pairs(
        cls, users: Codes, items: Codes, summaries: pl.Series, catalogue: "PromptCatalogue", prompts: Prompts
    ) -> "CandidateRows":
        """Return a row for each user and item (pairs,), in this order: places in ``summaries`` and ``catalogue``."""
        rows = cls.__new__(cls)
        located = (users, items, np.zeros(len(users), np.int8))
        rows._fill(located, np.arange(len(summaries)), catalogue, summaries, prompts, None)
        return rows

    # Filled here, not in `__init__`, so that `of` and `of_pairs` can begin with what is in memory.
    def _fill(
        self, located: tuple[Codes, Codes, Codes], kept: Codes, catalogue: "PromptCatalogue", summaries: pl.Series,
        prompts: Prompts, quote: Callable[[str], str] | None,
    ) -> None:  # fmt: skip
        self._user, item, self.labels = located
        """``labels`` are those of every row, (rows,): 1 = the target, 0 = a negative."""
        self.examples: Codes = kept[self._user]
        """Example of every row, ascending."""
        silent, unknown = summaries.null_count(), int((item < 0).sum())
        if silent or unknown:
            examples = f"{plural(silent, 'example has', 'examples have')} no user summary" if silent else ""
            candidates = f"{plural(unknown, 'candidate is', 'candidates are')} not among the items" if unknown else ""
            what = f"The stages do not fit together: {', '.join(filter(None, (examples, candidates)))}"
            raise StageError(what, "files of different runs were mixed", "run again with --force data")
        self._data_dir = catalogue.data_dir
        # Only items that some row shows are rendered: a block has few of a large catalogue.
        used = np.unique(item)
        self.items: Codes = np.searchsorted(used, item)
        """The place of each row's item among the items of these rows: (rows,), equal for equal items."""
        self._ids, self._titles, self._files, self._digests = catalogue.take(used)
        self._table = PromptTable(prompts, summaries, self._titles, self._files.is_not_null().to_numpy(), quote)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> CandidateRow:  # type: ignore[override]  # no slices: see `take`
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self.take(np.array([index]))[0]

    def __iter__(self) -> Iterator[CandidateRow]:
        for begin in range(0, len(self), _CHUNK):
            yield from self.take(np.arange(begin, min(begin + _CHUNK, len(self))))

    def take(self, rows: Codes) -> list[CandidateRow]:
        """Return the given rows, with their prompts."""
        item = self.items[rows]
        files = zip(self._files.gather(item), self._digests.gather(item), strict=True)
        images = (Image(self._data_dir / path, digest) if path is not None else None for path, digest in files)
        columns = (self.examples[rows].tolist(), self._ids.gather(item), self.labels[rows].tolist(), self.prompts(rows))
        return [CandidateRow(*values) for values in zip(*columns, images, strict=True)]

    def prompts(self, rows: Codes) -> pl.Series:
        """Return the prompts of the given rows."""
        return self._table.take(self._user[rows], self.items[rows])

    def titles(self, rows: Codes) -> pl.Series:
        """Return the title of each of the given rows."""
        return self._titles.gather(self.items[rows])

    def images(self, rows: Codes) -> pl.Series:
        """Return the image of each of the given rows, relative to the data stage's folder; null = none."""
        return self._files.gather(self.items[rows])


class PromptCatalogue:
    """Ids, titles and images of all items, as prompts show them."""

    def __init__(self, data_dir: Path, *, images: bool) -> None:
        """Read ITEMS; without ``images``, none has one."""
        self.data_dir = data_dir
        """Folder that the paths of images are relative to."""
        items = schema.read_table(
            data_dir / "items.parquet", schema.ITEMS, ["item_id", "title", "image", "image_digest"]
        )
        self.ids: pa.ChunkedArray = items["item_id"]
        self._columns = [_series(items[name]) for name in items.column_names]
        if not images:
            self._columns[2] = self._columns[2].clear(len(items))  # polars: that many nulls

    def take(self, places: Codes) -> list[pl.Series]:
        """Return ids, titles, image files (null = none) and digests of the items at ``places``."""
        return [column.gather(places) for column in self._columns]


def read_examples(data_dir: Path, split: str) -> Codes:
    """Return the ids of a split's examples, ascending."""
    examples = schema.read_table(data_dir / "examples.parquet", schema.EXAMPLES, ["example_id", "split"])
    found: Codes = examples.filter(pc.equal(examples["split"], split))["example_id"].to_numpy()
    return found


def count_rows(data_dir: Path, split: str, candidates: Path | None = None) -> int:
    """Return the number of a split's candidates; of those in the folder ``candidates`` where it is given."""
    kept = read_examples(data_dir, split)
    chunks = schema.read_chunks((candidates or data_dir) / "candidates.parquet", schema.CANDIDATES)
    return sum(int(np.isin(chunk["example_id"].to_numpy(), kept).sum()) for chunk in chunks)


@dataclass(frozen=True)
class CandidateFolders:
    """Where candidates and what prompts say of them are read."""

    data: Path
    """Items, examples, candidates."""
    users: Path
    """User summaries."""
    candidates: Path | None = None
    """Other candidates of the same examples; None: those of ``data``."""


def candidate_blocks(
    folders: CandidateFolders, prompts: Prompts, split: str, *, images: bool, size: int
) -> Iterator[CandidateRows]:
    """Yield a split's candidates in order, in blocks of whole examples with about ``size`` rows.

    Memory: that of one block, 8 bytes an example and the items, however many users there are.
    """
    data = folders.data
    kept, catalogue = read_examples(data, split), PromptCatalogue(data, images=images)
    for block in _blocks((folders.candidates or data) / "candidates.parquet", kept, size):
        yield CandidateRows.of(block, catalogue, folders.users, prompts)


def _blocks(path: Path, kept: Codes, size: int) -> Iterator[pa.Table]:
    """Yield rows of the examples ``kept``, whole examples at a time."""
    waiting = schema.CANDIDATES.empty_table()
    for chunk in schema.read_chunks(path, schema.CANDIDATES):
        mine = chunk.filter(pa.array(np.isin(chunk["example_id"].to_numpy(), kept, assume_unique=False)))
        waiting = pa.concat_tables([waiting, mine])
        while len(waiting) > size:
            examples = waiting["example_id"].to_numpy()
            ends = np.flatnonzero(np.diff(examples)) + 1
            if not len(ends):
                break  # one example has more rows than a block, and may go on in the next chunk
            end = int(ends[max(0, int(np.searchsorted(ends, size, side="right")) - 1)])
            yield waiting.slice(0, end).combine_chunks()  # else the slice keeps all that it was cut from
            waiting = waiting.slice(end)
    if len(waiting):
        yield waiting.combine_chunks()


def _read_candidates(chunks: Iterable[pa.Table], kept: Codes, ids: pa.ChunkedArray) -> tuple[Codes, Codes, Codes]:
    """Return of every row the place of its example in ``kept``, that of its item in ``ids`` (-1 = none), its label."""
    # An empty part of the right types: without any chunk there would be nothing to concatenate.
    parts = [(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.int8))]
    value_set = ids.combine_chunks()
    for chunk in chunks:
        example = chunk["example_id"].to_numpy()
        # `searchsorted` gives len(kept) for ids beyond the last, which is no place.
        place = np.minimum(np.searchsorted(kept, example), max(len(kept) - 1, 0))
        mine = kept[place] == example if len(kept) else np.zeros(len(example), dtype=bool)
        item = pc.fill_null(pc.index_in(chunk["item_id"].filter(pa.array(mine)), value_set=value_set), -1)
        parts.append((place[mine].astype(np.int32), item.to_numpy(), chunk["label"].to_numpy()[mine]))
    user, item, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    return user, item, label


def _user_summaries(users_dir: Path, kept: Codes) -> pl.Series:
    """Return the user summary of each example of ``kept``; null = none."""
    bounds = (int(kept.min()), int(kept.max())) if len(kept) else (0, -1)
    table = schema.read_between(users_dir / "users.parquet", schema.USER_SUMMARIES, "example_id", *bounds)
    place = pc.index_in(pa.array(kept), value_set=table["example_id"].combine_chunks())
    return _series(table["summary"]).gather(pl.Series(place))


def _series(column: pa.ChunkedArray) -> pl.Series:
    series = pl.from_arrow(column)
    assert isinstance(series, pl.Series)
    return series
