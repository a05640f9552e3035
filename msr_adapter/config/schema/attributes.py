"""Columns of items and users that templates may show: `{{ item.price }}`, `{{ user.age_group }}`."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from msr_adapter.config.schema.base import StrictModel, allowed

AttributeType = Literal["number", "text", "list", "boolean", "date"]

ITEM_FIELDS = ("title", "summary", "text", "category", "event", "images")
"""What templates know of every item, whatever columns its table has."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_NAMED = "a list of columns, or a mapping of names in templates to columns"


def _names_of_columns(given: Any) -> Any:
    """Let a list of columns stand for the mapping in which each is called as it is."""
    if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
        return {name: name for name in given}
    return given


def _require_names(columns: dict[str, str]) -> dict[str, str]:
    for name, column in columns.items():
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} cannot be called in a template; name it: {{price: {column!r}}} for item.price")
        if name in ITEM_FIELDS:
            raise ValueError(f"{name!r} is what templates call something else; name it: {{my_{name}: {column!r}}}")
        if not column.strip():
            raise ValueError(f"{name}: {column!r} is no name of a column")
    return columns


AttributeColumns = Annotated[
    dict[str, str],
    BeforeValidator(_names_of_columns),
    AfterValidator(_require_names),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "string"}},
                {"type": "object", "additionalProperties": {"type": "string"}},
            ]
        }
    ),
    Field(json_schema_extra=allowed(_NAMED)),
]


class ItemAttributesConfig(StrictModel):
    """What prompts may say of items beside title, description and category."""

    attributes: AttributeColumns = Field({})
    """Columns of the source's table of items, for templates: `[price, brand]` gives `{{ item.price }}` and
    `{{ item.brand }}`, `{price: Variant Price}` calls a column otherwise. A change of one of them makes anew what a
    template says with it, and nothing else."""
    types: dict[str, AttributeType] = Field({}, json_schema_extra=allowed("a mapping of names to types"))
    """Name -> number, text, list, boolean or date, where the values do not tell it: `{zip: text}`."""

    @model_validator(mode="after")
    def _types_are_of_attributes(self) -> "ItemAttributesConfig":
        _require_known(self.types, self.attributes)
        return self


class UserAttributesConfig(StrictModel):
    """What prompts may say of users: a table with a row per user."""

    path: Path
    """csv, tsv, jsonl or parquet; users of the log that it lacks have no values."""
    user: str | None = None
    """Column of the user ids; null = found by the well-known names."""
    attributes: AttributeColumns
    """Columns for templates: `[age_group]` gives `{{ user.age_group }}`, `{age: Age (years)}` calls a column
    otherwise."""
    types: dict[str, AttributeType] = Field({}, json_schema_extra=allowed("a mapping of names to types"))
    """Name -> number, text, list, boolean or date, where the values do not tell it."""

    @model_validator(mode="after")
    def _types_are_of_attributes(self) -> "UserAttributesConfig":
        _require_known(self.types, self.attributes)
        return self


def _require_known(types: dict[str, AttributeType], attributes: dict[str, str]) -> None:
    if unknown := sorted(types.keys() - attributes.keys()):
        raise ValueError(f"types of {', '.join(unknown)}, which `attributes` does not name")
