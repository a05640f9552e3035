"""Attributes of items and users as templates see them: typed values, and missing ones that nobody prints unasked."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes

from msr_adapter.prompts.neutralize import neutralise

_WHOLE = 2**53
"""From here on, a float may be another whole number than the one that was meant."""


class ListValue(tuple[str, ...]):
    """A list of texts, which is printed with commas; `|join` puts something else between."""

    __slots__ = ()

    def __str__(self) -> str:
        """Return the texts, joined."""
        return ", ".join(self)


Value = str | int | float | bool | datetime.date | ListValue
Attributes = tuple[tuple[str, Value | None], ...]
"""Name and value of each; None = missing."""


class MissingValue(jinja2.Undefined):
    """Stands for a value that is missing: false, `is none`, `is not defined`; `|default(...)` and `or` replace it.

    To print it, or to compute with it, fails: a prompt says neither "None" nor "nan" unless its template does.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """Refuse to be printed."""
        return self._fail_with_undefined_error()

    def __eq__(self, other: object) -> bool:
        """Tell whether the other is missing too."""
        return other is None or isinstance(other, MissingValue)

    def __hash__(self) -> int:
        """Return the hash of nothing."""
        return hash(None)

    def __getattr__(self, name: str) -> Any:
        """Refuse: there is nothing to look into."""
        if name.startswith("__"):
            raise AttributeError(name)
        return self._fail_with_undefined_error()

    def _fail_with_undefined_error(self, *_: Any, **__: Any) -> NoReturn:
        raise jinja2.UndefinedError(self._undefined_hint)


def is_none(value: object) -> bool:
    """Tell whether there is no value: the test `none` of templates."""
    return value is None or isinstance(value, MissingValue)


def attribute_of(attributes: Attributes, name: str, owner: str) -> Any:
    """Return an attribute's value; a `MissingValue` where it has none. KeyError where there is no such attribute."""
    for known, value in attributes:
        if known == name:
            if value is not None:
                return value
            called = f"{owner}.{name}"
            hint = (
                f"{called} is missing here; write {{{{ {called} or '...' }}}}, or ask {{% if {called} is not none %}}"
            )
            return MissingValue(hint=hint)
    raise KeyError(name)


@dataclass(frozen=True)
class UserFields:
    """A user, as a template sees them: `user.age_group`."""

    attributes: Attributes = ()

    def __getitem__(self, name: str) -> Any:
        """Return an attribute: Jinja asks so for what is no field."""
        return attribute_of(self.attributes, name, "user")

    def neutral(self) -> "UserFields":
        """Return the user with texts that cannot change a prompt."""
        return UserFields(neutral_attributes(self.attributes)) if self.attributes else self


NOBODY = UserFields()


def neutral_attributes(attributes: Attributes) -> Attributes:
    """Return attributes whose texts cannot change a prompt."""
    return tuple((name, _neutral(value)) for name, value in attributes)


def _neutral(value: Value | None) -> Value | None:
    if isinstance(value, str):
        return neutralise(value) or None
    return ListValue(map(neutralise, value)) if isinstance(value, tuple) else value


def as_value(value: Any) -> Value | None:
    """Return a value of a table as templates have it: whole floats without their `.0`, lists as `ListValue`."""
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return None
        return int(value) if value.is_integer() and abs(value) < _WHOLE else value
    if isinstance(value, list | tuple):
        return ListValue(value) if value else None
    known: Value | None = value if value != "" else None
    return known


@dataclass(frozen=True)
class UsedFields:
    """Which fields of items and users a template may look at."""

    names: frozenset[str] | None
    """All that it says; None = it computes the name of one, so that it may be any."""
    item: bool
    """Whether it says `item`, the one that it is about."""
    user: bool
    """Whether it says `user`."""
    recent: bool = False
    """Whether it says `recent`, the latest items of the history, with their images."""

    def among(self, known: Iterable[str]) -> tuple[str, ...]:
        """Return those of the ``known`` fields that it may look at, in their order."""
        return tuple(name for name in known if self.names is None or name in self.names)

    def has(self, name: str) -> bool:
        """Tell whether it may look at a field."""
        return self.names is None or name in self.names


_BY_NAME = {"attr", "map", "selectattr", "rejectattr", "groupby", "sort", "unique", "sum", "min", "max"}
"""Filters that are handed the name of a field."""


def fields_used(trees: Iterable[nodes.Template]) -> UsedFields:
    """Return what the trees of a template may look at: every attribute and every text in them may be a field's name."""
    names: set[str] = set()
    variables: set[str] = set()
    computed = False
    for tree in trees:
        variables |= {node.name for node in tree.find_all(nodes.Name)}
        names |= {node.attr for node in tree.find_all(nodes.Getattr)}
        names |= {part for node in tree.find_all(nodes.Const) if isinstance(node.value, str)
                  for part in node.value.split(".")}  # fmt: skip
        computed |= any(not isinstance(node.arg, nodes.Const | nodes.Slice) for node in tree.find_all(nodes.Getitem))
        computed |= any(
            not isinstance(given, nodes.Const)
            for node in tree.find_all(nodes.Filter)
            if node.name in _BY_NAME
            for given in [*node.args, *(pair.value for pair in node.kwargs)]
        )
    return UsedFields(None if computed else frozenset(names), "item" in variables, "user" in variables,
                      "recent" in variables)  # fmt: skip


@dataclass(frozen=True)
class KnownAttributes:
    """What is known of the attributes that templates may say, before any is read or after."""

    items: Mapping[str, str | None] = field(default_factory=dict)
    """Name -> type (as `AttributeType`); None = not known yet."""
    users: Mapping[str, str | None] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    """Those that some item or user has no value of: `item.price`, `user.age`."""

    def unknown(self, used: UsedFields) -> bool:
        """Tell whether what a template looks at has a type that is not known yet."""
        return any(
            kind is None and used.has(name) for kinds in (self.items, self.users) for name, kind in kinds.items()
        )

    def samples(self, *, gaps: bool) -> tuple[Attributes, Attributes]:
        """Return attributes of an item and of a user to try a template with; with ``gaps``, as few as there can be."""
        return tuple(
            tuple((name, None if gaps and f"{owner}.{name}" in self.missing else _SAMPLES[kind or "text"])
                  for name, kind in kinds.items())
            for owner, kinds in (("item", self.items), ("user", self.users))
        )  # type: ignore[return-value]  # fmt: skip


_SAMPLES: dict[str, Value] = {
    "number": 12.5,
    "text": "Some text",
    "list": ListValue(("one", "two")),
    "boolean": True,
    "date": datetime.datetime(2024, 6, 30, 12),
}
