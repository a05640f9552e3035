"""The machine as this process may use it: CPUs, memory, locks between processes, and waits that servers ask for."""

import contextlib
import email.utils
import fcntl
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux tells a container's limits."""
GPU_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of NVIDIA, AMD and of Windows' Linux leave: without any there is no need to import torch."""


def gpu_driver() -> bool:
    """Tell whether the driver of a GPU is there; whether this process may use one, torch knows."""
    return any(Path(driver).exists() for driver in GPU_DRIVERS)


def cpu_count(cgroup: Path = CGROUP) -> int:
    """Return the CPUs that this process may use, at least one: its affinity and the container's quota count."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return max(1, min(usable, int(quota) // int(period)))
    except (OSError, ValueError):  # no control group of version 2, or no quota ("max")
        return usable


def memory_bytes(cgroup: Path = CGROUP) -> tuple[int, int | None]:
    """Return the bytes of memory, and of those available now (None where the system does not say).

    A container's limit counts for both.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = None
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    for path in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        try:
            limit = int(path.read_text())
        except (OSError, ValueError):  # absent, or no limit ("max")
            continue
        # Version 1 writes a limit far above the memory of the machine where there is none.
        return (limit, available and min(available, limit)) if limit < total else (total, available)
    return total, available


class LockHeldError(Exception):
    """Another process has the lock."""

    def __init__(self, holder: str) -> None:
        """``holder``: the number of that process, or nothing if it has not said yet."""
        super().__init__(holder)
        self.holder = holder


def try_lock(handle: int) -> bool:
    """Take the lock of an open file, without waiting; False where another process has it.

    The lock is the kernel's and ends with the process, so that a killed one never leaves it behind. `OSError` where
    the file system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Create ``path`` if need be, hold its lock and write this process's number into it.

    `LockHeldError` where another process has the lock, `OSError` where the file cannot be opened or locked.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not try_lock(handle):
            raise LockHeldError(os.pread(handle, 32, 0).decode(errors="replace"))
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def retry_after(value: str | None, now: Callable[[], float] = time.time) -> float | None:
    """Return the seconds that a `Retry-After` header asks for: a number or an HTTP date.

    None if it is absent or unreadable; 0 for a moment that has passed.
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if not math.isnan(seconds) else None
