"""Peak memory of a stage: what it took, not what was taken before it."""

import subprocess
import sys
from pathlib import Path

import pytest

from msr_adapter.pipeline import peak_memory

MIB = 2**20


def fill(mib: int) -> int:
    return len(bytearray(b"x") * (mib * MIB))


def test_the_peak_is_the_stages_own() -> None:
    fill(300)
    before = peak_memory.watch_memory()
    small = before()
    assert small is not None
    started = peak_memory.watch_memory()
    assert fill(200) == 200 * MIB
    large = started()
    assert large is not None
    assert 150 * MIB < large - small < 260 * MIB  # the 300 before count for nothing


CHILD = """\
import resource
filled = b"x" * (200 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
PARENT = f"""\
import subprocess, sys
from msr_adapter.pipeline.peak_memory import watch_memory
watched = watch_memory()
own = watched()
took = subprocess.run([sys.executable, "-c", {CHILD!r}], check=True, capture_output=True).stdout
print(own, int(took), watched(), watch_memory()())
"""


def test_a_larger_child_counts() -> None:
    # In a process of its own: no child of another test was larger before, nor is the parent large itself. What the
    # child took is the kernel's word: where memory is short it may be less than was asked for.
    done = subprocess.run([sys.executable, "-c", PARENT], check=True, capture_output=True, text=True)
    own, child, with_child, next_stage = map(int, done.stdout.split())
    assert own < child
    assert with_child >= child
    assert next_stage < child  # it does not inherit it


def test_where_it_cannot_be_measured_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peak_memory, "_RESET", tmp_path / "none" / "file")
    assert peak_memory.watch_memory()() is None


def test_without_a_gpu_nothing_is_said() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert peak_memory.watch_gpu()() is None
