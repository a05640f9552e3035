"""A pipeline for files that nobody has described yet: `msr init` looks at them, says what it saw, and writes the YAML.

What is written extends the bundled pipeline `table` and says of it only what the files decide. It is loaded and checked
before it takes its place, so that it runs as it stands.
"""

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msr_adapter.config.loader import LoadedPipeline, load_pipeline
from msr_adapter.config.output_paths import Output, require_outputs
from msr_adapter.data.checks import check_data
from msr_adapter.data.event_roles import suggested_roles
from msr_adapter.data.log_facts import LogFacts, log_facts
from msr_adapter.data.published_layouts import LikelySource, likely_source
from msr_adapter.data.readers.column_names import candidates
from msr_adapter.data.readers.sources import SOURCES
from msr_adapter.data.readers.table_layout import table_at
from msr_adapter.data.readers.table_scan import column_names
from msr_adapter.data.source_look import SourceLook, look_through
from msr_adapter.errors import Problem, UserError, plural, raise_if_any
from msr_adapter.files import atomic_path
from msr_adapter.filesystem import absent
from msr_adapter.pipeline.checks import check

_PARENT = "table"
_FIRST_USERS = 3000
"""Users of a first experiment."""
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./-]*")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,99}")
_WORDS = {"null", "true", "false", "~", "yes", "no", "on", "off"}
_SETS = ("data.source.", "data.images.")
"""The settings that are written into the new pipeline."""


@dataclass(frozen=True)
class NewPipeline:
    """What was written, and what is said of it."""

    path: Path
    text: str
    source: LikelySource
    look: SourceLook
    decided: tuple[str, ...]
    """What the files decided."""
    unsure: tuple[str, ...]
    """What they leave open: for people to answer."""


@dataclass(frozen=True)
class GivenFiles:
    """What the user names."""

    log: Path
    items: Path | None = None
    images: Path | None = None
    sets: tuple[str, ...] = ()
    """``data.source.*`` and ``data.images.*`` settings."""


def new_pipeline(given: GivenFiles, out: Output) -> NewPipeline:
    """Look at files and write the pipeline that reads them. Raises `UserError` with all that is wrong with them."""
    _require_data_settings(given.sets)
    source = likely_source(given.log)
    is_open = source.kind == _PARENT and given.items is None and not source.layout
    titled = is_open and _has_titles(source.keys["interactions"])
    given = replace(given, items=given.log) if titled else given
    loaded = load_pipeline(_PARENT, _settings(source, given))
    data = loaded.pipeline.data
    inputs = {"LOG": given.log, "ITEMS": given.items, "--images": given.images}
    require_outputs([out], {name: path for name, path in inputs.items() if path is not None})
    raise_if_any(check_data(data))
    look = look_through(data, loaded.pipeline.split)
    raise_if_any(look.problems)
    facts = None if look.passed_over else log_facts(data, look.recognised)
    page = _Page(loaded, given, source, look, facts)
    text = page.text(out.path)
    with atomic_path(out.path) as temporary:
        temporary.write_text(text, encoding="utf-8")
        try:
            raise_if_any(check(load_pipeline(str(temporary))))
        except UserError as error:
            problems = [replace(one, where=one.where.replace(temporary.name, out.path.name)) for one in error.problems]
            raise UserError(problems) from error
    return NewPipeline(out.path, text, source, look, tuple(page.decided), tuple(page.unsure))


def _require_data_settings(sets: Sequence[str]) -> None:
    for setting in sets:
        if not setting.startswith(_SETS):
            step = "Write it into the new pipeline, or give it to `msr run`"
            raise UserError(Problem("--set", setting.partition("=")[0], "is not about the files",
                                    f"{' or '.join(name + 'KEY' for name in _SETS)}", step))  # fmt: skip


def _has_titles(log: Path) -> bool:
    return bool(candidates(column_names(table_at(log)), "title"))


def _settings(source: LikelySource, given: GivenFiles) -> list[str]:
    """Return the settings that make the bundled pipeline read the files."""
    row = next(row for row in SOURCES if row.kind == source.kind)
    keys: dict[str, Any] = {"kind": source.kind, **{key: str(path.absolute()) for key, path in source.keys.items()}}
    keys |= source.settings
    if given.items is not None:
        if row.items is None:
            raise UserError(Problem("", "ITEMS", f"{given.items}, but {given.log} is {source.kind}, which has its own",
                                    "the log alone", "Leave it out"))  # fmt: skip
        if not given.items.exists():
            raise UserError(Problem("", "ITEMS", absent(given.items), "a table of items"))
        keys[row.items] = str(given.items.absolute())
    elif source.kind == _PARENT and "items" not in keys:
        keys["items"] = None  # the parent names one
    if source.kind == "huggingface":
        keys |= {key: {"path": keys[key]} for key in ("interactions", "items") if keys.get(key)}
    settings = [f"data.source={_json(keys)}"]
    if given.images is not None:
        settings.append(f"data.images.folder={_json(str(given.images.absolute()))}")
    return [*settings, *given.sets]


