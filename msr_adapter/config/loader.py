"""From files and ``--set`` to one valid pipeline.

`extends:` parents lie at the bottom, the file above them, the command line on top. Everything is merged as a tree whose
nodes remember where they come from, so that every problem names its file and line; all problems are told at once.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msr_adapter.config.bundled import YamlKind, find_yaml, not_found, path_fault, template_folders
from msr_adapter.config.error_messages import explain, field_at, is_path
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.config.schema.tables import REMOTE_SCHEMES
from msr_adapter.config.yaml_scalars import shown
from msr_adapter.config.yaml_tree import DEEPEST, LARGEST, SET, Loc, YamlNode, YamlSource, dotted, parse
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.files import bundled
from msr_adapter.filesystem import home, near_path, real
from msr_adapter.text_tables.opening import plain_suffix

_PROTOCOL: Loc = ("evaluate", "protocol")
_SOURCE: Loc = ("data", "source")
_RUNS: tuple[Loc, ...] = (("train", "start"), ("train", "negatives", "run"))
"""Keys that name a run."""
_REMOTE = re.compile(rf"(?:{'|'.join(REMOTE_SCHEMES)})://", re.IGNORECASE)
"""Addresses, which are relative to nothing."""
_LONGEST_CHAIN = 32
_OF_TABLES = frozenset({".csv", ".tsv", ".parquet", ".jsonl", ".ndjson"})
"""What files are called that `msr init` reads, and that may be given for a pipeline."""


@dataclass(frozen=True)
class LoadedPipeline:
    """A valid pipeline, where it came from and where it runs."""

    pipeline: PipelineConfig
    origin: Path
    """The YAML file."""
    run_dir: Path
    """Absolute."""
    resolved: dict[str, Any]
    """The whole config with every default, JSON-able."""
    tree: YamlNode = field(repr=False, compare=False)
    files: tuple[Path, ...] = ()
    """The YAML file, what it extends, and the protocol's."""

    def where(self, key: str) -> str:
        """Return the place (``file:line`` or ``--set``) that set a dotted ``key``, or the nearest key above it."""
        return self.tree.nearest(tuple(key.split("."))).where


def load_pipeline(argument: str, sets: Sequence[str] = (), run_dir: Path | None = None) -> LoadedPipeline:
    """Load the pipeline that ``argument`` names: an existing file, else a bundled name.

    Precedence: defaults < `extends:` parents < the file < ``sets`` (``a.b=value``). Raises `UserError` with every
    problem found.
    """
    origin = find_yaml(argument, "pipelines", Path.cwd())
    if origin is None:
        problem = not_found(argument, "pipelines", Path.cwd())
        if Path(argument).suffix in (".yaml", ".yml", ".csv"):  # whoever writes so means a file of their own
            step = problem.next_step or "`msr init LOG ITEMS` writes one for your files"
            problem = replace(problem, allowed="a YAML file, or a name that `msr ls` lists", next_step=step)
        raise UserError(problem)
    if plain_suffix(origin) in _OF_TABLES:
        allowed, step = "a YAML file, or a name that `msr ls` lists", f"`msr init {argument}` writes one for your files"
        raise UserError(Problem(argument, "", "a table, no pipeline", allowed, step))
    if run_dir is not None and (fault := path_fault(str(run_dir))):
        raise UserError(Problem("", "--run-dir", fault, "a path"))
    reader = TreeReader()
    settings = reader.read_sets(sets)
    tree = reader.read(origin, "pipelines")
    if tree is None:
        raise UserError(reader.problems)
    return _loaded(reader, reader.merge(tree, settings), origin, run_dir)


def load_resolved(resolved: Mapping[str, Any], origin: Path, run_dir: Path, sets: Sequence[str] = ()) -> LoadedPipeline:
    """Return the pipeline that a run was made with, of its ``resolved`` settings; ``origin`` is the file they are in.

    Raises `UserError` with every problem found, such as keys that this version does not have.
    """
    reader = TreeReader()
    settings = reader.read_sets(sets)
    tree = parse(json.dumps(dict(resolved)), YamlSource(_shown(origin), origin.parent), reader.problems)
    if tree is None:
        raise UserError(reader.problems)
    return _loaded(reader, reader.merge(tree, settings), origin, run_dir)


def _loaded(reader: "TreeReader", tree: YamlNode, origin: Path, run_dir: Path | None) -> LoadedPipeline:
    protocol = reader.named_protocol(tree.nearest(_PROTOCOL))
    if protocol is not None:
        tree = tree.replaced(_PROTOCOL, protocol)
    data = _with_absolute_paths(tree, reader.problems)
    pipeline = _validate(data, tree, reader.problems)
    root = run_dir or pipeline.run_dir or Path("runs") / pipeline.name
    resolved = pipeline.model_dump(mode="json")
    files = tuple(dict.fromkeys(reader.files))
    return LoadedPipeline(pipeline, origin, real(root), resolved, tree, files)


