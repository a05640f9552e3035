"""From pydantic's errors to ours: the place in the YAML, what was found, what is allowed."""

from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from msr_adapter.config.fields import allowed, allowed_at, choices, field_at, kind_of, model_at, models_of, one_of
from msr_adapter.config.models import Pipeline
from msr_adapter.config.yamltree import Loc, Node, dotted
from msr_adapter.errors import Problem, did_you_mean


def explain(errors: Iterable[ErrorDetails], tree: Node) -> list[Problem]:
    """Return one problem per error, in the order of the models."""
    data = tree.plain()
    return [_explain(error, _in_tree(error["loc"], data), tree, data) for error in errors]


def _explain(error: ErrorDetails, loc: Loc, tree: Node, data: Any) -> Problem:
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
    field = field_at(Pipeline, loc, data)
    expected = f"expected {allowed_at(field, loc)}" if field else ""
    found = tree.nearest(loc).plain()
    guess = did_you_mean(found, choices(field.annotation)) if field and isinstance(found, str) else ""
    return Problem(where, dotted(loc), describe(found), expected, guess)


def _unknown_key(where: str, loc: Loc, data: Any) -> Problem:
    model = model_at(Pipeline, loc[:-1], data)
    known = list(model.model_fields) if model else []
    return Problem(
        where, dotted(loc), "unknown key", f"known here: {', '.join(known)}", did_you_mean(str(loc[-1]), known)
    )


def _missing(where: str, loc: Loc, data: Any) -> Problem:
    field = field_at(Pipeline, loc, data)
    parent = f"under `{dotted(loc[:-1])}`" if len(loc) > 1 else "at the top level"
    expected = f"expected {allowed(field)}" if field else ""
    return Problem(where, dotted(loc), "missing", expected, f"Add `{loc[-1]}:` {parent}")


def _wrong_kind(loc: Loc, tree: Node, data: Any) -> Problem:
    field = field_at(Pipeline, loc, data)
    kinds = [kind_of(model) for model in models_of(field.annotation)] if field else []
    source = tree.nearest(loc)
    place, expected = dotted((*loc, "kind")), f"expected {one_of(kinds)}"
    if "kind" not in source.value:
        return Problem(source.where, place, "missing", expected, f"Add `kind:` under `{dotted(loc)}`")
    given = source.value["kind"]
    guess = did_you_mean(given.value, kinds) if isinstance(given.value, str) else ""
    return Problem(given.where, place, describe(given.plain()), expected, guess)


def _in_tree(loc: Loc, data: Any) -> Loc:
    """Drop the alternative's name that pydantic puts into the place of an error inside a tagged union."""
    kept: list[str | int] = []
    for part in loc:
        tag = data.get("kind") if isinstance(data, dict) else None
        if part == tag and kept and part not in data:
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
        return f"the text {_shortened(value)!r}"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "a mapping" if isinstance(value, dict) else f"a list of {len(value)}"


def _shortened(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
