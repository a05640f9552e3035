"""YAML that remembers where each value stands: the line for error messages, the folder for relative paths.

Scalars follow YAML 1.2's core schema: ``1e-4`` is a number, ``no`` is text, ``012`` is text, dates are text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from msr_adapter.errors import Problem

Loc = tuple[str | int, ...]
Value = Any  # dict[str, YamlNode] | list[YamlNode] | str | int | float | bool | None

LARGEST = 512 * 2**10
"""Bytes of a file; PyYAML reads about as many in a few seconds."""
_MOST_VALUES = 20_000
"""Values of a file, those counted again that aliases repeat."""
_DEEPEST = 50

SET = "--set"
"""The place of values from the command line."""


@dataclass(frozen=True)
class YamlNode:
    """A value, the place that set it (``file:line`` or ``--set``) and the folder its relative paths start from."""

    value: Value
    where: str
    base: Path

    def plain(self) -> Any:
        """Return the value without positions."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        return [child.plain() for child in self.value] if isinstance(self.value, list) else self.value

    def nearest(self, loc: Loc) -> "YamlNode":
        """Return the node at ``loc``, or its closest existing ancestor."""
        node = self
        for part in loc:
            children = dict(enumerate(node.value)) if isinstance(node.value, list) else node.value
            if not isinstance(children, dict) or part not in children:
                return node
            node = children[part]
        return node

    def replaced(self, loc: Loc, new: "YamlNode") -> "YamlNode":
        """Return the tree with the existing node at ``loc`` replaced."""
        if not loc:
            return new
        copy: Any = dict(self.value) if isinstance(self.value, dict) else list(self.value)
        copy[loc[0]] = copy[loc[0]].replaced(loc[1:], new)
        return YamlNode(copy, self.where, self.base)

    def leaves(self, loc: Loc = ()) -> Iterator[tuple[Loc, "YamlNode"]]:
        """Yield every scalar with its place in the tree."""
        if isinstance(self.value, dict | list):
            for key, child in self.value.items() if isinstance(self.value, dict) else enumerate(self.value):
                yield from child.leaves((*loc, key))
        else:
            yield loc, self


@dataclass(frozen=True)
class YamlSource:
    """Where YAML text comes from."""

    label: str
    base: Path
    numbered: bool = True

    def where(self, line: int) -> str:
        """Place of a line (0-based), as problems print it."""
        return f"{self.label}:{line + 1}" if self.numbered else self.label


class _CoreLoader(yaml.SafeLoader):
    """Composes YAML and reads scalars by the core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def parse(text: str, source: YamlSource, problems: list[Problem]) -> YamlNode | None:
    """Read YAML; None when nothing can be read. Syntax errors, duplicate keys and odd tags go to ``problems``."""
    try:
        loader = _CoreLoader(text)
        root = loader.get_single_node()
        if root is None:
            return YamlNode(None, source.where(0), source.base)
        return _Builder(loader, source, problems).build(root, source.where(root.start_mark.line), ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        problems.append(Problem(source.where(mark.line) if mark else source.label, "", f"not valid YAML: {what}"))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        problems.append(Problem(source.where(line), "", f"the control character U+{ord(text[error.position]):04X}"))
    except _TooMuchError as error:
        problems.append(Problem(source.where(error.line), "", str(error), next_step="Write less, or fewer aliases"))
    except RecursionError:
        problems.append(Problem(source.label, "", "nested too deeply", f"at most {_DEEPEST} levels"))
    return None


class _TooMuchError(Exception):
    """The aliases or the levels of a file are more than any pipeline has."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


@dataclass
class _Builder:
    """Turns PyYAML's nodes into ours."""

    loader: _CoreLoader
    source: YamlSource
    problems: list[Problem]
    values: int = 0

    def build(self, node: yaml.Node, where: str, loc: Loc, above: tuple[yaml.Node, ...] = ()) -> YamlNode:
        value: Value
        self.values += 1
        if self.values > _MOST_VALUES:
            raise _TooMuchError(f"more than {_MOST_VALUES:,} values, repeated ones included", node.start_mark.line)
        if len(above) > _DEEPEST:
            raise _TooMuchError(f"nested more than {_DEEPEST} levels deep", node.start_mark.line)
        if node in above:
            self._report(node, loc, "the value contains itself", "Write it out without the alias")
            value = None
        elif isinstance(node, yaml.MappingNode):
            value = self._mapping(node, loc, (*above, node))
        elif isinstance(node, yaml.SequenceNode):
            value = [
                self.build(child, self.source.where(child.start_mark.line), (*loc, i), (*above, node))
                for i, child in enumerate(node.value)
            ]
        else:
            value = self._scalar(node, loc)
        return YamlNode(value, where, self.source.base)

    def _mapping(self, node: yaml.MappingNode, loc: Loc, above: tuple[yaml.Node, ...]) -> dict[str, YamlNode]:
        entries: dict[str, YamlNode] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line
            if not isinstance(key_node, yaml.ScalarNode):
                self._report(key_node, loc, "a key that is not text", "Write `key: value`")
                continue
            key = key_node.value
            if key in entries:
                found = f"the key stands here and in line {lines[key] + 1}"
                self._report(key_node, (*loc, key), found, "Keep one of them")
                continue
            lines[key] = line
            entries[key] = self.build(value_node, self.source.where(line), (*loc, key), above)
        return entries

    def _scalar(self, node: yaml.Node, loc: Loc) -> Value:
        known = node.tag.startswith("tag:yaml.org,2002:") and node.tag in self.loader.yaml_constructors
        if not known:
            self._report(node, loc, f"the tag {node.tag}", "Write the plain value")
            return None
        return self.loader.construct_object(node)

    def _report(self, node: yaml.Node, loc: Loc, found: str, next_step: str) -> None:
        self.problems.append(Problem(self.source.where(node.start_mark.line), dotted(loc), found, next_step=next_step))


def dotted(loc: Loc) -> str:
    """Write a place in the tree as ``--set`` takes it: ``data.source.kind``."""
    return ".".join(str(part) for part in loc)
