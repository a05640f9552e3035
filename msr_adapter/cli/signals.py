"""SIGTERM and SIGHUP end a command as Ctrl-C does: an exception in the main thread, so that everything is tidied up."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_ENDING = (signal.SIGTERM, signal.SIGHUP)


class EndedBySignal(KeyboardInterrupt):
    """A signal other than Ctrl-C's; what stops for the one stops for the other."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """Return the exit code that shells know for an interrupt: 130, 143 or 129."""
    return 128 + (interrupt.number if isinstance(interrupt, EndedBySignal) else signal.SIGINT)


@contextlib.contextmanager
def ending_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into `EndedBySignal`. A signal that is ignored, as under `nohup`, stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        if os.getpid() != owner:  # a fork of this process: it has nothing to tidy up
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        # A terminal that closes sends several: the next ones must not stop what the first one tidies up.
        for each in replaced:
            signal.signal(each, signal.SIG_IGN)
        raise EndedBySignal(number)

    before = {number: signal.getsignal(number) for number in _ENDING}
    replaced = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    for number in replaced:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)
