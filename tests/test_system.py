"""What the machine allows: containers' limits, locks between processes, waits that servers ask for."""

import os
from email.utils import formatdate
from pathlib import Path

import pytest

from msr_adapter.system import LockHeldError, cpu_count, locked, memory_bytes, retry_after, try_lock


def test_a_containers_limits_count(tmp_path: Path) -> None:
    whole, cpus = memory_bytes(tmp_path)[0], cpu_count(tmp_path)
    assert cpus >= 1
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert memory_bytes(tmp_path) == (1_000_000, 1_000_000)
    assert cpu_count(tmp_path) == 1
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert (memory_bytes(tmp_path)[0], cpu_count(tmp_path)) == (whole, cpus)


def test_a_limit_above_the_memory_of_the_machine_is_none(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory_bytes(tmp_path)[0] == memory_bytes(tmp_path / "absent")[0]


def test_a_lock_names_the_process_that_has_it_and_ends_with_the_block(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with locked(path):
        with pytest.raises(LockHeldError, match=f"^{os.getpid()}$"), locked(path):
            raise AssertionError("two hold one lock")
        handle = os.open(path, os.O_RDWR)
        assert not try_lock(handle)
    assert try_lock(handle)
    os.close(handle)
    with locked(tmp_path / "other"):
        pass


def test_what_fails_inside_a_lock_is_not_taken_for_a_held_lock(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError), locked(tmp_path / ".lock"):
        raise BlockingIOError
    with pytest.raises(FileNotFoundError), locked(tmp_path / "absent" / ".lock"):
        raise AssertionError("there is no such folder")


def test_retry_after_is_seconds_or_a_date_or_nonsense() -> None:
    def asked(text: str | None) -> float | None:
        return retry_after(text, now=lambda: 1_000_000.0)

    assert [asked("7"), asked("2.5"), asked("-3"), asked("9" * 400)] == [7, 2.5, 0, float("inf")]
    assert asked(formatdate(1_000_090.0, usegmt=True)) == 90
    assert asked(formatdate(999_000.0, usegmt=True)) == 0
    assert [asked(text) for text in (None, "", "soon", "nan", "Mon, 99 Jan 2020 00:00:00 GMT")] == [None] * 5
