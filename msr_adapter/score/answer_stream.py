"""The answers to a block of candidates, asked in a given order, through the cache, chunk by chunk."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from msr_adapter.candidate_rows import CandidateRow, CandidateRows
from msr_adapter.generation import Completion, Request
from msr_adapter.progress import Advance
from msr_adapter.stage_arguments import Client

Places = NDArray[np.integer]
Answered = tuple[Places, list[CandidateRow], list[Completion]]
"""Places of rows, the rows, and their answers."""

_CHUNK = 8_192
"""Requests in memory at a time: a multiple of the cache's shard, so that chunks do not change the shards."""


def answers_in_order(
    client: Client,
    rows: CandidateRows,
    places: Places,
    requests: Callable[[Sequence[CandidateRow]], list[Request]],
    advance: Advance,
) -> Iterator[Answered]:
    """Yield chunk by chunk, in the order of ``places``, those places, their rows and the answers to them."""
    begun: deque[tuple[Places, list[CandidateRow]]] = deque()

    def chunks() -> Iterator[list[Request]]:
        for start in range(0, len(places), _CHUNK):
            chosen = places[start : start + _CHUNK]
            part = rows.take(chosen)
            begun.append((chosen, part))
            yield requests(part)

    # One stream: workers go on with the next chunk while the last shards of this one are under way.
    for answers in client.cache.stream(client.model(), chunks(), advance=advance):
        chosen, part = begun.popleft()
        yield chosen[: len(answers)], part[: len(answers)], answers
