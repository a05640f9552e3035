"""One candidate -> one prompt: the rows that training learns from and scoring asks about, rendered by one function."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import schema
from msr_adapter.arrays import Codes, Mask
from msr_adapter.config.schema import AnswersConfig
from msr_adapter.errors import StageError, plural
from msr_adapter.generation.request import Image
from msr_adapter.prompt_catalogue import PromptCatalogue, PromptUsers, RecentHistory, user_summaries_of
from msr_adapter.prompts import NOBODY, HistoryItem, Prompts, UserFields
from msr_adapter.prompts.answers import answers_of
from msr_adapter.prompts.stage_tables import users_of_examples
from msr_adapter.prompts.vectorized import PromptRecords, PromptTable, RecentItems

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
    images: tuple[Image, ...]
    """The files that the prompt's placeholders stand for, in order; paths start with the data stage's folder."""
    answer: str = ""
    """The text whose likelihood is asked for; empty where a word answers."""

    @property
    def image(self) -> Image | None:
        """The first image, if there is any."""
        return self.images[0] if self.images else None


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
        self._read(CandidateFolders(data_dir, users_dir), prompts, split, images=images, quote=quote)

    @classmethod
    def read(
        cls, folders: "CandidateFolders", prompts: Prompts, split: str, *, images: bool,
        quote: Callable[[str], str] | None = None,
    ) -> "CandidateRows":  # fmt: skip
        """Return what the constructor does, of folders that may have the item summaries too."""
        rows = cls.__new__(cls)
        rows._read(folders, prompts, split, images=images, quote=quote)
        return rows

    def _read(
        self, folders: "CandidateFolders", prompts: Prompts, split: str, *, images: bool,
        quote: Callable[[str], str] | None,
    ) -> None:  # fmt: skip
        catalogue = PromptCatalogue(folders.data, images=images, items_dir=folders.items)
        chunks = schema.read_chunks(folders.data / "candidates.parquet", schema.CANDIDATES)
        kept = read_examples(folders.data, split)
        located = _Located(*_read_candidates(chunks, kept, catalogue.ids), kept)
        self._fill(located, catalogue, user_summaries_of(folders.users, kept), prompts, quote)

    @classmethod
    def of(
        cls, candidates: pa.Table, catalogue: "PromptCatalogue", users_dir: Path, prompts: Prompts
    ) -> "CandidateRows":
        """Return the rows of ``candidates``: whole examples in order, of a catalogue that is at hand."""
        kept = np.unique(candidates["example_id"].to_numpy())
        rows = cls.__new__(cls)
        located = _Located(*_read_candidates([candidates], kept, catalogue.ids), kept)
        rows._fill(located, catalogue, user_summaries_of(users_dir, kept), prompts, None)
        return rows

    @classmethod
    def of_pairs(
        cls, users: Codes, items: Codes, summaries: pl.Series, catalogue: "PromptCatalogue", prompts: Prompts,
        known: "PromptUsers | None" = None,
    ) -> "CandidateRows":  # fmt: skip
        """Return a row for each user and item (pairs,), in this order: places in ``summaries`` and ``catalogue``.

        ``known`` says whose the summaries are, for templates that say more of users.
        """
        rows = cls.__new__(cls)
        known = known or PromptUsers([""] * len(summaries))
        labels = np.zeros(len(users), np.int8)
        located = _Located(users, items, labels, np.arange(len(summaries)), known.ids, known.histories)
        rows._fill(located, catalogue, summaries, prompts, None)
        return rows

    # Filled here, not in `__init__`, so that `of` and `of_pairs` can begin with what is in memory.
    def _fill(
        self, located: "_Located", catalogue: "PromptCatalogue", summaries: pl.Series, prompts: Prompts,
        quote: Callable[[str], str] | None,
    ) -> None:  # fmt: skip
        self._user, item, self.labels = located.user, located.item, located.label
        """``labels`` are those of every row, (rows,): 1 = the target, 0 = a negative."""
        self.examples: Codes = located.examples[self._user]
        """Example of every row, ascending."""
        silent, unknown = summaries.null_count(), int((item < 0).sum())
        if silent or unknown:
            examples = f"{plural(silent, 'example has', 'examples have')} no user summary" if silent else ""
            candidates = f"{plural(unknown, 'candidate is', 'candidates are')} not among the items" if unknown else ""
            what = f"The stages do not fit together: {', '.join(filter(None, (examples, candidates)))}"
            raise StageError(what, "files of different runs were mixed", "run again with --force data")
        # Only items that some row shows are rendered: a block has few of a large catalogue.
        used = np.unique(item)
        self.items: Codes = np.searchsorted(used, item)
        """The place of each row's item among the items of these rows: (rows,), equal for equal items."""
        self._ids, self._titles = catalogue.take(used)
        self._images = catalogue.images.take(used)
        self._recent = _recent(located, catalogue, prompts)
        self._recent_first = self._recent is not None and prompts.recent_first
        self._records = _records(located, used, catalogue, prompts, self._recent)
        numbers = self._images.numbers if prompts.shows_images else np.zeros(len(used), np.int64)
        self._table = PromptTable(prompts, summaries, self._titles, numbers, quote, self._records)
        self._of_user = prompts.answers_with_user
        self.answer_texts = (
            answers_of(prompts, summaries, self._titles, self._records, quote) if prompts.answer_template else None
        )
        """An answer for each item, or for each user; None where a word answers."""

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
        images = map(self._shown, self._user[rows].tolist(), item.tolist(), self._numbers(rows).tolist())
        columns = (self.examples[rows].tolist(), self._ids.gather(item), self.labels[rows].tolist(), self.prompts(rows))
        answers: Iterable[str] = repeat("", len(rows)) if self.answer_texts is None else self.answers(rows)
        return [CandidateRow(*values) for values in zip(*columns, images, answers, strict=True)]

    def prompts(self, rows: Codes) -> pl.Series:
        """Return the prompts of the given rows."""
        return self._table.take(self._user[rows], self.items[rows])

    def answers(self, rows: Codes) -> pl.Series:
        """Return the text that answers each of the given rows' prompts; only for a question that a text answers."""
        assert self.answer_texts is not None, "a word answers this question"
        return self.answer_texts.gather(self.answer_codes[rows])

    @property
    def answer_codes(self) -> Codes:
        """The place of each row's answer among `answer_texts`: (rows,)."""
        return self._user if self._of_user else self.items

    def titles(self, rows: Codes) -> pl.Series:
        """Return the title of each of the given rows."""
        return self._titles.gather(self.items[rows])

    def prompt_with(self, row: int, summary: str) -> str:
        """Return a row's prompt as it would be with another user summary."""
        item, user = int(self.items[row]), int(self._user[row])
        recent = () if self._recent is None else self._recent.items(user)
        number = int(self._images.numbers[item])
        about = self._records.item(item), self._records.user(user)
        return self._table.prompts.recommend(summary, self._titles[item], number, *about, recent=recent)

    def images(self, rows: Codes) -> pl.Series:
        """Return the images of each of the given rows, in the order of its prompt: lists of files relative to the data
        stage's folder, which may be empty."""
        files = self._images.files.gather(self.items[rows])
        shown = self._numbers(rows)
        if (shown < self._images.numbers[self.items[rows]]).any():
            files = (
                pl.DataFrame({"files": files, "shown": shown}).select(pl.col("files").list.head("shown")).to_series()
            )
        if self._recent is None:
            return files
        users, each = np.unique(self._user[rows], return_inverse=True)
        told = pl.Series([self._recent.files(user) for user in users.tolist()], dtype=pl.List(pl.String)).gather(each)
        return told.list.concat(files) if self._recent_first else files.list.concat(told)

    def shows_image(self, rows: Codes) -> Mask:
        """Return which of the given rows show an image."""
        recent = 0 if self._recent is None else self._recent.numbers[self._user[rows]]
        found: Mask = self._numbers(rows) + recent > 0
        return found

    def _numbers(self, rows: Codes) -> Codes:
        """Return how many images of its candidate each of the given rows shows."""
        return self._table.shown(self._user[rows], self.items[rows])

    def _shown(self, user: int, item: int, number: int) -> tuple[Image, ...]:
        mine = self._images.of(item)[:number] if number else ()
        if self._recent is None:
            return mine
        told = self._recent.images(user)
        return told + mine if self._recent_first else mine + told


