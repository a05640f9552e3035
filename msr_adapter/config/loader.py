"""From files and ``--set`` to one tree: `extends:` parents below, the file above them, the command line on top."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msr_adapter.config.bundled import YamlKind, find_yaml, not_found, template_folders
from msr_adapter.config.messages import explain, field_at, is_path
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.config.yaml_tree import LARGEST, SET, Loc, Node, Source, dotted, parse
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.files import bundled

PROTOCOL: Loc = ("evaluate", "protocol")
SOURCE: Loc = ("data", "source")
_LONGEST_CHAIN = 32


class Assembler:
    """Reads and merges trees; whatever is wrong is added to ``problems``."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._known: dict[tuple[Path, YamlKind], Node | None] = {}
        self.files: list[Path] = []
        """Every file that was read: the pipeline, what it extends, the protocol."""

    def read(self, path: Path, kind: YamlKind, chain: tuple[Path, ...] = ()) -> Node | None:
        """Read a YAML file on top of what it extends; None when it or a parent cannot be read."""
        if (path, kind) not in self._known:  # a parent of several is read once, however many ways lead to it
            self._known[path, kind] = self._read(path, kind, chain)
        return self._known[path, kind]

    def _read(self, path: Path, kind: YamlKind, chain: tuple[Path, ...]) -> Node | None:
        tree = self._read_alone(path)
        if tree is None or "extends" not in tree.value:
            return tree
        entries = dict(tree.value)
        parents = self._parents(entries.pop("extends"), kind, (*chain, path))
        if parents is None:
            return None
        merged = Node(entries, tree.where, tree.base)
        for parent in reversed(parents):
            merged = self.merge(parent, merged)
        return merged

    def read_sets(self, sets: Iterable[str]) -> Node:
        """Read ``a.b=value`` settings into one tree; values are YAML, paths are relative to the working directory."""
        tree = Node({}, SET, Path.cwd())
        for setting in sets:
            key, equals, text = setting.partition("=")
            if not equals or not all(key.split(".")):
                found = f"`{setting}` is not a setting"
                self.problems.append(Problem(SET, "", found, "expected key=value, e.g. `train.epochs=2`"))
                continue
            node = parse(text, Source(SET, Path.cwd(), numbered=False), self.problems)
            for part in reversed(key.split(".")):
                node = Node({part: node}, SET, Path.cwd()) if node else None
            tree = self.merge(tree, node) if node else tree
        return tree

    def merge(self, under: Node, over: Node, loc: Loc = ()) -> Node:
        """Lay ``over`` on ``under``: mappings merge key by key, everything else replaces.

        A source of another kind replaces the whole source. A mapping over a protocol's name changes that protocol.
        """
        if loc == PROTOCOL and isinstance(over.value, dict):
            under = self.named_protocol(under) or under
        if not isinstance(under.value, dict) or not isinstance(over.value, dict):
            return over
        if loc == SOURCE and _changes_kind(under.value, over.value):
            return over
        merged = dict(under.value)
        for key, child in over.value.items():
            merged[key] = self.merge(merged[key], child, (*loc, key)) if key in merged else child
        return Node(merged, under.where if over.where == SET else over.where, over.base)

    def named_protocol(self, node: Node) -> Node | None:
        """Return the protocol that ``node`` names, or None when it is no name or cannot be read."""
        if not isinstance(node.value, str):
            return None
        path = find_yaml(node.value, "eval", node.base)
        if path is None:
            self.problems.append(not_found(node.value, "eval", node.base, node.where, dotted(PROTOCOL)))
            return None
        return self.read(path, "eval")

    def _read_alone(self, path: Path) -> Node | None:
        """Read one file; without a `name` of its own it is called like the file."""
        label = shown(path)
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
        tree = parse(text, Source(label, path.parent), self.problems)
        if tree is not None and not isinstance(tree.value, dict):
            found = "the file is empty" if tree.value is None else "the file is not a mapping"
            self.problems.append(Problem(tree.where, "", found, "expected `key: value` lines"))
            return None
        return tree and Node({"name": Node(path.stem, tree.where, tree.base), **tree.value}, tree.where, tree.base)

    def _parents(self, extends: Node, kind: YamlKind, chain: tuple[Path, ...]) -> list[Node] | None:
        names = extends.value if isinstance(extends.value, list) else [extends]
        parents = [self._parent(name, kind, chain) for name in names]
        found = [parent for parent in parents if parent is not None]
        return found if len(found) == len(parents) else None

    def _parent(self, name: Node, kind: YamlKind, chain: tuple[Path, ...]) -> Node | None:
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
            self.problems.append(Problem(name.where, "extends", found, next_step="Write some of them together"))
            return None
        return self.read(path, kind, chain)


