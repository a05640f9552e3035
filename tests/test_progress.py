"""What is said of long work: bars, lines on a pipe and in the log, whether anything advances or not."""

import io
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from msr_adapter import progress
from msr_adapter.progress import Meter, Reporter


def on_pipe(log: Path | None = None) -> tuple[Reporter, io.StringIO]:
    written = io.StringIO()
    return Reporter(console=Console(file=written, width=40, highlight=False), log=log), written


def on_terminal(width: int = 40) -> tuple[Reporter, io.StringIO]:
    written = io.StringIO()
    console = Console(file=written, width=width, force_terminal=True, color_system=None, highlight=False)
    return Reporter(console=console), written


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)


def wait_for(written: io.StringIO, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in written.getvalue():
        assert time.monotonic() < deadline, written.getvalue()
        time.sleep(0.005)


@pytest.mark.usefixtures("often")
def test_a_pipe_gets_lines_while_nothing_advances(tmp_path: Path) -> None:
    reporter, written = on_pipe(tmp_path / "log")
    with reporter.track("scoring", 300) as advance:
        wait_for(written, "scoring: 0/300, 0 s so far\n")
        advance(30)
        wait_for(written, "scoring: 30/300, about ")
        advance(270)
    assert re.search(r"scoring: 300/300 in \d+\.\d s\n$", written.getvalue())
    logged = (tmp_path / "log").read_text()
    assert all(line in logged for line in ("scoring: 0/300, 0 s so far", "scoring: 300/300 in"))


@pytest.mark.usefixtures("often")
def test_work_without_an_end_in_sight_says_how_long_it_takes(tmp_path: Path) -> None:
    reporter, written = on_pipe(tmp_path / "log")
    with reporter.waiting("starting the trainer"):
        wait_for(written, "starting the trainer: 0 s so far\n")
    assert "starting the trainer" in (tmp_path / "log").read_text()


def test_short_work_says_nothing_on_a_pipe(tmp_path: Path) -> None:
    reporter, written = on_pipe(tmp_path / "log")
    with reporter.track("images", 3) as advance:
        advance(3)
    with reporter.waiting("nothing"):
        pass
    assert written.getvalue() == ""
    assert "images: 3/3 in 0.0 s" in (tmp_path / "log").read_text()


@pytest.mark.usefixtures("often")
def test_quiet_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with Reporter(quiet=True).track("scoring", 3):
        time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("often")
def test_a_terminal_gets_a_bar_and_no_lines() -> None:
    reporter, written = on_terminal(120)
    with reporter.track("scoring", 3) as advance:
        time.sleep(0.1)
        advance(3)
    assert "so far" not in written.getvalue()
    assert "3/3" in written.getvalue()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that goes on when it is told to; no heartbeat beats meanwhile."""
    time_now = [1_000.0]
    monkeypatch.setattr(progress, "now", lambda: time_now[0])

    def wait(seconds: float) -> None:
        time_now[0] += seconds

    return wait


def test_a_pipe_gets_a_line_every_half_minute_and_none_of_each_shard(clock: Callable[[float], None]) -> None:
    reporter, written = on_pipe()
    with reporter.track("scoring", 1_000) as advance:
        for _ in range(100):
            clock(1)
            advance(10)
    assert written.getvalue().splitlines() == [
        "scoring: 300/1000, about 70 s left",
        "scoring: 600/1000, about 40 s left",
        "scoring: 900/1000, about 10 s left",
        "scoring: 1000/1000 in 100.0 s",
    ]


def test_what_takes_less_than_half_a_minute_has_no_line_on_a_pipe(clock: Callable[[float], None]) -> None:
    reporter, written = on_pipe()
    with reporter.track("scoring", 10) as advance:
        clock(29)
        advance(10)
    assert written.getvalue() == ""


def test_bar_line_and_note_tell_the_same_rest(clock: Callable[[float], None], tmp_path: Path) -> None:
    reporter, written = on_terminal(120)
    meter = Meter()
    with reporter.with_log(tmp_path / "log").track("asking", 1_000, meter) as advance:
        advance(600)  # from a cache, which says nothing of the rest
        for _ in range(40):
            meter.add(tokens=5)
            clock(1)
            advance(1)
    told = (tmp_path / "log").read_text()
    assert "asking: about 6 min for what is left, by the first answers" in told
    assert "asking: 630/1000, 5 tokens/s, about 6 min left" in told
    assert "5 tokens/s, about 6 min left" in written.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (99, "99 s"), (100, "2 min"), (5_999, "100 min"), (12_000, "3 h 20 min")]
)
def test_times_are_told_as_exactly_as_anybody_knows_them(seconds: float, words: str) -> None:
    assert progress.spoken(seconds) == words


def test_what_fails_ends_its_heartbeat(often: None, tmp_path: Path) -> None:
    reporter, written = on_pipe()
    with pytest.raises(KeyError), reporter.track("scoring", 3):
        raise KeyError
    said = written.getvalue()
    time.sleep(0.1)
    assert written.getvalue() == said


def test_a_log_that_cannot_be_written_to_stops_no_heartbeat(often: None, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    reporter = on_pipe()[0].with_log(tmp_path / "log")
    with pytest.raises(OSError, match="log"), reporter.track("scoring", 3):
        time.sleep(0.05)  # told by whoever writes next, not by a thread


LONG = "the model will be asked 12,345,678 times about the candidates of /somewhere/a/very-long-path/with.parquet :car:"


def test_a_terminal_wraps_between_words_and_a_pipe_not_at_all() -> None:
    for width in (20, 40, 79, 80):
        reporter, written = on_terminal(width)
        reporter.note(LONG)
        lines = written.getvalue().splitlines()
        assert all(len(line) <= width for line in lines)
        short = [word for word in LONG.split() if len(word) <= width]
        assert [word for line in lines for word in line.split() if word in short] == short
    reporter, written = on_pipe()
    reporter.note(LONG)
    assert written.getvalue() == f"{LONG}\n"


def test_tables_on_a_pipe_are_not_folded(capfd: pytest.CaptureFixture[str]) -> None:
    assert Reporter().console.width >= 160
