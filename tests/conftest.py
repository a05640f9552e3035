"""Threads are pinned before any test imports a numeric library: tiny models on a shared machine run best on one."""

import os
import signal
import tempfile

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")

# A shared machine is no place for deadlines; CI tries the same examples each time, people try new ones.
settings.register_profile("msr", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("msr")

# A shell that starts the tests in the background has them ignore Ctrl-C, and the processes under test with them.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Copies of sources that are not read where they lie belong to the tests, not to whoever runs them.
_COPIES = tempfile.TemporaryDirectory(prefix="msr-sources-")
os.environ["MSR_SOURCES"] = _COPIES.name
