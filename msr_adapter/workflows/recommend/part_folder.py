"""Ranked lists of millions as a folder: a Parquet file for each few thousand users, and a manifest written last.

::

    part-00000.parquet ..   RECOMMENDATIONS, users in the order asked for
    manifest.json           the parts with their users and rows; its presence says that all are there
    .unfinished/            while the command is at work, or was killed: whose lists these are, and shards of a part

A part is a group of users; it is whole or absent, and so is each shard that it is made of.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from msr_adapter import schema
from msr_adapter.config.output_paths import Protected, place_problem
from msr_adapter.errors import Problem, UserError
from msr_adapter.files import read_json_object, remove, sweep, write_json
from msr_adapter.filesystem import read_object
from msr_adapter.workflows.recommend.output import SUFFIXES
from msr_adapter.workflows.recommend.ranked_shard import COUNTED, counts_of

MANIFEST = "manifest.json"
_UNFINISHED = ".unfinished"
_REQUEST = "request.json"


def is_folder_of_parts(out: Path) -> bool:
    """Say whether an `--out` names a folder of parts, and not one file."""
    return out.suffix.lower() not in SUFFIXES and (not out.suffix or out.is_dir())


def folder_of_parts_problems(out: Path, protected: Protected, *, overwrite: bool) -> list[Problem]:
    """Return why a folder may not be written: an input, a run, somebody else's files, or lists that are whole."""
    if problem := place_problem(out, protected, "--out"):
        return [problem]
    if out.exists() and not out.is_dir():
        return [Problem("", "--out", f"{out} is a file without a suffix", "a folder, or a .parquet, .csv or .jsonl")]
    foreign = [path.name for path in out.iterdir() if not _is_ours(path)] if out.is_dir() else []
    if foreign:
        found = f"{out} has files that msr did not write ({', '.join(sorted(foreign)[:3])})"
        return [Problem("", "--out", found, "a folder that is new, empty or of ranked lists", "Choose another")]
    if (out / MANIFEST).exists() and not overwrite:
        step = "Choose another name, or add --overwrite"
        return [Problem("", "--out", f"{out} has ranked lists already", "a new folder", step)]
    return []


def _is_ours(path: Path) -> bool:
    return path.name in (MANIFEST, _UNFINISHED) or path.match("part-*.parquet") or path.match(".*.tmp")


class PartFolder:
    """The folder while it is written."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def begin(self, request: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Make the folder ready for the lists of ``request``; return whether it goes on from a killed command.

        `UserError` where lists of another request are unfinished there, unless they may be lost.
        """
        work, kept = self.out / _UNFINISHED, read_json_object(self.out / _UNFINISHED / _REQUEST)
        told = json.loads(json.dumps(request))  # as it will be read
        if kept == told:
            sweep(self.out, lambda _: True)
            return True
        if kept and not overwrite:
            differ = ", ".join(sorted(key for key in {*kept, *told} if kept.get(key) != told.get(key)))
            found = f"{self.out} has unfinished lists of another request (other {differ})"
            step = "Run that command again, choose another folder, or add --overwrite"
            raise UserError(Problem("", "--out", found, "a folder of this request", step))
        for path in self.out.iterdir() if self.out.is_dir() else ():
            remove(path)
        work.mkdir(parents=True, exist_ok=True)
        write_json(work / _REQUEST, request)
        return False

    def is_done(self, part: int) -> bool:
        """Say whether a part is whole."""
        return self._part(part).exists()

    def shard(self, part: int, first: int) -> Path:
        """Return the file of a shard's lists, by its part and the place of its first user in it."""
        return self.out / _UNFINISHED / f"part-{part:05}" / f"{first:06}.parquet"

    def close_part(self, part: int, shards: Sequence[Path]) -> None:
        """Join the shards of a part, in order. Memory: a shard."""
        totals = dict.fromkeys(COUNTED, 0)
        for shard in shards:
            counts = read_object(counts_of(shard))
            totals = {name: total + counts[name] for name, total in totals.items()}
        write_json(self._counts(part), totals)
        tables = (schema.read_table(shard, schema.RECOMMENDATIONS) for shard in shards)
        schema.write_chunks(tables, schema.RECOMMENDATIONS, self._part(part))
        remove(self.out / _UNFINISHED / f"part-{part:05}")

    def finish(self, users: Sequence[int], told: Mapping[str, Any]) -> dict[str, Any]:
        """Write the manifest, given how many ``users`` each part has; return what it says, but for the parts."""
        totals = dict.fromkeys(COUNTED, 0)
        parts = list[dict[str, Any]]()
        for part, number in enumerate(users):
            path, counts = self._part(part), read_object(self._counts(part))
            totals = {name: total + counts[name] for name, total in totals.items()}
            parts.append({"file": path.name, "users": number, "rows": pq.read_metadata(path).num_rows})
        found = {**told, "rows": sum(part["rows"] for part in parts), "scores": totals}
        write_json(self.out / MANIFEST, {**found, "parts": parts})
        remove(self.out / _UNFINISHED)
        return found

    def _counts(self, part: int) -> Path:
        return self.out / _UNFINISHED / f"part-{part:05}.counts.json"

    def _part(self, part: int) -> Path:
        return self.out / f"part-{part:05}.parquet"
