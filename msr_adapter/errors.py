"""The two ways a command can fail by design; everything else crashes loudly.

MsrError
├── UserError     the user's input is wrong: every problem found, exit code 2
└── StageError    a stage failed: what, the likely cause, the next step, exit code 1
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LISTED = 20
"""Problems, or ids of a kind, that are named one by one; the others are counted."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the input, printed as ``where field: found; allowed. next_step``."""

    where: str
    """File with line or row, e.g. ``log.csv:12``; empty for a command-line value."""
    field: str
    """Key or column at fault; empty when the file as a whole is."""
    found: str
    allowed: str = ""
    next_step: str = ""

    def __str__(self) -> str:
        place = " ".join(part for part in (self.where, self.field) if part)
        text = f"{place}: {self.found}" if place else self.found
        text += f"; {self.allowed}" if self.allowed else ""
        return f"{text}. {self.next_step}" if self.next_step else text


class MsrError(Exception):
    """Printed without a traceback."""

    exit_code = 1


class UserError(MsrError):
    """The input is wrong; carries every problem found, never only the first."""

    exit_code = 2

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type["UserError"], tuple[tuple[Problem, ...]]]:
        return (UserError, (self.problems,))


class StageError(MsrError):
    """A stage failed for a reason outside the input: what happened, why it probably did, what to do next."""

    def __init__(self, what: str, cause: str = "", next_step: str = "") -> None:
        self.what, self.cause, self.next_step = what, cause, next_step
        lines = [what, f"Likely cause: {cause}" if cause else "", f"Next step: {next_step}" if next_step else ""]
        super().__init__("\n".join(line for line in lines if line))

    def __reduce__(self) -> tuple[type["StageError"], tuple[str, str, str]]:
        return (StageError, (self.what, self.cause, self.next_step))


@contextmanager
def collecting(problems: list[Problem]) -> Iterator[None]:
    """Add the problems of a `UserError` raised inside to ``problems``, so that the next file is looked at too."""
    try:
        yield
    except UserError as error:
        problems.extend(error.problems)


def raise_if_any(problems: Iterable[Problem]) -> None:
    """Raise one `UserError` that carries all ``problems``, if there are any."""
    found = list(problems)
    if found:
        raise UserError(found)


def plural(number: int, noun: str, many: str = "") -> str:
    """Return ``1 user`` or ``1,432 users``; ``many`` is the plural where it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def listed(problems: list[Problem], total: int, where: str) -> list[Problem]:
    """Return the first problems of ``total`` and, if some are left out, one more that counts them."""
    shown = problems[:LISTED]
    left = total - len(shown)
    return [*shown, Problem(where, "", f"and {left:,} more like these")] if left > 0 else shown


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return ``Did you mean `x`?`` for the closest choice, or nothing when none is close."""
    near = closest(word, choices)
    return f"Did you mean `{near[0]}`?" if near else ""


def closest(word: str, choices: Iterable[str], most: int = 1, *, beginnings: bool = True) -> list[str]:
    """Return the choices that ``word`` may be a slip of the pen for, in any case, the nearest first; ``most`` of them.

    One slip for each three letters may part them, no more: a wrong guess sends people astray; of equals, one with the
    same first letter comes first, which is rarely missed. Where there is none,
    the only choice that begins with the word is returned, unless not ``beginnings``.
    """
    plain = word.lower()
    known = {choice.lower(): choice for choice in choices}
    limit = len(plain) // 3
    slips = {name: _slips(plain, name) for name in known if abs(len(name) - len(plain)) <= limit}
    close = (name for name in slips if slips[name] <= limit)
    near = sorted(close, key=lambda name: (slips[name], name[:1] != plain[:1]))
    if not near and beginnings and len(plain) >= _PREFIX:
        near = [name for name in known if name.startswith(plain)]
        near = near if len(near) == 1 else []
    return [known[name] for name in near[:most]]


_PREFIX = 4
"""Letters from which on a beginning says which word is meant."""


def _slips(word: str, other: str) -> int:
    """Return how many letters are wrong, missing, too many, or swapped with the next one (optimal string alignment)."""
    before, last = [0] * (len(other) + 1), list(range(len(other) + 1))
    for row, letter in enumerate(word, 1):
        now = [row]
        for column, wanted in enumerate(other, 1):
            cost = min(last[column] + 1, now[-1] + 1, last[column - 1] + (letter != wanted))
            if row > 1 and column > 1 and letter == other[column - 2] and word[row - 2] == wanted:
                cost = min(cost, before[column - 2] + 1)
            now.append(cost)
        before, last = last, now
    return last[-1]