class _Located(NamedTuple):
    """Rows whose users and items are known by their places."""

    user: Codes
    """Place among ``examples``, (rows,)."""
    item: Codes
    """Row of ITEMS, (rows,); -1 = none."""
    label: Codes
    examples: Codes
    """Ids of the examples, ascending."""
    user_ids: Sequence[str] | None = None
    """Of whom the examples are; None = EXAMPLES says it."""
    recent: Sequence[Codes] | None = None
    """The history of each example as rows of ITEMS, oldest first; None = EXAMPLES says it."""


def _recent(located: _Located, catalogue: PromptCatalogue, prompts: Prompts) -> RecentHistory | None:
    """Return the latest items of each user's history; None where prompts show none."""
    if not prompts.shows_recent:
        return None
    if located.recent is not None:
        return RecentHistory(catalogue, prompts, [places[-prompts.recent :] for places in located.recent])
    assert located.user_ids is None, "histories are not known"
    return RecentHistory(catalogue, prompts, catalogue.latest(located.examples, prompts.recent))


def _records(
    located: _Located, items: Codes, catalogue: PromptCatalogue, prompts: Prompts, recent: RecentHistory | None
) -> PromptRecords:
    """Return what templates call `item` and `user`, by place in ``items`` (rows of ITEMS) and among the examples."""
    ids = list(located.user_ids or ())

    def item(place: int) -> HistoryItem:
        return catalogue.items(prompts).at(int(items[place]))

    def user(place: int) -> UserFields:
        table = catalogue.users(prompts)
        if table.is_empty:
            return NOBODY
        if not ids:
            ids.extend(users_of_examples(catalogue.data_dir, located.examples))
        return table.of(ids[place])

    return PromptRecords(item, user, None if recent is None else RecentItems(recent.items, recent.numbers))


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
    items: Path | None = None
    """Item summaries, where templates may say those of candidates."""


def candidate_blocks(
    folders: CandidateFolders, prompts: Prompts, split: str, *, images: bool, size: int
) -> Iterator[CandidateRows]:
    """Yield a split's candidates in order, in blocks of whole examples with about ``size`` rows.

    Memory: that of one block, 8 bytes an example and the items, however many users there are.
    """
    data = folders.data
    kept, catalogue = read_examples(data, split), PromptCatalogue(data, images=images, items_dir=folders.items)
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
