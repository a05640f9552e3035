"""The index of a folder that `msr fetch-images` fills: what became of every URL, one JSON object per line."""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from msr_adapter.files import digest, write_text

INDEX = "fetched.jsonl"

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Fetched:
    """What became of one item's URL."""

    item_id: str
    url: str
    file: str | None = None
    """Relative to the folder; None = failed."""
    bytes: int = 0
    digest: str | None = None
    reason: str | None = None
    """Why it failed; None = it did not."""


def safe_name(item_id: str) -> str:
    """Return a file name without suffix for any item id: the id itself, or `_` and a digest of it."""
    return item_id if _SAFE.fullmatch(item_id) else f"_{digest(item_id.encode())[:32]}"


def read_index(folder: Path) -> dict[str, Fetched]:
    """Return item id -> its latest line. A line that a killed process left unfinished counts as not written."""
    found: dict[str, Fetched] = {}
    try:
        text = (folder / INDEX).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return found
    for line in text.splitlines():
        try:
            one = Fetched(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[one.item_id] = one
    return found


def line_of(one: Fetched) -> str:
    """Return an entry as its line of the index."""
    return json.dumps(asdict(one)) + "\n"


def write_index(folder: Path, entries: dict[str, Fetched]) -> None:
    """Write the whole index, atomically, sorted by item id."""
    write_text(folder / INDEX, "".join(line_of(entries[item]) for item in sorted(entries)))
