"""How much fits into one pass: found by trying, halved when memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


class Room:
    """Rows and, padded, tokens of one pass. Memory that ran out once is remembered."""

    def __init__(self, rows: int, tokens: int | None = None) -> None:
        """Begin with at most ``rows`` rows of about ``tokens`` tokens together."""
        self.rows, self.tokens = rows, tokens

    def each(
        self, work: Sequence[Work], length: Callable[[Work], int], call: Callable[[Sequence[Work]], Result]
    ) -> "Iterator[tuple[Sequence[Work], Result]]":
        """Yield every piece of ``work`` (longest first) with what ``call`` makes of it.

        When memory runs out, the pieces become half as large and stay so; a single row that does not fit raises
        `torch.OutOfMemoryError`.
        """
        import torch

        start = 0
        while start < len(work):
            piece = work[start : start + self.fitting(length(work[start]))]
            try:
                result = call(piece)
            except torch.OutOfMemoryError:
                if len(piece) == 1:
                    raise
                self.rows = len(piece) // 2
            else:
                yield piece, result
                start += len(piece)
                continue
            torch.cuda.empty_cache()

    def fitting(self, length: int) -> int:
        """Return how many rows of ``length`` tokens make one pass, at least 1."""
        return self.rows if self.tokens is None else min(self.rows, max(1, self.tokens // max(1, length)))
