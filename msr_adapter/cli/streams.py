"""Standard output and standard error that may be closed: by the shell (`>&-`), or by a reader who has seen enough."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_GONE = (errno.EPIPE, errno.EIO)
"""The reader of a pipe has ended (`msr ls | head -1`); the terminal is closed."""


class _LossyFile(io.FileIO):
    """A file descriptor; once it takes no more, what is written to it is lost, and the run goes on."""

    fault: OSError | None = None
    """Why, unless its reader is gone."""

    def write(self, data: object) -> int:
        """Write, or send this and all that follows nowhere."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno not in _GONE:
                self.fault = error
            # The descriptor itself, so that children and libraries that write to it find no broken pipe either.
            unread = os.open(os.devnull, os.O_WRONLY)
            os.dup2(unread, self.fileno())
            os.close(unread)
            return super().write(data)  # type: ignore[arg-type]


@contextlib.contextmanager
def forgiving_streams() -> Iterator[None]:
    """Go on whatever becomes of the standard streams; a closed one leads nowhere.

    Ends with exit code 1 when what was printed could not be written, for another reason than a reader who is gone.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one. Were it left free, the next file opened would be taken for the stream.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    out, err = _LossyFile(1, "w", closefd=False), _LossyFile(2, "w", closefd=False)
    sys.stdout = _text(out, sys.stdout, by_line=out.isatty())
    sys.stderr = _text(err, sys.stderr, by_line=True)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if out.fault is not None:
            sys.stderr.write(f"Standard output cannot be written: {out.fault.strerror}. What was computed is kept\n")
            sys.exit(1)


def _text(raw: _LossyFile, old: TextIO | None, *, by_line: bool) -> TextIO:
    encoding, errors = (old.encoding, old.errors) if old is not None else ("utf-8", "backslashreplace")
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, errors=errors, line_buffering=by_line)
