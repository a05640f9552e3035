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


def test_a_larger_child_counts() -> None:
    started = peak_memory.watch_memory()
    own = started()
    assert own is not None
    size = own // MIB + 200
    subprocess.run([sys.executable, "-c", f"bytearray(b'x') * ({size} * 2**20)"], check=True)
    assert (started() or 0) > size * MIB
    after = peak_memory.watch_memory()
    assert (after() or 0) < size * MIB  # the next stage does not inherit it


def test_where_it_cannot_be_measured_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peak_memory, "_RESET", tmp_path / "none" / "file")
    assert peak_memory.watch_memory()() is None


def test_without_a_gpu_nothing_is_said() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert peak_memory.watch_gpu()() is None
