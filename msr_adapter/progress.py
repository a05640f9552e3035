"""Progress of long work: a bar with an ETA on a terminal, plain lines in a log file, silence with ``--quiet``."""

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from msr_adapter.filesystem import append_text, printable
from msr_adapter.redaction import redact

Advance = Callable[[int], None]

_LOG_EVERY_S = 10.0
_FIRST = 32
"""Answers after which their pace says something of the rest."""
_WORTH_SAYING_S = 60.0


@dataclass
class Meter:
    """What models have written since the first answer: the pace of what is computed, not of what was known before."""

    answers: int = 0
    tokens: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, tokens: int) -> None:
        """Count one answer."""
        self.answers += 1
        self.tokens += tokens

    def pace(self) -> str:
        """Return tokens written per second, in words; empty before the first answer."""
        seconds = max(time.monotonic() - self.began, 1e-9)
        return f"{self.tokens / seconds:,.0f} tokens/s" if self.answers else ""

    def left(self, answers: int) -> float:
        """Return the seconds that ``answers`` more will take at this pace."""
        return (time.monotonic() - self.began) / max(self.answers, 1) * answers


class Reporter:
    """Where a stage says what it does; stages get one and never print themselves."""

    def __init__(self, *, quiet: bool = False, log: Path | None = None, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, quiet=quiet, highlight=False)
        self._log = log

    def with_log(self, log: Path) -> "Reporter":
        """Return a reporter that says the same and also writes to ``log``."""
        return Reporter(log=log, console=self.console)

    def note(self, text: str) -> None:
        """Say one thing: to the terminal and to the log. What looks like a secret is left out."""
        text = redact(printable(text))
        self.console.print(text, markup=False, soft_wrap=True)
        self._write(text)

    def show(self, shown: RenderableType, lines: Iterable[str]) -> None:
        """Show something laid out on the terminal, and write the same as plain ``lines`` to the log."""
        self.console.print(shown)
        for line in lines:
            self._write(line)

    @contextlib.contextmanager
    def track(self, label: str, total: int, meter: Meter | None = None) -> Iterator[Advance]:
        """Yield ``advance(n)``; shows a bar with an ETA on a terminal and a line every ten seconds in the log.

        With a ``meter`` both have its pace, and after the first answers it is said how long the rest will take.
        """
        started = logged = time.monotonic()
        done = 0
        with self._bar() as bar:
            task = bar.add_task(label, total=total, pace="")
            said = meter is None
            if meter is not None:
                meter.began = started

            def advance(count: int = 1) -> None:
                nonlocal done, logged, said
                done += count
                bar.update(task, advance=count, pace=meter.pace() if meter else "")
                if meter is not None and not said and meter.answers >= _FIRST:
                    said = True
                    if (left := meter.left(total - done)) >= _WORTH_SAYING_S:
                        self.note(f"{label}: about {left / 60:.0f} min for what is left, by the first answers")
                if time.monotonic() - logged >= _LOG_EVERY_S:
                    logged = time.monotonic()
                    eta = (logged - started) / max(done, 1) * (total - done)
                    eta = meter.left(total - done) if meter and meter.answers else eta
                    pace = f", {meter.pace()}" if meter and meter.answers else ""
                    self._write(f"{label}: {done}/{total}{pace}, about {eta:.0f} s left")

            yield advance
        self._write(f"{label}: {done}/{total} in {time.monotonic() - started:.1f} s")

    def within(self, advance: Advance) -> "Reporter":
        """Return a reporter for work in parts under one bar: what a part tracks goes to ``advance``.

        What every part notes is shown once, with the first one's numbers; the log has all of it.
        """
        return _Within(self, advance)

    def _bar(self) -> Progress:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   TextColumn("eta"), TimeRemainingColumn(), TextColumn("{task.fields[pace]}"))  # fmt: skip
        return Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)

    def _write(self, text: str) -> None:
        if self._log is not None:
            append_text(self._log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {redact(text)}\n")


class _Within(Reporter):
    def __init__(self, outer: Reporter, advance: Advance) -> None:
        super().__init__(console=outer.console, log=outer._log)
        self._advance = advance
        self._said: set[str] = set()

    def note(self, text: str) -> None:
        kind = re.sub(r"\d[\d.,]*", "#", text)
        if kind in self._said:
            self._write(text)
        else:
            self._said.add(kind)
            super().note(text)

    @contextlib.contextmanager
    def track(self, label: str, total: int, meter: Meter | None = None) -> Iterator[Advance]:
        yield self._advance
