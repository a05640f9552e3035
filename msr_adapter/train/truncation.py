"""The user summary of every example, cut where one of its prompts would be longer than `train.cutoff_len`.

All candidates of an example are asked with the same text: were each cut on its own, the length of a title would
decide what the model knows of the user. Question, image and title stay whole. Lengths are those of the trained
template, measured after every cut, since tokens shift at a cut.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Codes
from msr_adapter.candidate_rows import CandidateFolders, CandidateRows
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.row_lengths import UNREADABLE, Measurer, MeasureRequest, measuring
from msr_adapter.progress import Advance, Reporter
from msr_adapter.prompts import HistoryItem, Prompts, UserFields, neutralise
from msr_adapter.prompts.neutralize import TEXT_LIMIT
from msr_adapter.prompts.stage_tables import UserTable
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train.shorter_summaries import TruncatedHistory, TruncatedSummary, TruncatedText

Histories = Callable[[pa.Table], Sequence[Sequence[HistoryItem]]]
"""Takes a part of EXAMPLES and returns each one's history, oldest item first."""

SPLITS = ("train", "validation", "test")
_CHUNK = 4_096
_SHOWN = 5


@dataclass(frozen=True)
class UserTexts:
    """What prompts show of users: the templates, and the histories that can be listed shorter."""

    prompts: Prompts
    histories: Histories


@dataclass
class _TooLong:
    """An example that has too long a prompt."""

    rows: Codes
    """Its rows within its split."""
    text: TruncatedText
    before: int
    """Tokens of its longest prompt as it was."""
    over: int
    """Tokens of its longest prompt beyond the limit, now."""


