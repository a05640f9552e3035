"""The config in words: pydantic's errors as problems with a place in the YAML, and what a field may hold.

`explain` makes the error messages; `allowed` and `words` serve both them and docs/configuration.md.
"""

import types
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from msr_adapter.config.schema import PipelineConfig, StrictModel
from msr_adapter.config.schema.sources import RENAMED_KINDS
from msr_adapter.config.yaml_tree import Loc, YamlNode, dotted
from msr_adapter.errors import Problem, did_you_mean

_SCALARS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    Path: "a path",
    Any: "any value",
}
_SHOWN = 60
"""Characters of a text that a message quotes."""
_LIMITS = (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than"))


def explain(errors: Iterable[ErrorDetails], tree: YamlNode) -> list[Problem]:
    """Return one problem per error, in the order of the models."""
    data = tree.plain()
    return [_explain(error, _in_tree(error["loc"], data), tree, data) for error in errors]


def _explain(error: ErrorDetails, loc: Loc, tree: YamlNode, data: object) -> Problem:
    where = tree.nearest(loc).where
    if error["type"] == "extra_forbidden":
        return _unknown_key(where, loc, data)
    if error["type"] == "missing" and isinstance(loc[-1], str):
        return _missing(where, loc, data)
    if error["type"].startswith("union_tag"):
        return _wrong_kind(loc, tree, data)
    if error["type"] == "value_error":
        return Problem(where, dotted(loc), str(error["ctx"]["error"]))
    if error["type"] == "missing":  # the list is too short: the list is at fault, not the absent element
        loc = loc[:-1]
    field = field_at(PipelineConfig, loc, data)
    expected = f"expected {allowed_at(field, loc)}" if field else ""
    found = tree.nearest(loc).plain()
    guess = did_you_mean(found, choices(field.annotation)) if field and isinstance(found, str) else ""
    return Problem(where, dotted(loc), describe(found), expected, guess)


def _unknown_key(where: str, loc: Loc, data: object) -> Problem:
    model = model_at(PipelineConfig, loc[:-1], data)
    known = list(model.model_fields) if model else []
    return Problem(
        where, dotted(loc), "unknown key", f"known here: {', '.join(known)}", did_you_mean(str(loc[-1]), known)
    )


def _missing(where: str, loc: Loc, data: object) -> Problem:
    field = field_at(PipelineConfig, loc, data)
    parent = f"under `{dotted(loc[:-1])}`" if len(loc) > 1 else "at the top level"
    expected = f"expected {allowed(field)}" if field else ""
    return Problem(where, dotted(loc), "missing", expected, f"Add `{loc[-1]}:` {parent}")


def _wrong_kind(loc: Loc, tree: YamlNode, data: object) -> Problem:
    field = field_at(PipelineConfig, loc, data)
    kinds = [kind_of(model) for model in models_of(field.annotation)] if field else []
    source = tree.nearest(loc)
    place, expected = dotted((*loc, "kind")), f"expected {one_of(kinds)}"
    if "kind" not in source.value:
        return Problem(source.where, place, "missing", expected, f"Add `kind:` under `{dotted(loc)}`")
    given = source.value["kind"]
    if not isinstance(given.value, str):
        return Problem(given.where, place, describe(given.plain()), expected)
    renamed = RENAMED_KINDS.get(given.value)
    guess = f"`{given.value}` is now called `{renamed}`" if renamed in kinds else did_you_mean(given.value, kinds)
    return Problem(given.where, place, describe(given.plain()), expected, guess)


def _in_tree(loc: Loc, data: object) -> Loc:
    """Drop the alternative's name that pydantic puts into the place of an error inside a tagged union."""
    kept: list[str | int] = []
    for part in loc:
        if kept and isinstance(data, dict) and part == data.get("kind") and part not in data:
            continue
        kept.append(part)
        data = data.get(part) if isinstance(data, dict) else None
    return tuple(kept)


def describe(value: Any) -> str:
    """Say what a value is: ``the text 'abc'``, ``the number 3``, ``a list``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value if len(value) <= _SHOWN else f'{value[:_SHOWN]}...'!r}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"


def model_at(root: type[StrictModel], loc: Loc, data: object) -> type[StrictModel] | None:
    """Return the model that stands at ``loc``; ``data`` decides between alternatives by their `kind`."""
    model: type[StrictModel] | None = root
    for part in loc:
        data = data.get(part) if isinstance(data, dict) else None
        field = model.model_fields.get(str(part)) if model else None
        model = _choose(models_of(field.annotation), data) if field else None
    return model


def field_at(root: type[StrictModel], loc: Loc, data: object) -> FieldInfo | None:
    """Return the field that stands at ``loc``; inside a list, the list's."""
    while loc and isinstance(loc[-1], int):
        loc = loc[:-1]
    parent = model_at(root, loc[:-1], data) if loc else None
    return parent.model_fields.get(str(loc[-1])) if parent else None


def models_of(annotation: Any) -> tuple[type[StrictModel], ...]:
    """Return the config models an annotation allows, in order."""
    options = (annotation, *get_args(annotation))
    return tuple(option for option in options if isinstance(option, type) and issubclass(option, StrictModel))


def kind_of(model: type[StrictModel]) -> str:
    """Return the `kind` that selects a model among alternatives."""
    return str(get_args(model.model_fields["kind"].annotation)[0])


def is_path(field: FieldInfo) -> bool:
    """Say whether a field is a path, which is relative to the YAML that names it."""
    return Path in (field.annotation, *get_args(field.annotation))


def allowed(field: FieldInfo) -> str:
    """Say what a field may hold: ``a whole number, at least 1, or null``."""
    extra = field.json_schema_extra
    return str(extra["allowed"]) if isinstance(extra, dict) else words(field.annotation, field.metadata)


def allowed_at(field: FieldInfo, loc: Loc) -> str:
    """Say what may stand at ``loc``: in a list, the allowed elements; elsewhere, the allowed values of the field."""
    return words(get_args(field.annotation)[0]) if isinstance(loc[-1], int) else allowed(field)


def words(annotation: Any, limits: Iterable[object] = ()) -> str:
    """Say what an annotation allows; ``limits`` are its constraints."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        # Constraints come bare, or bundled in a `FieldInfo` as its metadata.
        return words(args[0], [limit for extra in args[1:] for limit in getattr(extra, "metadata", [extra])])
    if origin is Literal:
        return one_of(args)
    if origin is tuple:
        number = "" if args[-1] is Ellipsis else f" of {len(args)}"
        return f"a list{number}, each {words(args[0])}"
    if origin in (Union, types.UnionType):
        return _union_words(args, limits)
    if origin is dict or models_of(annotation):
        required = [f"`{key}`" for model in models_of(annotation)
                    for key, field in model.model_fields.items() if field.is_required()]  # fmt: skip
        return f"a mapping with {', '.join(required)}" if required else "a mapping"
    return ", ".join([_SCALARS[annotation], *_limit_words(limits)])


def one_of(choices: Iterable[object]) -> str:
    """Join choices: ``one of a, b``."""
    listed = [str(choice) for choice in choices]
    return listed[0] if len(listed) == 1 else f"one of {', '.join(listed)}"


def choices(annotation: Any) -> list[str]:
    """Return the literal texts an annotation allows, at any depth."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in choices(part)]


def _union_words(args: tuple[Any, ...], limits: Iterable[object]) -> str:
    models = [arg for arg in args if models_of(arg)]
    if len(models) > 1:
        return f"a mapping with `kind`: {one_of(kind_of(model) for model in models)}"
    options = [words(arg, limits) for arg in args if arg is not types.NoneType]
    return " or ".join(options) + (", or null" if types.NoneType in args else "")


def _limit_words(limits: Iterable[object]) -> list[str]:
    found = []
    for limit in limits:
        found += [f"{phrase} {_number(getattr(limit, name))}" for name, phrase in _LIMITS if hasattr(limit, name)]
    return found


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else str(value)


def _choose(models: tuple[type[StrictModel], ...], data: object) -> type[StrictModel] | None:
    if len(models) < 2:
        return models[0] if models else None
    kind = data.get("kind") if isinstance(data, dict) else None
    return next((model for model in models if kind_of(model) == kind), None)
