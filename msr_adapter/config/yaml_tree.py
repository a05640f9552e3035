"""YAML that remembers where each value stands: the line for error messages, the folder for relative paths.

Scalars follow YAML 1.2's core schema: ``1e-4`` is a number, ``no`` is text, ``012`` is text, dates are text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from msr_adapter.config.yaml_scalars import NUMBERS_AND_CONSTANTS, TAG, ScalarError, read_scalar, shown
from msr_adapter.errors import Problem

Loc = tuple[str | int, ...]
Value = Any  # dict[str, YamlNode] | list[YamlNode] | str | int | float | bool | None

LARGEST = 512 * 2**10
"""Bytes of a file; PyYAML reads about as many in a few seconds."""
_MOST_VALUES = 20_000
"""Values of a file, those counted again that aliases repeat."""
DEEPEST = 50
"""Levels of a file, or of a key."""
_COLLECTIONS = (f"{TAG}map", f"{TAG}seq")

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
    loc: Loc = ()
    """Its place in the pipeline."""

    def where(self, line: int) -> str:
        """Place of a line (0-based), as problems print it."""
        return f"{self.label}:{line + 1}" if self.numbered else self.label


class _CoreLoader(yaml.SafeLoader):
    """Composes YAML and reads scalars by the core schema."""

    # A table of its own: PyYAML's reads by YAML 1.1, in which `no` is false and 012 is ten.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol


for _name, _pattern, _first in NUMBERS_AND_CONSTANTS:
    _CoreLoader.add_implicit_resolver(TAG + _name, _pattern, _first)


def parse(text: str, source: YamlSource, problems: list[Problem]) -> YamlNode | None:
    """Read YAML; None when nothing can be read. Syntax errors, duplicate keys and odd tags go to ``problems``."""
    loader: _CoreLoader | None = None
    try:
        loader = _CoreLoader(text)
        root = loader.get_single_node()
        if root is None:
            return YamlNode(None, source.where(0), source.base)
        return _Builder(source, problems).build(root, source.where(root.start_mark.line), source.loc)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = ", ".join(part for part in (error.context, error.problem) if part)
        problems.append(Problem(source.where(mark.line) if mark else source.label, "", f"not valid YAML: {what}"))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position)
        problems.append(Problem(source.where(line), "", f"the control character U+{ord(text[error.position]):04X}"))
    except _TooMuchError as error:
        problems.append(Problem(source.where(error.line), "", str(error), next_step="Write less, or fewer aliases"))
    except (ValueError, OverflowError) as error:  # the scanner's own, such as an escape that is no character
        line = loader.get_mark().line if loader else 0
        problems.append(Problem(source.where(line), "", f"not valid YAML: {error}"))
    except RecursionError:
        problems.append(Problem(source.label, "", "nested too deeply", f"at most {DEEPEST} levels"))
    return None


class _TooMuchError(Exception):
    """The aliases or the levels of a file are more than any pipeline has."""

    def __init__(self, what: str, line: int) -> None:
        super().__init__(what)
        self.line = line


@dataclass
class _Builder:
    """Turns PyYAML's nodes into ours."""

    source: YamlSource
    problems: list[Problem]
    values: int = 0

    def build(self, node: yaml.Node, where: str, loc: Loc, above: tuple[yaml.Node, ...] = ()) -> YamlNode:
        value: Value
        self.values += 1
        if self.values > _MOST_VALUES:
            raise _TooMuchError(f"more than {_MOST_VALUES:,} values, repeated ones included", node.start_mark.line)
        if len(above) > DEEPEST:
            raise _TooMuchError(f"nested more than {DEEPEST} levels deep", node.start_mark.line)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTIONS:
            self._report(node, loc, f"the tag {shown(node.tag)}", "Write the plain value")
            value = None
        elif node in above:
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
            value = self._read(node, loc, node.tag, node.value)
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
            if self._read(key_node, loc, f"{TAG}str", key) is None:
                continue
            if key in entries:
                found = f"the key stands here and in line {lines[key] + 1}"
                self._report(key_node, (*loc, key), found, "Keep one of them")
                continue
            lines[key] = line
            entries[key] = self.build(value_node, self.source.where(line), (*loc, key), above)
        return entries

    def _read(self, node: yaml.Node, loc: Loc, tag: str, text: str) -> Value:
        """Return the value of a scalar; None for what is none, which is reported."""
        try:
            return read_scalar(tag, text)
        except ScalarError as error:
            self._report(node, loc, error.found, error.next_step)
            return None

    def _report(self, node: yaml.Node, loc: Loc, found: str, next_step: str) -> None:
        where, field = self.source.where(node.start_mark.line), shown(dotted(loc), 200)
        self.problems.append(Problem(where, field, found, next_step=next_step))


def dotted(loc: Loc) -> str:
    """Write a place in the tree as ``--set`` takes it: ``data.source.kind``."""
    return ".".join(str(part) for part in loc)
