"""What `msr check` says of the data: the files are read as a build reads them, but nothing is built."""

from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from msr_adapter.config.schema import DataConfig, SplitConfig
from msr_adapter.data.attributes import SourceAttributes, read_attributes
from msr_adapter.data.audit.ids import audit_id_counts, near_text
from msr_adapter.data.audit.recognition import Recognition, recognition_lines
from msr_adapter.data.audit.report import Audit, AuditFinding
from msr_adapter.data.checks import check_data, packed_problems
from msr_adapter.data.id_forms import near_matches
from msr_adapter.data.images.several import further_columns
from msr_adapter.data.published_split import unused_split
from msr_adapter.data.readers.reader import Corpus
from msr_adapter.data.readers.sources import draws_images, read, source_files
from msr_adapter.data.splits import split_column_problems
from msr_adapter.errors import Problem, collecting, plural
from msr_adapter.filesystem import files_below
from msr_adapter.prompts.attributes import KnownAttributes

_MOST = 256 * 2**20
"""Bytes that are looked through: seconds, not minutes."""
_PACKED = 8
"""How many times its size a packed file is taken to hold."""


@dataclass(frozen=True)
class SourceLook:
    """What the files of a source hold."""

    recognised: list[Recognition] = field(default_factory=list)
    findings: list[AuditFinding] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    passed_over: str = ""
    """Why they were not looked through."""
    attributes: SourceAttributes = field(default_factory=SourceAttributes)
    """The columns that templates may say."""

    @property
    def found(self) -> KnownAttributes | None:
        """What templates are tried with; None where the files were not looked through."""
        looked = self.attributes.items or self.attributes.users
        return self.attributes.known() if looked else None

    @property
    def lines(self) -> list[str]:
        """What is printed: a line for each file, then the warnings."""
        told = [f"{one['severity']}: {one['text']}" for one in self.findings if one["severity"] != "info"]
        return [
            *recognition_lines(self.recognised),
            *self.attributes.lines,
            *([self.passed_over] if self.passed_over else []),
            *told,
        ]


def look_through(data: DataConfig, split: SplitConfig) -> SourceLook:
    """Read the files of a source and return what they were taken for, and every bad row.

    A split that the source publishes and ``split`` does not use is told, and one that it wants and is not there.
    In constant memory but for the items. Large files and data sets of the hub are not read: that is for a build.
    """
    files = [path for path in source_files(data.source).values() if path is not None]
    files += [] if data.users is None else [data.users.path]
    if draws_images(data.source) or not files or check_data(data):  # its problems are told by who asks for them
        return SourceLook()
    if any(isinstance(path, str) for path in files):
        return SourceLook(passed_over="What lies on a hub, in a bucket or in a database is not loaded here; "
                          "`msr build-data` says what it holds.")  # fmt: skip
    if (size := sum(_size(path) for path in files if isinstance(path, Path))) > _MOST:
        return SourceLook(passed_over=f"About {size / 2**20:,.0f} MiB of data are not looked through here; "
                          "`msr build-data` begins with it and says what they hold.")  # fmt: skip
    if packed := packed_problems(data):  # a bomb, which is told before it is read
        return SourceLook(problems=packed)
    audit, problems, attributes = Audit(), list[Problem](), SourceAttributes()
    with collecting(problems):
        audit.attributes = data.items.attributes
        audit.several_images = further_columns(data.images)
        corpus = read(data.source, 0, audit)
        attributes = read_attributes(data, corpus)
        unused_split(corpus.interactions, split.kind, audit)
        problems += split_column_problems(corpus.interactions) if split.kind == "column" else []
        _look_at_ids(corpus, audit)
    return SourceLook(audit.recognised, audit.findings, problems, attributes=attributes)


def _look_at_ids(corpus: Corpus, audit: Audit) -> None:
    """Find what a build finds of the ids, before any filter; one more pass over the log."""
    ids = [
        corpus.interactions.group_by(pl.col(name).alias("id")).agg(rows=pl.len()).sort("id")
        for name in ("user_id", "item_id")
    ]
    users, items = pl.collect_all(ids, engine="streaming")
    audit_id_counts(users, items, corpus, audit)
    if corpus.items is None:
        return
    unknown = items["id"].filter(items["id"].is_in(corpus.items["item_id"].implode()).not_())
    if text := near_text(near_matches(unknown, corpus.items["item_id"]), "the table"):
        audit.find("warning", f"The table of items lacks {plural(len(unknown), 'item')} of the log.{text}", "near-ids")


def _size(path: Path) -> int:
    """Return the bytes of a file or folder, unpacked as far as can be told."""
    if path.is_dir():
        return sum(Path(entry.path).stat().st_size for entry, _ in files_below(path))
    return path.stat().st_size * (_PACKED if path.suffix.lower() == ".gz" else 1) if path.exists() else 0
