"""Peak memory of one stage, as the kernel counts it, and what gives a device's memory back."""

import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path

_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_KIB = 1024


def watch_memory() -> Callable[[], int | None]:
    """Start counting; the returned function gives the peak in bytes of resident memory since then.

    It is the larger one of this process and of its largest child. A child counts only if it outgrew every child
    before it: the kernel keeps no more. None where the kernel's mark cannot be reset (not Linux, or not permitted).
    """
    try:
        _RESET.write_text("5")  # proc(5): resets the peak to what is resident now
    except OSError:
        return lambda: None
    children = _largest_child()

    def peak() -> int:
        now = _largest_child()
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return max(int(line.split()[1]) * _KIB, now if now > children else 0)

    return peak


def watch_gpu() -> Callable[[], int | None]:
    """Start counting; the returned function gives the peak in bytes that this process's tensors held on its GPUs.

    None without a GPU, and for what a child process did there.
    """
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    return _gpu_peak


def release() -> None:
    """Give the device's memory back once the last reference to a model is gone, before the next one needs it."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _gpu_peak() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(sum(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))) or None


def _largest_child() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _KIB
