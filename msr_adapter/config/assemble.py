"""From files and ``--set`` to one tree: `extends:` parents below, the file above them, the command line on top."""

from collections.abc import Iterable
from pathlib import Path

from msr_adapter.config.bundled import YamlKind, find_yaml, not_found
from msr_adapter.config.yamltree import LARGEST, SET, Loc, Node, Source, dotted, parse
from msr_adapter.errors import Problem

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
