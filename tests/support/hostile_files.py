"""What may lie where a file is expected, and a small run to put it into: one file, one fault, one command a case."""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from msr_adapter.cli.app import app

Fault = Callable[[Path, random.Random], None]
_SECONDS = int(os.environ.get("MSR_TORTURE_SECONDS", "30"))
"""More where the machine is busy."""
_EVALUATE = (
    "{protocol: next-item, baselines: [popularity, item-knn], scorer: {path: ours, backend: scripted}, "
    "tables: {items: tags.csv}}"
)
PIPELINE = f"""\
name: hostile
templates: templates
data:
  source: {{kind: table, interactions: log.csv, items: items.parquet}}
  images: {{folder: images, missing: text-only}}
split: {{fractions: [0.5, 0.2, 0.3]}}
summarize:
  items: {{model: &model {{path: nobody, backend: scripted}}}}
  users: {{model: *model}}
train: {{model: *model}}
evaluate: {_EVALUATE}
"""
INPUTS = ("log.csv", "items.parquet", "tags.csv", "images/i1.png", "images", "templates/user_summary.j2", "templates",
          "p.yaml")  # fmt: skip


class HangError(BaseException):
    """A command took too long; no `Exception`, so that no guard takes it for a fault of a file."""


def write_inputs(folder: Path) -> Path:
    """Write a pipeline with a log, items, images, a template and a table of tags; return its YAML."""
    (folder / "images").mkdir(parents=True)
    (folder / "templates").mkdir()
    draw = random.Random(1)
    rows = [f"u{user},i{item},{user * 50 + place}" for user in range(14)
            for place, item in enumerate(draw.sample(range(40), 8))]  # fmt: skip
    (folder / "log.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    items = {"item_id": [f"i{item}" for item in range(40)], "title": [f"Title {item}" for item in range(40)]}
    pq.write_table(pa.table(items), folder / "items.parquet")
    (folder / "tags.csv").write_text("item_id,tag\n" + "".join(f"i{item},t{item % 3}\n" for item in range(40)))
    for item in range(3):
        Image.new("RGB", (30, 30), (item * 60, 9, 9)).save(folder / "images" / f"i{item}.png")
    template = Path(__file__).parents[2] / "templates" / "user_summary.j2"
    shutil.copy(template, folder / "templates" / "user_summary.j2")
    (folder / "p.yaml").write_text(PIPELINE)
    return folder / "p.yaml"


def truncated(path: Path, draw: random.Random) -> None:
    """Cut a file somewhere."""
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(max(1, len(data)))])


def noise(path: Path, draw: random.Random) -> None:
    """Put random bytes in the place of the whole file."""
    path.write_bytes(draw.randbytes(draw.choice((7, 4096))))


def flipped(path: Path, draw: random.Random) -> None:
    """Change some bytes."""
    data = bytearray(path.read_bytes() or b"?")
    for _ in range(8):
        data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data)


def emptied(path: Path, _: random.Random) -> None:
    """Leave nothing in it."""
    path.write_bytes(b"")


def fifo(path: Path, _: random.Random) -> None:
    """Whoever opens it waits for a writer."""
    os.mkfifo(path)


def device(path: Path, _: random.Random) -> None:
    """What never ends."""
    path.symlink_to("/dev/zero")


def listening(path: Path, _: random.Random) -> None:
    """A socket."""
    short = Path("s")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(short))
    short.rename(path)


def folder_there(path: Path, _: random.Random) -> None:
    """A folder, with something in it."""
    path.mkdir()
    (path / "x").write_text("x")


def file_there(path: Path, _: random.Random) -> None:
    """A file, where perhaps a folder was."""
    path.write_text("text\n")


def self_link(path: Path, _: random.Random) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def dangling(path: Path, _: random.Random) -> None:
    """A link to nothing."""
    path.symlink_to("nothing-there")


def looping(path: Path, _: random.Random) -> None:
    """A folder that holds a link to itself."""
    path.mkdir()
    (path / "again").symlink_to("../" + path.name)


def nested(path: Path, _: random.Random) -> None:
    """1,500 folders in one another."""
    path.mkdir()
    here = os.open(path, os.O_RDONLY)
    for _level in range(1500):
        os.mkdir("d", dir_fd=here)
        there = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)


def strange_names(path: Path, _: random.Random) -> None:
    """A folder of files whose names are not UTF-8, or full of control characters."""
    path.mkdir()
    for name in (b"i1\xff.png", b"\xc3\x28.j2", b"new\nline.png", b"\x1b[31m.yaml", b"manifest\xfe.json"):
        Path(os.fsdecode(os.fsencode(path) + b"/" + name)).write_bytes(b"x")


