"""Progress of long work: a bar with an ETA on a terminal, lines on a pipe and in a log, silence with ``--quiet``."""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from msr_adapter.filesystem import append_text, printable
from msr_adapter.redaction import redact

Advance = Callable[[int], None]

LINE_EVERY_S = 30.0
"""Between two lines of progress, in the log and on a pipe; what takes less has none on a pipe."""
PIPE_WIDTH = 200
"""Columns of what is laid out on a pipe, where nothing is to be folded."""
_FIRST = 32
"""Answers after which their pace says something of the rest."""
_WORTH_SAYING_S = 60.0
_IN_MINUTES_S, _IN_HOURS_S = 100.0, 6_000.0
"""Seconds from which on a time is told in minutes, and in hours."""


def now() -> float:
    """Return the seconds of a clock that nobody sets back."""
    return time.monotonic()


def spoken(seconds: float) -> str:
    """Return how long something takes, as exact as anybody can tell: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < _IN_MINUTES_S:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if seconds < _IN_HOURS_S else f"{minutes // 60} h {minutes % 60} min"


@dataclass
class Meter:
    """What models have written since the first answer: the pace of what is computed, not of what was known before."""

    answers: int = 0
    tokens: int = 0
    began: float = field(default_factory=lambda: now())

    def add(self, tokens: int) -> None:
        """Count one answer."""
        self.answers += 1
        self.tokens += tokens

    def pace(self) -> str:
        """Return tokens written per second, in words; empty before the first answer."""
        seconds = max(now() - self.began, 1e-9)
        return f"{self.tokens / seconds:,.0f} tokens/s" if self.answers else ""

    def left(self, answers: int) -> float:
        """Return the seconds that ``answers`` more will take at this pace."""
        return (now() - self.began) / max(self.answers, 1) * answers


class Reporter:
    """Where a stage says what it does; stages get one and never print themselves."""

    def __init__(self, *, quiet: bool = False, log: Path | None = None, console: Console | None = None) -> None:
        self.console = console or _standard_error(quiet)
        self._log = log

    def with_log(self, log: Path) -> "Reporter":
        """Return a reporter that says the same and also writes to ``log``."""
        return Reporter(log=log, console=self.console)

    def note(self, text: str) -> None:
        """Say one thing: to the terminal and to the log. What looks like a secret is left out."""
        text = redact(printable(text))
        self._print(text)
        self._write(text)

    def show(self, shown: RenderableType, lines: Iterable[str]) -> None:
        """Show something laid out on the terminal, and write the same as plain ``lines`` to the log."""
        self.console.print(shown)
        for line in lines:
            self._write(line)

    @contextlib.contextmanager
    def track(self, label: str, total: int, meter: Meter | None = None) -> Iterator[Advance]:
        """Yield ``advance(n)``; shows a bar with an ETA on a terminal, else a line every half minute, as in the log.

        The lines come whether anything advances or not: a model that is loading is told from one that hangs. With a
        ``meter`` they have its pace, and after the first answers it is said how long the rest will take.
        """
        work = _Work(label, total, meter)
        with self._bar() as bar, _Heartbeat(lambda: self._tell_if_due(work)):
            task = bar.add_task(label, total=total, work=work)
            said = meter is None
            if meter is not None:
                meter.began = work.started

            def advance(count: int = 1) -> None:
                nonlocal said
                work.done += count
                bar.update(task, advance=count)
                if meter is not None and not said and meter.answers >= _FIRST:
                    said = True
                    if (left := work.left() or 0) >= _WORTH_SAYING_S:
                        self.note(f"{label}: about {spoken(left)} for what is left, by the first answers")
                self._tell_if_due(work)

            yield advance
        self._tell(f"{label}: {work.done}/{total} in {now() - work.started:.1f} s", plain=work.told)

    @contextlib.contextmanager
    def waiting(self, label: str) -> Iterator[None]:
        """Show that something without a foreseeable end goes on; off a terminal, the time so far every half minute."""
        work = _Work(label, 0, None)
        with self._bar() as bar, _Heartbeat(lambda: self._tell_if_due(work)):
            bar.add_task(label, total=None, work=work)
            yield

    def _tell_if_due(self, work: "_Work") -> None:
        if work.due():
            self._tell(work.line(), plain=True)

    def _tell(self, line: str, *, plain: bool) -> None:
        """Write a line of progress to the log, and ``plain`` to a pipe; a terminal has its bar."""
        self._write(line)
        if plain and not self.console.is_terminal:
            self._print(redact(printable(line)))

    def _print(self, text: str) -> None:
        """Print a line: wrapped between words on a terminal, whole on a pipe."""
        # As `Text`: in a plain string Rich would make pictures of what stands between colons.
        self.console.print(Text(text), soft_wrap=not self.console.is_terminal)

    def within(self, advance: Advance) -> "Reporter":
        """Return a reporter for work in parts under one bar: what a part tracks goes to ``advance``.

        What every part notes is shown once, with the first one's numbers; the log has all of it.
        """
        return _Within(self, advance)

    def _bar(self) -> Progress:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                   _RestColumn())  # fmt: skip
        disabled = not self.console.is_terminal or self.console.quiet
        return Progress(*columns, console=self.console, transient=True, disable=disabled)

    def _write(self, text: str) -> None:
        if self._log is not None:
            append_text(self._log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {redact(text)}\n")


def _standard_error(quiet: bool) -> Console:
    console = Console(stderr=True, quiet=quiet, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    return console


@dataclass
class _Work:
    """Long work under way, as its lines of progress tell it."""

    label: str
    total: int
    """Of what is done one by one; 0 where nobody can count it."""
    meter: Meter | None
    done: int = 0
    told: bool = False
    """A line was told."""
    started: float = field(default_factory=lambda: now())
    _last: float = field(default_factory=lambda: now())
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def due(self) -> bool:
        """Say whether it is time for a line; whoever asks first, the work or the heartbeat, is to tell it."""
        with self._lock:
            if now() - self._last < LINE_EVERY_S:
                return False
            self._last, self.told = now(), True
            return True

    def left(self) -> float | None:
        """Return the seconds that the rest will take, the one estimate that bar, lines and notes tell; None: no idea.

        By the pace of what models have answered where a meter knows it, for answers from a cache take no time.
        """
        rest = self.total - self.done
        if self.meter and self.meter.answers:
            return self.meter.left(rest)
        return (now() - self.started) / self.done * rest if self.done and self.total else None

    def rest(self) -> str:
        """Return the pace and how long the rest takes, as far as anything says so."""
        left = self.left()
        pace = self.meter.pace() if self.meter else ""
        return ", ".join(filter(None, [pace, f"about {spoken(left)} left" if left is not None else ""]))

    def line(self) -> str:
        """Return how far the work is, its pace, and how long the rest takes, as far as anything says so."""
        seconds = now() - self.started
        if not self.total:
            return f"{self.label}: {spoken(seconds)} so far"
        return f"{self.label}: {self.done}/{self.total}, {self.rest() or f'{spoken(seconds)} so far'}"


class _RestColumn(ProgressColumn):
    """What a line of progress tells of the rest, beside the bar."""

    def render(self, task: Task) -> Text:
        work: _Work = task.fields["work"]
        return Text(work.rest())


class _Heartbeat:
    """Calls ``beat`` from a thread now and then while the block runs: some work says nothing for minutes."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(beat,), name="msr progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self, beat: Callable[[], None]) -> None:
        while not self._ended.wait(LINE_EVERY_S):
            with contextlib.suppress(OSError):  # a full disk, a pipe that was closed: the work itself will meet it
                beat()


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
