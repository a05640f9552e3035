"""The exact length of training rows through the trained template: in parallel, every distinct image processed once."""

import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import PIL.Image

from msr_adapter.arrays import Integers
from msr_adapter.config.schema import ModelConfig
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.trainer_entrypoint import die_with
from msr_adapter.system import cpu_count

UNREADABLE = -1
"""Stands for the length of a row whose image cannot be read."""

_ROWS_PER_TASK, _IMAGES_PER_TASK = 1_000, 64
_ROWS_PER_WORKER, _IMAGES_PER_WORKER = 20_000, 1_000
"""A worker loads its libraries for some seconds: with less than this to do, fewer are as fast."""
_MOST_WORKERS = 16

Given = TypeVar("Given")
Done = TypeVar("Done")


class MeasureRequest(NamedTuple):
    """One row to be measured."""

    prompt: str
    answers: tuple[str, ...]
    """The longest one counts."""
    images: tuple[Path, ...] = ()


class Measurer:
    """Measures rows with one encoder, or with one in each of several processes; the result is the same."""

    def __init__(self, encoder: Encoder, pool: Executor | None, workers: int) -> None:
        self._encoder, self._pool, self._ahead = encoder, pool, 2 * workers
        self._expansions: dict[Path, str] = {}
        self.faults: dict[Path, str] = {}
        """Image -> why it cannot be read."""

    def learn(self, images: Iterable[Path], advance: Callable[[int], None] = lambda _: None) -> None:
        """Process each distinct image that is not known yet, once. Memory: a path and a pointer an image."""
        known: dict[str, str] = {}  # images of one size share one text
        new = dict.fromkeys(path for path in images if path not in self._expansions and path not in self.faults)
        for paths, found in self._each(_expand, _batched(new, _IMAGES_PER_TASK)):
            for path, (expansion, fault) in zip(paths, found, strict=True):
                if fault:
                    self.faults[path] = fault
                else:
                    self._expansions[path] = known.setdefault(expansion, expansion)
            advance(len(paths))

    def lengths(self, rows: Iterable[MeasureRequest]) -> Iterator[Integers]:
        """Yield the lengths of ``rows`` in their order, some at a time; images that are not learned are processed.

        A row's length is that of prompt, longest answer and end of sequence, before any cut. Rows with an image that
        cannot be read have `UNREADABLE`. Memory: some thousand rows a worker.
        """
        for _, lengths in self._each(_measure, map(self._with_expansions, _batched(rows, _ROWS_PER_TASK))):
            yield lengths

    def _with_expansions(self, rows: tuple[MeasureRequest, ...]) -> "_Part":
        images = {path for row in rows for path in row.images}
        self.learn(images)
        needed = {path: self._expansions[path] for path in images if path in self._expansions}
        return _Part(rows, needed)

    def _each(self, work: Callable[[Encoder, Given], Done], tasks: Iterable[Given]) -> Iterator[tuple[Given, Done]]:
        """Yield each task with its result, in the order of the tasks: here, or by the worker processes."""
        if self._pool is None:
            yield from ((task, work(self._encoder, task)) for task in tasks)
            return
        waiting: deque[tuple[Given, Future[Done]]] = deque()
        rest = iter(tasks)
        # A few tasks ahead of the results: no worker waits, and rows are rendered no faster than they are measured.
        while True:
            for task in islice(rest, max(0, self._ahead - len(waiting))):
                waiting.append((task, self._pool.submit(_in_worker, work, task)))
            if not waiting:
                return
            task, future = waiting.popleft()
            yield task, future.result()


class _Part(NamedTuple):
    rows: tuple[MeasureRequest, ...]
    expansions: Mapping[Path, str]


@contextlib.contextmanager
def measuring(encoder: Encoder, rows: int, images: int, workers: int | None = None) -> Iterator[Measurer]:
    """Yield a measurer for about ``rows`` rows and ``images`` distinct images, with ``workers`` processes.

    Without ``workers``, `useful_workers` decides: at most one for each core that this process may use, and 16.
    """
    count = useful_workers(rows, images) if workers is None else workers
    if count < 2:
        yield Measurer(encoder, None, 1)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with torch's threads may hang
    with ProcessPoolExecutor(count, context, _start_worker, (encoder.model, os.getpid())) as pool:
        try:
            yield Measurer(encoder, pool, count)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def useful_workers(rows: int, images: int) -> int:
    """Return how many processes have enough to do to be worth their start, at least 1."""
    worth = max(rows // _ROWS_PER_WORKER, images // _IMAGES_PER_WORKER)
    return max(1, min(worth, cpu_count(), _MOST_WORKERS))


def image_fault(path: Path) -> str:
    """Say why ``path`` cannot be decoded to its last pixel; empty when it can."""
    try:
        with PIL.Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:  # all that Pillow raises
        return str(error) or type(error).__name__
    return ""


# What worker processes run stands at the top level of a module: it is pickled by name.


def _expand(encoder: Encoder, paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Return of each image the text that stands for it in a prompt, and why it cannot be read."""
    faults = [image_fault(path) for path in paths]
    return [("" if fault else encoder.expansion(path), fault) for path, fault in zip(paths, faults, strict=True)]


def _measure(encoder: Encoder, part: _Part) -> Integers:
    """Return the length of each row with its longest answer, in tokens; `UNREADABLE` where an image is missing."""
    encoder.remember(part.expansions)
    lengths = [
        max(encoder.row_length(row.prompt, row.images, answer) for answer in row.answers)
        if all(path in part.expansions for path in row.images) else UNREADABLE
        for row in part.rows
    ]  # fmt: skip
    return np.array(lengths, dtype=np.int64)


_worker: Encoder | None = None
"""The encoder of a worker process."""


def _start_worker(model: ModelConfig, parent: int) -> None:
    global _worker
    die_with(parent)
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker = Encoder(model)


def _in_worker(work: Callable[[Encoder, Given], Done], task: Given) -> Done:
    assert _worker is not None
    return work(_worker, task)


def _batched(values: Iterable[Given], size: int) -> Iterator[tuple[Given, ...]]:
    rest = iter(values)
    while batch := tuple(islice(rest, size)):
        yield batch