@dataclass
class _Page:
    """The text of the new pipeline, and what is said of it."""

    loaded: LoadedPipeline
    given: GivenFiles
    source: LikelySource
    look: SourceLook
    facts: LogFacts | None

    def __post_init__(self) -> None:
        self.decided: list[str] = []
        self.unsure: list[str] = []

    def text(self, target: Path) -> str:
        """Return the YAML for a file at ``target``; its paths are relative to that where they lie below."""
        command = [
            "msr",
            "init",
            str(self.given.log),
            *([str(self.given.items)] if self.given.items not in (None, self.given.log) else []),
        ]
        command += ["--images", str(self.given.images)] if self.given.images else []
        command += [part for setting in self.given.sets for part in ("--set", setting)]
        lines = [
            f"# msr run {target.name:<20} written by `{' '.join(map(shlex.quote, command))}`",
            "#",
            f"#   msr check {target.name}   # says what the files hold, what a run would do and how long it takes",
            f"extends: {_PARENT}  # prompts, training and protocol; `msr cp {_PARENT} whole.yaml` shows them",
            f"name: {_yaml(target.stem if _NAME.fullmatch(target.stem) else 'my')}",
            "",
            "data:",
            "  source:",
            *self._source(target.absolute().parent),
            *self._images(target.absolute().parent),
            *self._filters(),
            *self._split(),
            *self._negatives(),
            "",
            "# `tiny` is a toy that shows whether your files are read as you meant. For real numbers, a real model:",
            "# summarize:",
            "#   items: {model: &model {path: Qwen/Qwen2.5-VL-3B-Instruct, dtype: bfloat16, batch_size: 8}}",
            "#   users: {model: *model}",
            "# train: {model: *model, method: lora, learning_rate: 1e-4, max_steps: null, epochs: 3, batch_size: 2,",
            "#         gradient_accumulation: 8}",
        ]
        return "\n".join(map(_one_line, lines)) + "\n"

    def _source(self, base: Path) -> list[str]:
        told = {one.file: line for one, line in zip(self.look.recognised, self.look.lines, strict=False)}
        dumped = self.loaded.pipeline.data.source.model_dump(mode="json", exclude_defaults=True)
        dumped = {"kind": self.source.kind, **{key: value for key, value in dumped.items() if value is not None}}
        if self.source.kind == _PARENT and "items" not in dumped:
            dumped["items"] = None
        lines = []
        for key, value in dumped.items():
            path = Path(value) if isinstance(value, str) and Path(value).is_absolute() else None
            line = f"    {key}: {_yaml(_with_relative_paths(value, base))}"
            about = told.get(path.name, "").partition(": ")[2] if path else ""
            lines += [f"    # {about}"] if about else []
            lines.append(line)
        if self.given.items == self.given.log:
            self.decided.append(f"titles are read from {self.given.log} itself: each item's first row")
        if self.source.layout:
            self.decided.append(f"{self.given.log} is read as {self.source.layout}, by {self.source.why}")
        if self.source.kind != _PARENT:
            self.decided.append(f"{self.given.log} is {self.source.kind}, by {self.source.why}")
        if self.facts is not None:
            lines += self._ratings(self.facts) + self._events(self.facts) + self._sessions(self.facts, dumped)
            if not self.facts.titles:
                self.unsure.append("no table of items: prompts have no titles. Name one: msr init LOG ITEMS")
        return lines

    def _ratings(self, facts: LogFacts) -> list[str]:
        row = next(row for row in SOURCES if row.kind == self.source.kind)
        if facts.rating is None or row.threshold is None:
            return []
        name, low, high = facts.rating
        least = f"{low + 0.75 * (high - low):g}"
        self.unsure.append(f"`{name}` runs from {low:g} to {high:g}, and every row is taken as liked: is a low one? "
                           f"Then set {row.threshold}")  # fmt: skip
        return [f"    # {row.threshold}: {least}  # `{name}` runs from {low:g} to {high:g}: rows below are seen, not "
                "liked; without this line, all are liked"]  # fmt: skip

    def _events(self, facts: LogFacts) -> list[str]:
        if facts.events is None:
            return []
        name, counts = facts.events
        words = ", ".join(f"{word} {count:,}" for word, count in list(counts.items())[:6])
        self.unsure.append(f"`{name}` says what happened ({words}), and every row is taken alike: if some are no "
                           "sign of liking, say so by data.source.events (docs/events.md)")  # fmt: skip
        lines = [f"    # `{name}` is not read: {words}"]
        if roles := suggested_roles(list(counts)):
            keys = {"column": name, **roles, **({"same": "session"} if facts.session else {})}
            lines.append(f"    # events: {_yaml(keys)}  # perhaps; docs/events.md says what each means")
        return lines

    def _sessions(self, facts: LogFacts, dumped: Mapping[str, Any]) -> list[str]:
        if facts.session is None or self.loaded.pipeline.data.source.kind != _PARENT:
            return []
        columns = {**dumped.get("columns", {}), "session": facts.session}
        instead = ", in place of the columns above" if "columns" in dumped else ""
        return [f"    # columns: {_yaml(columns)}  # perhaps{instead}: with data.repeats: keep, one row of a user and "
                "an item stays of each session"]  # fmt: skip

    def _images(self, base: Path) -> list[str]:
        images, facts = self.loaded.pipeline.data.images, self.facts
        dumped = images.model_dump(mode="json", exclude_defaults=True)
        if images.folder is not None:
            dumped["folder"] = _relative(images.folder, base)
        lines = []
        if facts is not None and (images.folder is not None or facts.images):
            found = f"{facts.images:,} of {facts.items:,} items have an image"
            lines.append(f"  # {found}")
            (self.decided if facts.images else self.unsure).append(found)
        if facts is not None and facts.urls and images.folder is None:
            lines.append("  # images: {folder: images}  # the column holds addresses; download them first: "
                         "`msr fetch-images THIS --out images`")  # fmt: skip
            self.unsure.append(f"{plural(facts.urls, 'item')} name the address of an image: download them with "
                               "`msr fetch-images`, until then prompts have no images")  # fmt: skip
        return [*lines, f"  images: {_yaml(dumped)}"] if dumped else lines

    def _filters(self) -> list[str]:
        facts = self.facts
        if facts is None:
            return [
                "  # A large log, not looked through: a core and a first experiment, for you to set",
                "  k_core: {users: 3, items: 3}",
                f"  limit: {{users: {_FIRST_USERS}}}",
            ]
        core = facts.core
        share = f"{facts.kept[core]:,} of {facts.rows:,} rows"
        lines = [f"  k_core: {{users: {core}, items: {core}}}  # keeps {share}"]
        self.decided.append(f"data.k_core {core} keeps {share}")
        if core == 1:
            self.unsure.append("most users or items have fewer than two interactions: there is little to learn from")
        if facts.users > _FIRST_USERS:
            lines.append(f"  limit: {{users: {_FIRST_USERS}}}  # of {facts.users:,}, for a first experiment; remove it")
            self.decided.append(f"data.limit.users {_FIRST_USERS:,} of {facts.users:,}: a first experiment")
        return lines

    def _split(self) -> list[str]:
        if self.facts is None or not self.facts.split:
            return []
        self.decided.append("split.kind: column, as the log says train, validation and test")
        return ["", "split:", "  kind: column  # as the log itself says"]

    def _negatives(self) -> list[str]:
        wanted = self.loaded.pipeline.evaluate.protocol.negatives.count
        room = wanted if self.facts is None else self.facts.unseen[self.facts.core]
        if not isinstance(wanted, int) or room >= wanted:
            return []
        room = max(room, 1)
        self.decided.append(f"evaluate.protocol.negatives {room}: the catalogue is small, and some user has seen most "
                            "of it")  # fmt: skip
        return ["", "evaluate:", f"  protocol: {{negatives: {room}}}  # not {wanted}: some user has no more new items"]


def _one_line(line: str) -> str:
    """Return a line without what would end it: comments repeat names and words of the data, which are not ours."""
    return "".join(letter if letter.isprintable() else " " for letter in line)


def _with_relative_paths(value: Any, base: Path) -> Any:
    """Return a value of the config in which absolute paths start from ``base``, where they lie below it."""
    if isinstance(value, Mapping):
        return {key: _with_relative_paths(one, base) if key == "path" else one for key, one in value.items()}
    return _relative(Path(value), base) if isinstance(value, str) and Path(value).is_absolute() else value


def _relative(path: Path, base: Path) -> str:
    """Return a path from ``base``, where it lies below; else as it is, absolute."""
    return os.path.relpath(path, base) if path.is_relative_to(base) else str(path)


def _yaml(value: Any) -> str:
    """Return a value as YAML on one line; texts that could be read as something else are quoted."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return _json(value)


def _json(value: Any) -> str:
    """Return a value as JSON that is YAML too: letters that do not print would be folded in it, or end a line."""
    written = json.dumps(value, ensure_ascii=False)
    return "".join(one if one.isprintable() else _escaped(ord(one)) for one in written)


def _escaped(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