def truncate_summaries(
    train: TrainConfig, dirs: StageDirs, shown: UserTexts, job: Job, *, splits: Sequence[str] = SPLITS,
    encoder: Encoder | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Write `users.parquet`: USER_SUMMARIES with which no example of ``splits`` has too long a prompt; return counts.

    A summary loses its tail, a listed history its oldest items; `truncated.parquet` beside it names every cut. Raises
    `UserError` with the rows that stay too long without any summary to speak of. Memory: the longest length of every
    example, and some thousand prompts.
    """
    encoder = encoder or Encoder(train.model)
    texts = schema.read_table(dirs.users / "users.parquet", schema.USER_SUMMARIES)
    cuts: list[dict[str, int | str]] = []
    longest, failed = 0, dict[int, int]()
    for split in splits:
        folders = CandidateFolders(dirs.data, dirs.users, items=dirs.items)
        rows = CandidateRows.read(folders, shown.prompts, split, images=train.images)
        if len(rows):
            truncation = _SplitTruncation(train, rows, encoder, shown, dirs.data, texts)
            most, cut = truncation.run(job.reporter)
            longest = max(longest, most)
            failed |= truncation.failed
            cuts += [
                {"example_id": number, "split": split, "tokens_before": one.before,
                 "tokens_after": train.cutoff_len + one.over, "summary_tokens": truncation.count(one.text.now()),
                 "text": one.text.now()}
                for number, one in cut.items()
            ]  # fmt: skip
    if failed:
        raise UserError(_problem(failed, dirs.data, train.cutoff_len, longest))
    _write(texts, cuts, job.out)
    counts = {
        "longest_row": longest, "truncated": len(cuts), "examples": len(texts),
        "truncated_by_split": {split: sum(cut["split"] == split for cut in cuts) for split in splits},
        "shortest_left": min((cut["summary_tokens"] for cut in cuts), default=None),
    }  # fmt: skip
    if cuts:
        job.reporter.note(f"  {len(cuts):,} of {len(texts):,} user summaries truncated: their rows had up to "
                          f"{longest:,} tokens, train.cutoff_len is {train.cutoff_len:,}. The shortest keeps "
                          f"{counts['shortest_left']} tokens; truncated.parquet names them all")  # fmt: skip
    return counts


@dataclass
class _SplitTruncation:
    """One split: measured, then cut in rounds until all is short enough."""

    train: TrainConfig
    rows: CandidateRows
    encoder: Encoder
    shown: UserTexts
    data_dir: Path
    texts: pa.Table
    failed: dict[int, int] = field(default_factory=dict)
    """Examples that stay too long, and their longest row in tokens."""

    def run(self, reporter: Reporter) -> tuple[int, dict[int, _TooLong]]:
        """Return the longest row in tokens as it was, and the truncated examples by id."""
        number = len(self.rows)
        images = self.rows.images(np.arange(number)).explode().n_unique()
        with (
            measuring(self.encoder, number, images) as measurer,
            reporter.track("measuring prompts", number) as advance,
        ):
            longest = self._measure_all(measurer, advance)
            cut = self._too_long(longest)
            # A cut can leave a prompt too long still (an ellipsis and split words are tokens too): only those that are
            # go into the next round.
            waiting = dict(cut)
            while waiting:
                waiting = {key: one for key, one in waiting.items() if self._cut(key, one)}
                self._measure_again(measurer, waiting)
                waiting = {key: one for key, one in waiting.items() if one.over > 0}
        return int(longest.max()), cut

    def _measure_all(self, measurer: Measurer, advance: Advance) -> Codes:
        """Return the longest row of each example, in tokens, (examples,). Raises `UserError` for unreadable images."""
        lengths = np.empty(len(self.rows), dtype=np.int32)
        begin = 0
        for part in measurer.lengths(self._requests()):
            lengths[begin : begin + len(part)] = part
            begin += len(part)
            advance(len(part))
        if (lengths == UNREADABLE).any():
            step = "Rebuild the data stage (--force data), which checks every image"
            faults = list(measurer.faults.items())[:_SHOWN]
            raise UserError(
                [Problem(str(path), "", f"cannot be read as an image: {why}", "", step) for path, why in faults]
            )
        return np.maximum.reduceat(lengths, self._firsts())  # from each start to the next

    def _requests(self) -> Iterator[MeasureRequest]:
        words = self.train.answers.trained
        for begin in range(0, len(self.rows), _CHUNK):
            chunk = self.rows.take(np.arange(begin, min(begin + _CHUNK, len(self.rows))))
            for row in chunk:
                answers = (row.answer,) if row.answer else words
                yield MeasureRequest(row.prompt, answers, tuple(image.path for image in row.images))

    def _firsts(self) -> Codes:
        """Return where each example's rows begin: they stand together."""
        return np.flatnonzero(np.diff(self.rows.examples, prepend=-1))

    def _too_long(self, longest: Codes) -> dict[int, _TooLong]:
        """Return the examples whose longest row is over the limit, by id, with the texts that can be cut."""
        firsts, limit = self._firsts(), self.train.cutoff_len
        ends = np.append(firsts[1:], len(self.rows))
        long = np.flatnonzero(longest > limit)
        ids = self.rows.examples[firsts[long]]
        return {
            int(key): _TooLong(np.arange(firsts[place], ends[place]), text, int(longest[place]),
                               int(longest[place]) - limit)
            for key, place, text in zip(ids, long, self._texts_to_cut(ids), strict=True)
        }  # fmt: skip

    def _texts_to_cut(self, ids: Codes) -> list[TruncatedText]:
        """Return what prompts show of each example's user: a listed history if it is that, else a summary."""
        examples = schema.read_table(self.data_dir / "examples.parquet", schema.EXAMPLES)
        place = np.searchsorted(examples["example_id"].to_numpy(), ids)
        histories = self.shown.histories(examples.take(pa.array(place)))
        known = pl.DataFrame(self.texts).filter(pl.col("example_id").is_in(ids.tolist()))
        texts = dict(known.select("example_id", "summary").iter_rows())
        users = UserTable(self.data_dir, self.shown.prompts.fields("history"))
        told = map(users.of, examples["user_id"].take(pa.array(place)).to_pylist())
        rows = zip(ids.tolist(), histories, told, strict=True)
        return [self._text_to_cut(texts[key], items, user) for key, items, user in rows]

    def _text_to_cut(self, text: str, items: Sequence[HistoryItem], user: UserFields) -> TruncatedText:
        tell = partial(self.shown.prompts.history, user=user)
        if items and tell(items) == text:
            return TruncatedHistory(items, tell, self.count)
        # Neutralised as prompts do it: a cut of the raw text would be another text once it is shown.
        return TruncatedSummary.of(neutralise(text, TEXT_LIMIT), self.encoder.tokenizer)

    def count(self, text: str) -> int:
        """Return the tokens of ``text`` by itself."""
        return len(self.encoder.tokenizer.encode(text, add_special_tokens=False))

    def _cut(self, key: int, one: _TooLong) -> bool:
        """Cut the text of example ``key`` by what it has too much; if nothing more may go, put it in ``failed``.

        Returns whether anything was cut.
        """
        if one.text.cut(one.over):
            return True
        self.failed[key] = self.train.cutoff_len + one.over
        return False

    def _measure_again(self, measurer: Measurer, examples: dict[int, _TooLong]) -> None:
        """Set ``over`` of each example to what its longest row has too much now."""
        requests = (request for one in examples.values() for request in self._requests_now(one))
        lengths = np.concatenate([np.empty(0, np.int64), *measurer.lengths(requests)])
        begin = 0
        for one in examples.values():
            one.over = int(lengths[begin : begin + len(one.rows)].max()) - self.train.cutoff_len
            begin += len(one.rows)

    def _requests_now(self, one: _TooLong) -> Iterator[MeasureRequest]:
        text = one.text.now()
        for place, row in zip(one.rows, self.rows.take(one.rows), strict=True):
            prompt = self.rows.prompt_with(int(place), text)
            answers = (row.answer,) if row.answer else self.train.answers.trained
            yield MeasureRequest(prompt, answers, tuple(image.path for image in row.images))


def _problem(failed: dict[int, int], data_dir: Path, limit: int, longest: int) -> Problem:
    """Return the problem that names the first of the examples that stay too long, with their users."""
    examples = schema.read_table(data_dir / "examples.parquet", schema.EXAMPLES, ["example_id", "user_id"])
    users = dict(pl.DataFrame(examples).filter(pl.col("example_id").is_in(list(failed)[:_SHOWN])).iter_rows())
    named = [f"example {key} of user {user}: {failed[key]} tokens" for key, user in users.items()]
    more = f" and {len(failed) - _SHOWN:,} more" if len(failed) > _SHOWN else ""
    many = "1 example stays too long with its user summary" if len(failed) == 1 else (
        f"{len(failed):,} examples stay too long with their user summaries")  # fmt: skip
    found = f"{many} truncated: {', '.join(named)}{more}"
    step = f"Raise it (the longest row has {longest} tokens whole), or lower train.model.image_max_pixels"
    return Problem("", "train.cutoff_len", found, f"at most {limit}", step)


def _write(texts: pa.Table, cuts: list[dict[str, int | str]], out: Path) -> None:
    """Write ``truncated.parquet`` (the cuts) and ``users.parquet`` (all summaries, the cut ones in their places)."""
    table = pa.Table.from_pylist(cuts, schema.TRUNCATED)
    schema.write_table(table, schema.TRUNCATED, out / "truncated.parquet")
    new = pl.DataFrame(table).select("example_id", pl.col("text").alias("new"))
    merged = pl.DataFrame(texts).join(new, on="example_id", how="left", maintain_order="left")
    merged = merged.select("example_id", pl.coalesce("new", "summary").alias("summary"))
    schema.write_table(merged.to_arrow(), schema.USER_SUMMARIES, out / "users.parquet")
