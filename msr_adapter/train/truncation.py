"""Shorter versions of one preference: the tail of a summary goes, or the oldest entries of a listed history."""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Codes
from msr_adapter.candidate_rows import CandidateRows
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.jobs import Job, StageDirs
from msr_adapter.llamafactory.encoder import Encoder
from msr_adapter.llamafactory.row_lengths import UNREADABLE, Measurer, MeasureRequest, measuring
from msr_adapter.progress import Reporter
from msr_adapter.prompts import HistoryItem, Prompts, neutralise
from msr_adapter.prompts.neutralize import TEXT_LIMIT

_LEAST_TOKENS = 8
"""Integers of a summary that must stay: with less, nothing is said of the user any more."""
_MARK = "…"
_WORD = 40
"""A cut moves back to the last blank within so many characters."""
_JOINERS = "\u200c\u200d"


@dataclass
class TruncatedSummary:
    """A text of whole tokens from its beginning."""

    text: str
    offsets: Sequence[tuple[int, int]]
    """First and last character of each token, as the tokenizer says."""
    kept: int = field(init=False)

    def __post_init__(self) -> None:
        self.kept = len(self.offsets)

    def cut(self, tokens: int) -> bool:
        """Drop so many tokens from the end; False if too little would stay. Drops at least one."""
        least = min(_LEAST_TOKENS, len(self.offsets))
        if self.kept <= least:
            return False
        # The mark and the words that are cut whole: the next measurement tells.
        self.kept = max(least, self.kept - max(1, tokens))
        return True

    def now(self) -> str:
        """Return the text as it is now; cut, it ends with `…`."""
        if self.kept == len(self.offsets):
            return self.text
        return self.text[: _boundary(self.text, self.offsets[self.kept - 1][1])].rstrip() + _MARK


@dataclass
class Listed:
    """A listed history, oldest item first."""

    items: Sequence[HistoryItem]
    tell: Callable[[Sequence[HistoryItem]], str]
    count: Callable[[str], int]
    kept: int = field(init=False)

    def __post_init__(self) -> None:
        self.kept = len(self.items)

    def cut(self, tokens: int) -> bool:
        """Drop the oldest items until about so many tokens are gone, at least one item; False if none would stay."""
        if self.kept <= 1:
            return False
        gone = 0
        while self.kept > 1 and (gone == 0 or gone < tokens):
            item = self.items[len(self.items) - self.kept]
            gone += max(1, self.count(f"{item.title} {item.summary}".strip()))
            self.kept -= 1
        return True

    def now(self) -> str:
        """Return the text as it is now: a whole history of the newest items."""
        return self.tell(self.items[len(self.items) - self.kept :])


Shortened = TruncatedSummary | Listed


def summary(text: str, tokenizer: Any) -> TruncatedSummary:
    """Return ``text`` ready to be cut between tokens of ``tokenizer``."""
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return TruncatedSummary(text, [tuple(pair) for pair in read["offset_mapping"]])


def _boundary(text: str, end: int) -> int:
    """Move ``end`` back to where neither a word nor a character ends in the middle."""
    if end >= len(text):
        return len(text)
    if not text[end].isspace() and (blank := text.rfind(" ", max(1, end - _WORD), end)) > 0:
        return blank
    while end > 1 and (_continues(text[end]) or text[end - 1] in _JOINERS):
        end -= 1
    return end


def _continues(character: str) -> bool:
    """Tell whether a sign belongs to the one before it: accents, joiners, variants, tones of skin."""
    return (unicodedata.category(character) in {"Mn", "Mc", "Me"} or character in _JOINERS
            or "\U0001f3fb" <= character <= "\U0001f3ff")  # fmt: skip


# The preference text of every example, cut where one of its prompts would be longer than `train.cutoff_len`.
#
# All candidates of an example are asked with the same text: were each cut on its own, the length of a title would
# decide what the model knows of the user. Question, picture and title stay whole. Lengths are those of the trained
# template, measured after every cut, since tokens shift at a cut.

Histories = Callable[[pa.Table], Sequence[Sequence[HistoryItem]]]
"""Takes a part of EXAMPLES and returns each one's history, oldest item first."""


@dataclass(frozen=True)
class UserTexts:
    """What prompts show of a user, and what it can be told shorter from."""

    prompts: Prompts
    histories: Histories


SPLITS = ("train", "validation", "test")
_CHUNK = 4_096
_SHOWN = 5


@dataclass
class _Example:
    """An example that has too long a prompt."""

    rows: Codes
    """Its rows within its split."""
    text: Shortened
    before: int
    """Integers of its longest prompt as it was."""
    over: int
    """Integers of its longest prompt beyond the limit, now."""


