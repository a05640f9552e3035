"""How many rows fit into one pass: found by trying, halved when memory runs out."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from msr_adapter.arrays import Integers

Work = TypeVar("Work")
Result = TypeVar("Result")


class BatchSizer:
    """The limits of one pass: rows, and tokens with padding. Once memory ran out, the limit stays lower."""

    def __init__(self, rows: int, tokens: int | None = None, pass_cost: int = 0) -> None:
        """Begin with at most ``rows`` rows of about ``tokens`` tokens together.

        ``pass_cost``: what a pass takes beyond its tokens, in tokens. Where a split saves more padding than that, two
        passes are faster than one.
        """
        self.rows, self.tokens, self.pass_cost = rows, tokens, pass_cost

    def each(
        self, work: Sequence[Work], length: Callable[[Work], int], call: Callable[[Sequence[Work]], Result]
    ) -> "Iterator[tuple[Sequence[Work], Result]]":
        """Yield every piece of ``work`` (longest first) with what ``call`` makes of it.

        When memory runs out, the pieces become half as large and stay so; a single row that does not fit raises
        `torch.OutOfMemoryError`.
        """
        import torch

        start = 0
        ends: list[int] = []
        while start < len(work):
            ends = ends or self.ends([length(one) for one in work[start:]])
            piece = work[start : start + ends[0]]
            try:
                result = call(piece)
            except torch.OutOfMemoryError:
                if len(piece) == 1:
                    raise
                # Only rows are halved: `tokens` is a matter of speed, and differs from what memory allows.
                self.rows = len(piece) // 2
                ends = []
            else:
                yield piece, result
                start += len(piece)
                ends = [end - len(piece) for end in ends[1:]]
                continue
            # Outside of `except`: the exception's traceback holds the tensors of the failed pass.
            torch.cuda.empty_cache()

    def ends(self, lengths: Sequence[int]) -> list[int]:
        """Return where the passes over rows of ``lengths`` tokens (longest first) end, to take the least time together:
        tokens, padding included, and `pass_cost` for each pass. O(rows x rows of a pass)."""
        # Shortest path over the places to cut: least[end] = min over start of least[start] + cost of rows start..end.
        # Rows are sorted, so a pass is as wide as its first row.
        longest = np.asarray(lengths, np.int64)
        fitting = np.array([self.fitting(size) for size in lengths], np.int64)
        begin = np.zeros(len(longest), np.int64)
        least: Integers = np.zeros(len(longest) + 1, np.int64)
        for end in range(1, len(longest) + 1):
            starts = np.arange(max(0, end - self.rows), end)
            cost = least[starts] + (end - starts) * longest[starts]
            # A row alone always fits, so that the least cost is never this one, and adding to it cannot overflow.
            cost[end - starts > fitting[starts]] = np.iinfo(np.int64).max
            best = int(cost.argmin())
            begin[end - 1], least[end] = starts[best], cost[best] + self.pass_cost
        ends, end = [], len(longest)
        while end:
            ends.append(end)
            end = int(begin[end - 1])
        return ends[::-1]

    def fitting(self, length: int) -> int:
        """Return how many rows of ``length`` tokens make one pass, at least 1."""
        return self.rows if self.tokens is None else min(self.rows, max(1, self.tokens // max(1, length)))