class TreeReader:
    """Reads YAML files and settings as trees, and merges them; whatever is wrong is added to ``problems``."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.files: list[Path] = []
        """Every file that was read: the pipeline, what it extends, the protocol."""
        self._known: dict[tuple[Path, YamlKind], YamlNode | None] = {}

    def read(self, path: Path, kind: YamlKind, chain: tuple[Path, ...] = ()) -> YamlNode | None:
        """Read a YAML file on top of what it extends; None when it or a parent cannot be read.

        ``chain`` holds the files that extend it, the outermost first.
        """
        # A parent of several files is read once: a lattice of `extends:` would else take 2^depth readings.
        if (path, kind) not in self._known:
            self._known[path, kind] = self._read(path, kind, chain)
        return self._known[path, kind]

    def _read(self, path: Path, kind: YamlKind, chain: tuple[Path, ...]) -> YamlNode | None:
        tree = self._read_file(path)
        if tree is None or "extends" not in tree.value:
            return tree
        entries = dict(tree.value)
        parents = self._parents(entries.pop("extends"), kind, (*chain, path))
        if parents is None:
            return None
        merged = YamlNode(entries, tree.where, tree.base)
        for parent in reversed(parents):
            merged = self.merge(parent, merged)
        return merged

    def read_sets(self, sets: Iterable[str]) -> YamlNode:
        """Read ``a.b=value`` settings into one tree; values are YAML, paths are relative to the working directory."""
        tree = YamlNode({}, SET, Path.cwd())
        for setting in sets:
            key, equals, text = setting.partition("=")
            if not equals or not all(key.split(".")) or shown(key, len(key)) != key or key.count(".") > DEEPEST:
                found = f"`{shown(setting)}` is not a setting"
                self.problems.append(Problem(SET, "", found, "expected key=value, e.g. `train.epochs=2`"))
                continue
            parts = tuple(key.split("."))
            faults: list[Problem] = []
            node = parse(text, YamlSource(SET, Path.cwd(), numbered=False, loc=parts), faults)
            quote = f"Quote it: --set {key}='\"...\"'"
            for fault in faults:
                is_unread = fault.found.startswith("not valid YAML")  # such as a comma, or what begins with a star
                self.problems.append(replace(fault, field=key, next_step=quote) if is_unread else fault)
            read = node.value if node else None
            if isinstance(read, str) and re.match(rf"\s*{re.escape(read)}\s+#", text):
                # YAML ends a text at ` #`: of the folder `100% #1`, the folder `100%` would be left without a word.
                found = f"`{shown(text)}` is cut to `{shown(read)}`: a # after a blank begins a comment"
                self.problems.append(Problem(SET, key, found, "", quote))
            for part in reversed(parts):
                node = YamlNode({part: node}, SET, Path.cwd()) if node else None
            tree = self.merge(tree, node) if node else tree
        return tree

    def merge(self, under: YamlNode, over: YamlNode, loc: Loc = ()) -> YamlNode:
        """Lay ``over`` on ``under``: mappings merge key by key, everything else replaces.

        A source of another kind replaces the whole source. A mapping over a protocol's name changes that protocol.
        """
        if loc == _PROTOCOL and isinstance(over.value, dict):
            under = self.named_protocol(under) or under
        if not isinstance(under.value, dict) or not isinstance(over.value, dict):
            return over
        # The keys of one kind of source mean nothing to another: merged, they would be refused as unknown.
        kinds = [part.value["kind"].value for part in (under, over) if "kind" in part.value]
        if loc == _SOURCE and len(kinds) == 2 and kinds[0] != kinds[1]:
            return over
        merged = dict(under.value)
        for key, child in over.value.items():
            merged[key] = self.merge(merged[key], child, (*loc, key)) if key in merged else child
        # A key that only `--set` reaches into still stands in its file: problems of the whole mapping belong there.
        return YamlNode(merged, under.where if over.where == SET else over.where, over.base)

    def named_protocol(self, node: YamlNode) -> YamlNode | None:
        """Return the protocol that ``node`` names, or None when it is no name or cannot be read."""
        if not isinstance(node.value, str):
            return None
        path = find_yaml(node.value, "eval", node.base)
        if path is None:
            self.problems.append(not_found(node.value, "eval", node.base, node.where, dotted(_PROTOCOL)))
            return None
        return self.read(path, "eval")

    def _read_file(self, path: Path) -> YamlNode | None:
        """Read one file alone; without a `name` of its own it is called like the file."""
        label = _shown(path)
        self.files.append(path)
        try:
            with path.open("rb") as file:
                data = file.read(LARGEST + 1)
            if len(data) > LARGEST:
                self.problems.append(Problem(label, "", f"more than {LARGEST // 2**10} KiB", "a pipeline"))
                return None
            text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            self.problems.append(Problem(label, "", "not UTF-8 text", next_step="Save the file as UTF-8"))
            return None
        except OSError as error:
            self.problems.append(Problem(label, "", f"cannot be read ({error.strerror})"))
            return None
        tree = parse(text, YamlSource(label, path.parent), self.problems)
        if tree is not None and not isinstance(tree.value, dict):
            found = "the file is empty" if tree.value is None else "the file is not a mapping"
            self.problems.append(Problem(tree.where, "", found, "expected `key: value` lines"))
            return None
        return tree and YamlNode(
            {"name": YamlNode(path.stem, tree.where, tree.base), **tree.value}, tree.where, tree.base
        )

    def _parents(self, extends: YamlNode, kind: YamlKind, chain: tuple[Path, ...]) -> list[YamlNode] | None:
        names = extends.value if isinstance(extends.value, list) else [extends]
        parents = [self._parent(name, kind, chain) for name in names]
        found = [parent for parent in parents if parent is not None]
        return found if len(found) == len(parents) else None

    def _parent(self, name: YamlNode, kind: YamlKind, chain: tuple[Path, ...]) -> YamlNode | None:
        if not isinstance(name.value, str):
            expected = "expected a name, a path, or a list of them"
            self.problems.append(Problem(name.where, "extends", "not a name", expected))
            return None
        path = find_yaml(name.value, kind, name.base)
        if path is None:
            self.problems.append(not_found(name.value, kind, name.base, name.where, "extends"))
            return None
        if path in chain:
            circle = " -> ".join(link.name for link in (*chain[chain.index(path) :], path))
            self.problems.append(Problem(name.where, "extends", f"a circle: {circle}", next_step="Cut it in one file"))
            return None
        if len(chain) >= _LONGEST_CHAIN:
            found = f"more than {_LONGEST_CHAIN} files, each of which extends the next"
            self.problems.append(Problem(name.where, "extends", found, next_step="Merge some of them"))
            return None
        return self.read(path, kind, chain)


def _with_absolute_paths(tree: YamlNode, problems: list[Problem]) -> object:
    """Return the plain config with every path absolute: relative ones start from the YAML that names them."""
    data = tree.plain()
    for loc, node in list(tree.leaves()):
        known = field_at(PipelineConfig, loc, data)
        if known is None or not isinstance(node.value, str):
            continue
        # `path` of a model or a hub data set may also be a hub's name: only what looks like a path is one.
        named = loc[-1:] == ("path",) or loc == ("embedding", "model")
        looks_like_one = named and node.value.startswith(("./", "../", "/", "~"))
        if not (is_path(known) or looks_like_one):
            continue
        if _REMOTE.match(node.value) and loc[:2] == _SOURCE:
            continue
        if fault := path_fault(node.value):
            problems.append(Problem(node.where, dotted(loc), fault, "a path"))
        elif loc in _RUNS:
            tree = _with_text(tree, loc, str(_run(node)))
        elif loc == ("templates",):
            tree = _with_text(tree, loc, _templates(node, problems))
        else:
            tree = _with_text(tree, loc, str(_absolute(node)))
    return tree.plain()


def _with_text(tree: YamlNode, loc: Loc, text: str) -> YamlNode:
    node = tree.nearest(loc)
    return tree.replaced(loc, YamlNode(text, node.where, node.base))


def _absolute(node: YamlNode) -> Path:
    return real(node.base / home(node.value))


def _run(node: YamlNode) -> Path:
    """Find a run: a folder beside the YAML, else the place where a pipeline of that name leaves its run."""
    folder = _absolute(node)
    return folder if folder.is_dir() else real(Path("runs") / node.value)


def _templates(node: YamlNode, problems: list[Problem]) -> str:
    """Find a folder of templates: beside the YAML, else a bundled sub-folder."""
    for folder in (_absolute(node), bundled("templates") / node.value):
        if folder.is_dir():
            return str(folder)
    names = template_folders()
    found = f"no folder `{_shown(_absolute(node))}`"
    expected = f"expected a folder of templates or a bundled one: {', '.join(names)}"
    near = near_path(_absolute(node), folder=True)
    guess = f"Did you mean `{near}`?" if near else did_you_mean(node.value, names)
    problems.append(Problem(node.where, "templates", found, expected, guess))
    return str(node.value)


def _shown(path: Path) -> str:
    """Write a path as messages do: relative to the working directory when it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _validate(data: object, tree: YamlNode, problems: list[Problem]) -> PipelineConfig:
    """Validate strictly; raises `UserError` with ``problems`` and pydantic's, in the order of files and lines."""
    try:
        # As JSON, because pydantic's strict mode takes lists for tuples and texts for paths only there.
        pipeline = PipelineConfig.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        known = {problem.field for problem in problems}  # an error at such a key would only repeat its problem
        found = [problem for problem in explain(error.errors(), tree) if problem.field not in known]
        raise UserError(sorted([*problems, *found], key=_place)) from None
    if problems:
        raise UserError(problems)
    return pipeline


def _place(problem: Problem) -> tuple[str, int]:
    label, _, line = problem.where.rpartition(":")
    return (label, int(line)) if line.isdigit() else (problem.where, 0)