def truncate_summaries(
    train: TrainConfig, dirs: StageDirs, shown: UserTexts, job: Job, *, splits: Sequence[str] = SPLITS,
    encoder: Encoder | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write `users.parquet`: USER_SUMMARIES in which no example of ``splits`` has too long a prompt; counts.

    A summary loses its tail, a listed history its oldest items; `shortened.parquet` beside it names every cut. Raises
    `UserError` with the rows that stay too long without any preference to speak of. Memory: the longest
    length of every example, and some thousand prompts.
    """
    encoder = encoder or Encoder(train.model)
    texts = schema.read_table(dirs.users / "users.parquet", schema.USER_SUMMARIES)
    found: list[tuple[int, str, int, int, int, str]] = []
    longest, failed = 0, dict[int, int]()
    for split in splits:
        rows = CandidateRows(dirs.data, dirs.users, shown.prompts, split, images=train.images)
        if len(rows):
            fitting = _Fitting(train, rows, encoder, shown, dirs.data, texts)
            most, fitted = fitting.run(job.reporter)
            longest = max(longest, most)
            failed |= fitting.failed
            found += [(number, split, one.before, train.cutoff_len + one.over, fitting.count(one.text.now()),
                       one.text.now())
                      for number, one in fitted.items()]  # fmt: skip
    if failed:
        raise UserError(_too_long(failed, dirs.data, train.cutoff_len, longest))
    _write(texts, found, job.out)
    counts = {
        "longest_row": longest, "shortened": len(found), "examples": len(texts),
        "shortened_by_split": {split: sum(one[1] == split for one in found) for split in splits},
        "shortest_left": min((one[4] for one in found), default=None),
    }  # fmt: skip
    if found:
        job.reporter.note(f"  {len(found):,} of {len(texts):,} preferences shortened: their rows had up to {longest:,} "
                      f"tokens, train.cutoff_len is {train.cutoff_len:,}. The shortest keeps {counts['shortest_left']} "
                      "tokens; shortened.parquet names them all")  # fmt: skip
    return counts


class _Fitting:
    """One split: measured, then cut in rounds until all is short enough."""

    def __init__(
        self, train: TrainConfig, rows: CandidateRows, encoder: Encoder, shown: UserTexts, data_dir: Path,
        texts: pa.Table,
    ) -> None:  # fmt: skip
        self._limit, self._rows, self._encoder, self._prompts = train.cutoff_len, rows, encoder, shown.prompts
        self._histories, self._data_dir, self._texts = shown.histories, data_dir, texts
        self._said = train.answers.trained
        self.failed: dict[int, int] = {}
        """Examples that stay too long, and their longest row in tokens."""

    def run(self, reporter: Reporter) -> tuple[int, dict[int, _Example]]:
        """Return the longest row in tokens as it was, and the shortened examples by id."""
        number = len(self._rows)
        images = self._rows.images(np.arange(number)).n_unique()
        with (
            measuring(self._encoder, number, images) as measurer,
            reporter.track("measuring prompts", number) as advance,
        ):
            longest = self._measure_all(measurer, advance)
            fitted = self._too_long(longest)
            waiting = dict(fitted)
            while waiting:
                waiting = {key: one for key, one in waiting.items() if self._cut(key, one)}
                self._measure_again(measurer, waiting)
                waiting = {key: one for key, one in waiting.items() if one.over > 0}
        return int(longest.max()), fitted

    def _measure_all(self, measurer: Measurer, advance: Callable[[int], None]) -> Codes:
        """Return the longest row of each run of rows that share an example, in tokens."""
        lengths = np.empty(len(self._rows), dtype=np.int32)
        begin = 0
        for part in measurer.lengths(self._asked()):
            lengths[begin : begin + len(part)] = part
            begin += len(part)
            advance(len(part))
        _refuse_unreadable(measurer, lengths)
        return np.maximum.reduceat(lengths, self._firsts())

    def _asked(self) -> Iterator[MeasureRequest]:
        for begin in range(0, len(self._rows), _CHUNK):
            taken = self._rows.take(np.arange(begin, min(begin + _CHUNK, len(self._rows))))
            yield from (MeasureRequest(row.prompt, self._said, (row.image.path,) if row.image else ()) for row in taken)

    def _firsts(self) -> Codes:
        return np.flatnonzero(np.diff(self._rows.examples, prepend=-1))

    def _too_long(self, longest: Codes) -> dict[int, _Example]:
        firsts = self._firsts()
        ends = np.append(firsts[1:], len(self._rows))
        long = np.flatnonzero(longest > self._limit)
        ids = self._rows.examples[firsts[long]]
        texts = self._shortenable(ids)
        return {
            int(key): _Example(np.arange(firsts[place], ends[place]), text, int(longest[place]),
                               int(longest[place]) - self._limit)
            for key, place, text in zip(ids, long, texts, strict=True)
        }  # fmt: skip

    def _shortenable(self, ids: Codes) -> list[Shortened]:
        """Return the preference of each example: as its listed history if it is that, else as a text."""
        examples = schema.read_table(self._data_dir / "examples.parquet", schema.EXAMPLES)
        place = np.searchsorted(examples["example_id"].to_numpy(), ids)
        histories = self._histories(examples.take(pa.array(place)))
        known = pl.DataFrame(self._texts).filter(pl.col("example_id").is_in(ids.tolist()))
        texts = dict(known.select("example_id", "summary").iter_rows())
        return [self._one(texts[key], items) for key, items in zip(ids.tolist(), histories, strict=True)]

    def _one(self, text: str, items: Sequence[HistoryItem]) -> Shortened:
        if items and self._prompts.history(items) == text:
            return Listed(items, self._prompts.history, self.count)
        return summary(neutralise(text, TEXT_LIMIT), self._encoder.tokenizer)

    def count(self, text: str) -> int:
        """Return the tokens of ``text`` by itself."""
        return len(self._encoder.tokenizer.encode(text, add_special_tokens=False))

    def _cut(self, key: int, one: _Example) -> bool:
        """Cut what is too much; False, and the example is noted, if nothing more may go."""
        if one.text.cut(one.over):
            return True
        self.failed[key] = self._limit + one.over
        return False

    def _measure_again(self, measurer: Measurer, examples: dict[int, _Example]) -> None:
        asked = (again for one in examples.values() for again in self._again(one))
        lengths = np.concatenate([np.empty(0, np.int64), *measurer.lengths(asked)])
        begin = 0
        for one in examples.values():
            one.over = int(lengths[begin : begin + len(one.rows)].max()) - self._limit
            begin += len(one.rows)

    def _again(self, one: _Example) -> Iterator[MeasureRequest]:
        text = one.text.now()
        for row, title in zip(self._rows.take(one.rows), self._rows.titles(one.rows), strict=True):
            prompt = self._prompts.recommend(text, title, row.image is not None)
            yield MeasureRequest(prompt, self._said, (row.image.path,) if row.image else ())


def _refuse_unreadable(measurer: Measurer, lengths: Codes) -> None:
    if not (lengths == UNREADABLE).any():
        return
    step = "Rebuild the data stage (--force data), which checks every image"
    shown = list(measurer.faults.items())[:_SHOWN]
    raise UserError([Problem(str(path), "", f"cannot be read as an image: {why}", "", step) for path, why in shown])


def _too_long(failed: dict[int, int], data_dir: Path, limit: int, longest: int) -> Problem:
    examples = schema.read_table(data_dir / "examples.parquet", schema.EXAMPLES, ["example_id", "user_id"])
    users = dict(pl.DataFrame(examples).filter(pl.col("example_id").is_in(list(failed)[:_SHOWN])).iter_rows())
    named = [f"example {key} of user {user}: {failed[key]} tokens" for key, user in users.items()]
    more = f" and {len(failed) - _SHOWN:,} more" if len(failed) > _SHOWN else ""
    found = f"{len(failed):,} examples stay too long with their preference cut: {', '.join(named)}{more}"
    step = f"Raise it (the longest row has {longest} tokens whole), or lower train.model.image_max_pixels"
    return Problem("", "train.cutoff_len", found, f"at most {limit}", step)


def _write(texts: pa.Table, found: list[tuple[int, str, int, int, int, str]], out: Path) -> None:
    columns = list(zip(*found, strict=True)) if found else [()] * len(schema.SHORTENED)
    cuts = pa.table([pa.array(column, field.type) for column, field in zip(columns, schema.SHORTENED, strict=True)],
                    schema=schema.SHORTENED)  # fmt: skip
    schema.write_table(cuts, schema.SHORTENED, out / "shortened.parquet")
    new = pl.DataFrame(cuts).select("example_id", pl.col("text").alias("new"))
    merged = pl.DataFrame(texts).join(new, on="example_id", how="left", maintain_order="left")
    merged = merged.select("example_id", pl.coalesce("new", "summary").alias("summary"))
    schema.write_table(merged.to_arrow(), schema.USER_SUMMARIES, out / "users.parquet")
