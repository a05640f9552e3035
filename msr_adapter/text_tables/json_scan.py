"""One pass over the bytes of JSON lines: every key of every object, and what other readers pass over or refuse."""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from msr_adapter.errors import plural
from msr_adapter.text_tables.json_array import array_elements
from msr_adapter.text_tables.json_blocks import JsonBlock, blocks
from msr_adapter.text_tables.json_keys import KeyPlaces
from msr_adapter.text_tables.opening import BOM, open_plain


@dataclass
class JsonScan:
    """What a file of JSON lines holds."""

    keys: dict[str, int] = field(default_factory=dict)
    """Key of an object -> the line where it first stands, in that order; keys of nested objects do not count."""
    lines: int = 0
    """Lines that are not blank."""
    begins_with_mark: bool = False
    """Whether the file has a byte order mark."""
    constants: int = 0
    """`NaN`, `Infinity` and `-Infinity`, which JSON has not."""
    first_constant: int = 0
    surrogates: int = 0
    """Halves of characters (`\\ud83d` without its partner), which are no text."""
    first_surrogate: int = 0
    repeated: tuple[str, int] | None = None
    """The first key that stands twice in an object, and the line."""
    is_broken: bool = False
    """Whether the file begins as an array and is none."""
    is_array: bool = False
    """Whether the file is one JSON array, maybe over many lines; then only the keys are known."""

    @property
    def is_plain(self) -> bool:
        """Whether any reader of JSON lines reads it."""
        return not (self.begins_with_mark or self.constants or self.surrogates or self.is_array)

    def told(self, name: str) -> list[str]:
        """Return what a reader should know of how the file called ``name`` is read."""
        told = []
        if self.constants:
            told.append(f"{name} holds NaN or Infinity {plural(self.constants, 'time')} (first in line "
                        f"{self.first_constant:,}), which JSON has not: read as missing.")  # fmt: skip
        if self.surrogates:
            told.append(f"{name} holds halves of characters {plural(self.surrogates, 'time')} (first in line "
                        f"{self.first_surrogate:,}): read as \ufffd.")  # fmt: skip
        if self.repeated is not None:
            key, line = self.repeated
            told.append(f"{name} has the key {key!r} twice in line {line:,}: of a repeated key the first value counts.")
        return told


def scan_json(path: Path) -> JsonScan:
    """Return what a file of JSON lines holds; a line that is no JSON ends the look at its block.

    About 2 s a GB; each version of a file is looked at once.
    """
    stamp = path.stat()
    return _scanned(path, (stamp.st_size, stamp.st_mtime_ns, stamp.st_ino))


@lru_cache(maxsize=64)
def _scanned(path: Path, version: tuple[int, int, int]) -> JsonScan:
    """Look at one ``version`` of a file."""
    del version  # it only tells a changed file from the one that was looked at
    scan, places = JsonScan(), KeyPlaces()
    with open_plain(path) as file:
        start = file.read(4096)
        scan.begins_with_mark = start.startswith(BOM)
        scan.is_array = start.removeprefix(BOM).lstrip()[:1] == b"["
    if scan.is_array:
        _look_at_array(path, scan)
        return scan
    for block in blocks(path):
        scan.lines += _filled_lines(block)
        if found := block.constants():
            scan.first_constant = scan.first_constant or block.line_of(found[0][0])
            scan.constants += len(found)
        if lone := block.surrogates():
            scan.first_surrogate = scan.first_surrogate or block.line_of(lone[0])
            scan.surrogates += len(lone)
        places.add(block)
    scan.keys, scan.repeated = places.top, places.repeated
    return scan


def _look_at_array(path: Path, scan: JsonScan) -> None:
    twice: list[str] = []

    def pairs(found: list[tuple[str, object]]) -> dict[str, object]:
        result = dict(found)
        if len(result) < len(found):
            names = [name for name, _ in found]
            twice.extend(name for name in result if names.count(name) > 1)
        return result

    try:
        for line, text in array_elements(path):
            scan.lines += 1
            element = json.loads(text, object_pairs_hook=pairs)
            for key in element if isinstance(element, dict) else ():
                scan.keys.setdefault(key, line)
            scan.repeated = scan.repeated or ((twice[0], line) if twice else None)
    except (ValueError, RecursionError):  # whoever reads it says where
        scan.is_broken = True


def _filled_lines(block: JsonBlock) -> int:
    array = block.array
    newlines = block.newlines
    # A line that is not blank ends with a bracket; only where some does not are all looked at.
    if len(newlines) and newlines[-1] == len(array) - 1 and (array[newlines - 1] == ord("}")).all():
        return len(newlines)
    return sum(1 for line in block.data.split(b"\n") if line.strip())