def shown(path: Path) -> str:
    """Write a path as messages do: relative to the working directory when it lies below it."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _changes_kind(under: dict[str, Node], over: dict[str, Node]) -> bool:
    return "kind" in under and "kind" in over and under["kind"].value != over["kind"].value


# Load a pipeline: a file or a bundled name, what it extends, ``--set`` on top; every problem at once.


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
    tree: Node = field(repr=False, compare=False)
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
        raise UserError(not_found(argument, "pipelines", Path.cwd()))
    assembler = Assembler()
    tree, problems = _assemble(assembler, origin, sets)
    data = _with_absolute_paths(tree, problems)
    pipeline = _validate(data, tree, problems)
    root = run_dir or pipeline.run_dir or Path("runs") / pipeline.name
    resolved = pipeline.model_dump(mode="json")
    files = tuple(dict.fromkeys(assembler.files))
    return LoadedPipeline(pipeline, origin, root.expanduser().resolve(), resolved, tree, files)


def _assemble(assembler: Assembler, origin: Path, sets: Sequence[str]) -> tuple[Node, list[Problem]]:
    settings = assembler.read_sets(sets)
    tree = assembler.read(origin, "pipelines")
    if tree is None:
        raise UserError(assembler.problems)
    tree = assembler.merge(tree, settings)
    protocol = tree.nearest(PROTOCOL)
    named = assembler.named_protocol(protocol)
    if named is not None:
        tree = tree.replaced(PROTOCOL, named)
    return tree, assembler.problems


def _validate(data: Any, tree: Node, problems: list[Problem]) -> PipelineConfig:
    """Validate strictly; an error at a key that already has a problem would only repeat it."""
    try:
        pipeline = PipelineConfig.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        known = {problem.field for problem in problems}
        found = [problem for problem in explain(error.errors(), tree) if problem.field not in known]
        raise UserError(sorted([*problems, *found], key=_place)) from None
    if problems:
        raise UserError(problems)
    return pipeline


def _place(problem: Problem) -> tuple[str, int]:
    label, _, line = problem.where.rpartition(":")
    return (label, int(line)) if line.isdigit() else (problem.where, 0)


def _with_absolute_paths(tree: Node, problems: list[Problem]) -> Any:
    """Return the plain config with every path absolute: relative ones start from the YAML that names them."""
    data = tree.plain()
    for loc, node in list(tree.leaves()):
        known = field_at(PipelineConfig, loc, data)
        if known is None or not isinstance(node.value, str):
            continue
        if "\0" in node.value and is_path(known):
            problems.append(Problem(node.where, ".".join(map(str, loc)), "a NUL character", "a path"))
            continue
        if not node.value.strip() and is_path(known):  # else it would mean the YAML's own folder
            problems.append(Problem(node.where, ".".join(map(str, loc)), "an empty text", "a path"))
            continue
        if loc == ("train", "start"):
            tree = tree.replaced(loc, Node(str(_run(node)), node.where, node.base))
        elif loc == ("templates",):
            tree = tree.replaced(loc, Node(_templates(node, problems), node.where, node.base))
        elif is_path(known) or (loc[-1:] == ("path",) and node.value.startswith(("./", "../", "/", "~"))):
            tree = tree.replaced(loc, Node(str(_absolute(node)), node.where, node.base))
    return tree.plain()


def _absolute(node: Node) -> Path:
    return (node.base / Path(node.value).expanduser()).resolve()


def _run(node: Node) -> Path:
    """Find a run: a folder beside the YAML, else the place where a pipeline of that name leaves its run."""
    folder = _absolute(node)
    return folder if folder.is_dir() else (Path("runs") / node.value).expanduser().resolve()


def _templates(node: Node, problems: list[Problem]) -> str:
    """Find a folder of templates: beside the YAML, else a bundled sub-folder."""
    for folder in (_absolute(node), bundled("templates") / node.value):
        if folder.is_dir():
            return str(folder)
    names = template_folders()
    found = f"no folder `{shown(_absolute(node))}`"
    expected = f"expected a folder of templates or a bundled one: {', '.join(names)}"
    problems.append(Problem(node.where, "templates", found, expected, did_you_mean(node.value, names)))
    return str(node.value)
