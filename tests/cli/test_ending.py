"""How a command ends that is ended by a signal, or whose output nobody reads."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from msr_adapter.cli.common import exit_codes, interruptible
from tests.support.end_to_end import environment

MSR = [sys.executable, "-m", "msr_adapter"]
CODES = [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)]


@pytest.fixture(autouse=True)
def _same_handlers_afterwards() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number, _ in CODES}
    yield
    assert {number: signal.getsignal(number) for number, _ in CODES} == before


def end_by(number: int) -> None:
    """Send this process a signal and wait for it."""
    os.kill(os.getpid(), number)
    time.sleep(5)


@pytest.mark.parametrize(("number", "code"), CODES)
def test_each_signal_says_what_is_kept_and_has_its_code(
    number: int, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tidied = []

    def command() -> None:
        with exit_codes(as_json=False), interruptible(tmp_path):
            try:
                end_by(number)
            finally:
                if number != signal.SIGINT:
                    os.kill(os.getpid(), number)  # a second one does not stop what tidies up
                tidied.append(1)

    with pytest.raises(typer.Exit) as caught:
        command()
    assert (caught.value.exit_code, tidied) == (code, [1])
    said = capsys.readouterr().err
    assert f"are kept in {tmp_path}. The same command continues from there." in said


@pytest.mark.parametrize(("number", "code"), CODES)
def test_before_the_run_nothing_is_changed(number: int, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, exit_codes(as_json=False):
        end_by(number)
    assert caught.value.exit_code == code
    assert capsys.readouterr().err == "Interrupted before anything was changed.\n"


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with exit_codes(as_json=False):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_on_another_thread_commands_run_too() -> None:
    ended: list[int] = []

    def run() -> None:
        with contextlib.suppress(typer.Exit), exit_codes(as_json=False):
            ended.append(1)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert ended == [1]


def start(arguments: list[str], **changes: Any) -> "subprocess.CompletedProcess[str]":
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": 60}
    return subprocess.run(arguments, **(options | changes), env=environment(), check=False)


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["ls", "check demo", "check absent", "--version", "--help"])
def test_closed_streams_are_no_traceback(command: str, redirection: str, tmp_path: Path) -> None:
    line = f"{sys.executable} -m msr_adapter {command} {redirection}"
    done = start(["sh", "-c", line], cwd=tmp_path)
    assert done.returncode == (2 if "absent" in command else 0)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize("command", [["ls"], ["ls", "--json"], ["--help"], ["check", "demo"]])
def test_a_reader_that_has_seen_enough_is_no_error(command: list[str], tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)  # whoever reads is gone before the first byte
    with os.fdopen(writing, "w") as sink:
        done = start([*MSR, *command], stdout=sink, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_output_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = start([*MSR, "ls"], stdout=full, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Standard output cannot be written: No space left on device")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_head_takes_a_line(tmp_path: Path) -> None:
    line = f"set -o pipefail; {sys.executable} -m msr_adapter ls | head -1"
    done = start(["bash", "-c", line], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Pipelines")
