"""Devices, cores, memory and disk of this machine, as far as this process may use them."""

import os
import platform
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msr_adapter.doctor.finding import Finding, State

_DEVICES, _HOST = "Devices", "Processor, memory, disk"
_GB = 10**9
_LEAST_FREE = 2**30
_LARGE_MODEL_GB = 20
_CGROUP = Path("/sys/fs/cgroup")
_DRIVER = Path("/proc/driver/nvidia/version")


def devices(torch: Mapping[str, Any]) -> list[Finding]:
    """Return a finding for each GPU that torch sees, or what its absence means; ``torch`` is the probe's answer."""
    if "error" in torch:
        return [Finding(_DEVICES, "GPU", "warning", "unknown", "torch cannot be imported")]
    if error := torch.get("device_error"):
        return [Finding(_DEVICES, "GPU", "error", "cannot be asked", error, "nvidia-smi")]
    if found := [_device(place, device) for place, device in enumerate(torch["devices"])]:
        return found
    if torch["mps"]:
        return [Finding(_DEVICES, "GPU", "warning", "Apple MPS", "msr is not tested on it")]
    means = "training and scoring run on the processor: fit for small models"
    if _DRIVER.exists() or shutil.which("nvidia-smi"):
        means = "there is an NVIDIA driver, but torch sees no GPU; " + means
        mend = "nvidia-smi" if torch["cuda"] else "install torch from PyPI, which has CUDA"
        return [Finding(_DEVICES, "GPU", "warning", "none visible", means, mend)]
    return [Finding(_DEVICES, "GPU", "absent", "none", means)]


def _device(place: int, device: Mapping[str, Any]) -> Finding:
    major, minor = device["capability"]
    found = (f"{device['name']}, {device['free_bytes'] / _GB:.1f} of {device['total_bytes'] / _GB:.1f} GB free, "
             f"capability {major}.{minor}, bfloat16 {'yes' if device['bfloat16'] else 'no'}")  # fmt: skip
    if device["bfloat16"]:
        return Finding(_DEVICES, f"GPU {place}", "ok", found)
    return Finding(_DEVICES, f"GPU {place}", "warning", found, "no bfloat16 on it", "set train.model.dtype: float16")


def host(run_dir: Path, torch: Mapping[str, Any]) -> list[Finding]:
    """Return findings on cores, threads, memory, and the disks of ``run_dir`` and of the models."""
    from huggingface_hub.constants import HF_HUB_CACHE

    threads = f", {torch['threads']} torch threads" if "threads" in torch else ""
    total, available = memory_bytes()
    free = "" if available is None else f"{available / _GB:.1f} of "
    return [
        Finding(_HOST, "processor", "ok", f"{platform.machine()}, {cores()} usable cores{threads}"),
        Finding(_HOST, "memory", "ok", f"{free}{total / _GB:.1f} GB{'' if available is None else ' available'}"),
        *_shared_memory(),
        _disk("run folder", run_dir, _LEAST_FREE, "error", "at least 1 GB is needed",
              "free some space, or choose another --run-dir"),
        _disk("model cache", Path(HF_HUB_CACHE), _LARGE_MODEL_GB * _GB, "warning",
              "a model of 7B parameters has about 16 GB", "set HF_HOME to a folder on a larger disk"),
    ]  # fmt: skip


def cores() -> int:
    """Return the cores that this process may use: affinity and the container's quota count."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return max(1, min(mine, int(quota) // int(period)))
    except (OSError, ValueError):  # no control group of version 2, or no quota ("max")
        return mine


def memory_bytes() -> tuple[int, int | None]:
    """Return the memory in all, and what is available now where the system says so; a container's limit counts."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    available = None
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    limit = _limit()
    if limit is not None and limit < total:
        total = limit
        available = None if available is None else min(available, limit)
    return total, available


def _limit() -> int | None:
    for path in (_CGROUP / "memory.max", _CGROUP / "memory" / "memory.limit_in_bytes"):
        try:
            return int(path.read_text())
        except (OSError, ValueError):  # absent, or no limit ("max")
            continue
    return None


def _shared_memory() -> list[Finding]:
    """Containers often have 64 MB of it, which ends the workers of a data loader with a bus error."""
    path = Path("/dev/shm")
    if not path.is_dir() or (size := shutil.disk_usage(path).total) >= 2**30:
        return []
    means = "too little for several data loader workers (dataloader_num_workers) or several GPUs"
    return [Finding(_HOST, "shared memory", "warning", f"{size / 1e6:.0f} MB", means, "docker run --shm-size=8g ...")]


def _disk(name: str, folder: Path, least: int, state: State, means: str, mend: str) -> Finding:
    folder = folder.expanduser().absolute()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / _GB:.1f} GB free for {folder}"
    if not os.access(existing, os.W_OK):
        return Finding(_HOST, name, state, found, f"{existing} cannot be written", mend)
    return Finding(_HOST, name, "ok", found) if free >= least else Finding(_HOST, name, state, found, means, mend)
