"""A worker process: answers shards until the process that started it is gone.

Called by path: ``python -P process.py <parent's pid> <file descriptor>``. What is ours is imported once the parent has
said where it lies.
"""

import contextlib
import os
import queue
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

_REPORT_EVERY_S = 0.5


def main(parent: int, descriptor: int) -> None:
    """Serve the line until it closes."""
    line: Connection[Any, Any] = Connection(descriptor)
    sys.path[:] = line.recv()
    from msr_adapter.distributed.messages import ShardProgress, WorkerReady, node
    from msr_adapter.distributed.worker import Worker
    from msr_adapter.llamafactory.trainer_entrypoint import die_with

    die_with(parent)
    worker = Worker(line.recv())
    inbox: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(line, inbox), daemon=True).start()
    line.send(WorkerReady(node()))
    told = 0.0
    while True:
        number, payload = inbox.get()

        def report(count: int, number: int = number) -> None:
            nonlocal told
            if time.monotonic() - told >= _REPORT_EVERY_S:
                told = time.monotonic()
                line.send(ShardProgress(number, count))

        line.send(worker.work(number, payload, report))


def _listen(line: "Connection[Any, Any]", inbox: "queue.SimpleQueue[tuple[int, bytes]]") -> None:
    """Take shards as they come; when the parent is gone there is nobody to work for, in the middle of one or not."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(line.recv())
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
