"""A worker process: answers shards until the process that started it is gone.

Called by path: ``python -P worker_process.py <parent's pid> <file descriptor>``. Our own modules are imported once the
parent has sent its `sys.path`.
"""

import contextlib
import os
import queue
import sys
import threading
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

_REPORT_EVERY_S = 0.5


def main(parent: int, descriptor: int) -> None:
    """Answer the shards that come through the pipe until it closes; ``parent`` is the pid of the process that sends."""
    pipe: Connection[Any, Any] = Connection(descriptor)
    sys.path[:] = pipe.recv()
    from msr_adapter.distributed.worker import Worker
    from msr_adapter.distributed.worker_messages import ShardAnswers, ShardProgress, WorkerReady, node
    from msr_adapter.generation.request import EngineLostError
    from msr_adapter.llamafactory.trainer_entrypoint import die_with

    die_with(parent)
    worker = Worker(pipe.recv())
    inbox: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    pipe.send(WorkerReady(node()))
    last_report = 0.0
    while True:
        number, payload = inbox.get()

        def report(count: int, number: int = number) -> None:
            nonlocal last_report
            if time.monotonic() - last_report >= _REPORT_EVERY_S:
                last_report = time.monotonic()
                pipe.send(ShardProgress(number, count))

        def keep(answers: Any, number: int = number) -> None:
            pipe.send(ShardAnswers(number, answers))

        try:
            pipe.send(worker.work(number, payload, report, keep))
        except EngineLostError:
            # Not `sys.exit`: what is left of an engine may have threads that nobody ends.
            traceback.print_exc()
            os._exit(1)


def _listen(pipe: "Connection[Any, Any]", inbox: "queue.SimpleQueue[tuple[int, bytes]]") -> None:
    """Take shards as they come. When the parent is gone, end at once: nobody waits for what is being computed."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(pipe.recv())
    os._exit(1)  # `sys.exit` in a thread would end that thread alone


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
