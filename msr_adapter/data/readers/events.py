"""Events of a shop's log: which are targets, which history alone, which say no, and which are merely seen."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from msr_adapter.arrays import Labels, Mask, Rows
from msr_adapter.config.schema import EventsConfig
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.readers.table_layout import Table
from msr_adapter.data.readers.table_scan import collect
from msr_adapter.errors import Problem, UserError, plural

ROLES = ("target", "history", "negative")
"""What a row of a log with events may be, if it is not merely seen: what can be a target counts before what cannot."""
_NAMED = 12
"""Words that are named of those that nobody has said anything of."""
_NOTHING = "(nothing)"
_DAY = 86_400_000


@dataclass(frozen=True)
class EventWords:
    """The words of rows that are not merely seen: what the number of a word means."""

    words: tuple[str, ...]
    """By role, then as the config names them."""
    roles: tuple[int, ...]
    """Place in `ROLES` of each."""
    weights: tuple[float, ...]
    """What each counts."""
    said: tuple[str, ...]
    """What templates call each."""
    same_ms: int = 1
    """Milliseconds of a moment: of the events of one user with one item in it, one stays where repeats are kept."""

    @classmethod
    def of(cls, said: EventsConfig) -> "EventWords":
        """Return those of a config; a word that can be a target is nothing else."""
        by_role = (said.positive, said.history, said.negative)
        found = {word: role for role, words in reversed([*enumerate(by_role)]) for word in words}
        ordered = sorted(found, key=lambda word: (found[word], by_role[found[word]].index(word)))
        weights = tuple(said.weight.get(word, 1.0) for word in ordered)
        texts = tuple(said.words.get(word, word) for word in ordered)
        same_ms = _DAY if said.same == "day" else 1
        return cls(tuple(ordered), tuple(found[word] for word in ordered), weights, texts, same_ms)

    def are(self, role: str) -> Mask:
        """Return which words (words,) have the role."""
        return np.asarray(np.array(self.roles, dtype=np.int8) == ROLES.index(role))

    @property
    def ranks(self) -> Labels:
        """The strength of each word (words,), 0 = the strongest: of repeated events, the strongest stays."""
        pairs = list(zip(self.roles, (-weight for weight in self.weights), strict=True))
        return np.array([sorted(set(pairs)).index(pair) for pair in pairs], dtype=np.int8)

    @property
    def units(self) -> Rows:
        """What each word counts (words,), in the largest unit in which all weights are whole; 1 where all are equal."""
        thousandths = np.array([round(1000 * weight) for weight in self.weights], dtype=np.int64)
        return np.asarray(thousandths // max(int(np.gcd.reduce(thousandths[~self.are("negative")])), 1))

    @property
    def weighs(self) -> bool:
        """Whether a word counts anything but 1."""
        return any(weight != 1 for weight in self.weights)


@dataclass(frozen=True)
class EventRules:
    """What the words of a column mean."""

    column: str
    said: EventsConfig

    @property
    def _word(self) -> pl.Expr:
        return pl.col(self.column).cast(pl.String).str.strip_chars()

    @property
    def event(self) -> pl.Expr:
        """Return the number of the word in `EventWords`; null = the row is left out, though its item is seen."""
        words = EventWords.of(self.said).words
        numbers = list(range(len(words)))
        found = self._word.replace_strict(list(words), numbers, default=None, return_dtype=pl.Int8)
        return found.alias("event")

    @property
    def reason(self) -> pl.Expr:
        """Return why a row is left out (of `FILTERED`), null = it is kept."""
        shown = self._word.is_in(list(self.said.shown))
        return pl.when(shown).then(pl.lit("not_clicked")).when(self.event.is_null()).then(pl.lit("other_event"))

    def tell(self, table: Table, source: pl.LazyFrame, audit: Audit, *, may_be_empty: bool) -> None:
        """Count the words and say what becomes of each; `UserError` for words that must be known and are not.

        One pass over the column. Only what is added to a log (``may_be_empty``) need not hold a target.
        """
        words = collect(table, source.group_by(word=self._word.fill_null(_NOTHING)).agg(rows=pl.len()))
        counts: dict[str, int] = dict(words.sort("rows", "word", descending=[True, False]).iter_rows())
        said = self.said
        unknown = [word for word in counts if word not in {*EventWords.of(said).words, *said.seen, *said.shown}]
        if unknown and said.unknown == "error":
            raise UserError(self._unknown(table, {word: counts[word] for word in unknown}))
        if not may_be_empty and not any(word in said.positive for word in counts):
            found = f"no row says {' or '.join(said.positive)}, so that nothing could be a target"
            raise UserError(Problem(str(table.path), self.column, found, f"words there: {_listed(counts)}"))
        parts = []
        more = [word for word in said.history if word not in said.positive]
        kinds = (("targets", said.positive), ("history", more), ("negative", said.negative),
                 ("shown", said.shown), ("seen alone", [*said.seen, *unknown]))  # fmt: skip
        for what, chosen in kinds:
            there = {word: counts[word] for word in counts if word in chosen}
            parts += [f"{what}: {_listed(there)}"] if there else []
        told = f"Events of {table.path.name} by {self.column}: {'; '.join(parts)}."
        audit.find("info", f"{told} What is seen alone is no "
                   "history and no target, but never a negative.", "events")  # fmt: skip
        for word in unknown:
            audit.count("interactions_of_unknown_events", counts[word])

    def _unknown(self, table: Table, counts: dict[str, int]) -> Problem:
        found = f"{plural(len(counts), 'word')} of which nothing is said: {_listed(counts)}"
        step = "Add them to positive, history, negative, seen or shown, or set data.source.events.unknown: seen"
        return Problem(str(table.path), self.column, found, "the words of data.source.events", step)


def _listed(counts: dict[str, int]) -> str:
    shown = [f"{word} {number:,}" for word, number in list(counts.items())[:_NAMED]]
    left = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {left:,} more" if left else "")