def deep(path: Path, _: random.Random) -> None:
    """JSON that is nested 100,000 deep."""
    path.write_text("[" * 100_000 + "]" * 100_000)


def rather_deep(path: Path, _: random.Random) -> None:
    """JSON that a parser takes and nothing after it."""
    path.write_text('{"stage": ' + '{"a":' * 900 + "1" + "}" * 901)


def long_number(path: Path, _: random.Random) -> None:
    """An integer of 5,000 digits under every key."""
    path.write_text("{" + ", ".join(f'"{key}": {"9" * 5000}' for key in ("stage", "format", "summary")) + "}")


def odd_types(path: Path, draw: random.Random) -> None:
    """Values of other types than expected."""
    values = (None, 7, 1.5, True, "text", [], {}, [[1]], {"a": {"b": []}}, 10**400)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = {}
    keys = list(found) if isinstance(found, dict) else []
    for key in draw.sample(keys, min(3, len(keys))):
        found[key] = draw.choice(values)
    path.write_text(json.dumps(found if keys else draw.choice(values)))


def other_table(path: Path, _: random.Random) -> None:
    """A Parquet file of other columns."""
    pq.write_table(pa.table({"x": [1, 2], "example_id": ["a", None]}), path)


IN_PLACE: tuple[Fault, ...] = (truncated, noise, flipped, emptied)
JSON: tuple[Fault, ...] = (deep, rather_deep, long_number, odd_types)
INSTEAD: tuple[Fault, ...] = (fifo, device, listening, folder_there, file_there, self_link, dangling, looping, nested,
                              strange_names)  # fmt: skip


def faults_of(path: Path) -> tuple[Fault, ...]:
    """Return what can be wrong in the place of ``path``."""
    if path.is_dir():
        return INSTEAD
    special: tuple[Fault, ...] = {".json": JSON, ".parquet": (other_table,), "": JSON}.get(path.suffix, ())
    return IN_PLACE + special + INSTEAD


def harm(path: Path, fault: Fault, draw: random.Random) -> None:
    """Put ``fault`` in the place of what is there."""
    if fault in INSTEAD or fault is other_table:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    fault(path, draw)


@dataclass(frozen=True)
class Case:
    """One file, one fault, one command."""

    name: str
    fault: Fault
    command: str
    seed: int

    def __str__(self) -> str:
        return f"{self.name} {self.fault.__name__}: msr {self.command}"


COMMANDS = ("run p.yaml --run-dir run", "check p.yaml --run-dir run", "results run", "compare run run:popularity",
            "recommend p.yaml --run-dir run --out top.csv --overwrite", "cache ls run",
            "candidates export p.yaml --run-dir run --out lists.parquet --overwrite", "evaluate p.yaml --run-dir run",
            "run p.yaml --run-dir run --force evaluate")  # fmt: skip
INPUT_COMMANDS = (*COMMANDS[:2], "fetch-images p.yaml", "build-data p.yaml --run-dir run")


def cases(folder: Path) -> list[Case]:
    """Return all cases for a folder with inputs and a finished run, in an order that begins with some of each kind."""
    run = folder / "run"
    once = {path.parent: path for path in run.rglob("*.png")}
    files = [path for path in sorted(run.rglob("*")) if path.suffix != ".png" and path.parent.name != "images"]
    files += list(once.values())[:1]
    found = []
    for path in files:
        found += list(itertools.product([path.relative_to(folder).as_posix()], faults_of(path), COMMANDS))
    for name in INPUTS:
        found += list(itertools.product([name], faults_of(folder / name), INPUT_COMMANDS))
    made = [Case(name, fault, command, seed) for seed, (name, fault, command) in enumerate(found)]
    random.Random(7).shuffle(made)
    return made


@contextmanager
def limited(seconds: int = _SECONDS) -> Iterator[None]:
    """Raise `HangError` in what takes longer."""

    def ring(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def finish(folder: Path, command: str) -> Path:
    """Run a command that must end well in ``folder``, and return the folder."""
    with contextlib.chdir(folder):
        code, said, _ = msr(command)
    assert code == 0, said
    return folder


def copy_here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of ``made`` of the test's own, in which it works."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def msr(command: str) -> tuple[int, str, BaseException | None]:
    """Run a command in this process; return its exit code, what it said, and what would be a traceback."""
    with limited():
        done = CliRunner().invoke(app, command.split())
    bug = None if done.exception is None or isinstance(done.exception, SystemExit) else done.exception
    return done.exit_code, done.output, bug
