"""The JSON schema of pipelines and protocols, from which editors complete keys, show their meaning and mark mistakes.

It knows one file at a time, as an editor does: what `extends:` brings cannot be missing, names of files may stand for
protocols. `msr check` knows the rest. Draft 7, which every editor's YAML plug-in reads.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msr_adapter.config.bundled import YamlKind
from msr_adapter.config.schema import PipelineConfig, ProtocolConfig, StrictModel
from msr_adapter.files import bundled

SCHEMA_FILES: dict[YamlKind, str] = {"pipelines": "pipeline.schema.json", "eval": "protocol.schema.json"}
"""Kind -> the name of its schema, which lies beside the bundled YAMLs."""
_MODELS: dict[YamlKind, type[StrictModel]] = {"pipelines": PipelineConfig, "eval": ProtocolConfig}
_LINE = re.compile(r"^# yaml-language-server: \$schema=.*$", re.MULTILINE)
_EXTENDS = {
    "description": "A file or a bundled name on which this file is laid, or a list of them, later ones winning.",
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
}
_NUMBER_WILL_DO = ("NegativesConfig", "TrainNegativesConfig")
"""Mappings in whose place a number may stand, their `count`."""
_PROTOCOL_NAME = {"type": "string", "description": "A bundled protocol's name (see `msr ls`), or a file."}


def json_schema(kind: YamlKind) -> dict[str, Any]:
    """Return the schema of one file of a kind."""
    model = _MODELS[kind]
    schema: dict[str, Any] = _of_one_file(model.model_json_schema())
    needed = [name for name, field in model.model_fields.items() if field.is_required() and name != "name"]
    schema["properties"] = {"extends": _EXTENDS, **schema["properties"]}
    schema["anyOf"] = [{"required": ["extends"]}, {"required": needed}]
    for name in set(_NUMBER_WILL_DO) & schema["$defs"].keys():
        mapping = schema["$defs"][name]
        schema["$defs"][name] = {"anyOf": [mapping["properties"]["count"], mapping]}
    if kind == "pipelines":
        protocol = schema["$defs"]["EvaluateConfig"]["properties"]["protocol"]
        named = {"anyOf": [_PROTOCOL_NAME, {"$ref": "#/$defs/ProtocolConfig"}]}
        schema["$defs"]["EvaluateConfig"]["properties"]["protocol"] = {**_without(protocol, "$ref"), **named}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def schema_text(kind: YamlKind) -> str:
    """Return the text of a schema's file."""
    return json.dumps(json_schema(kind), indent=1, ensure_ascii=False) + "\n"


def with_schema_at(text: str, path: Path) -> str:
    """Return the text of a YAML whose line for editors names a schema at ``path``; as it is if it has no such line."""
    line = f"# yaml-language-server: $schema={path.as_posix()}"
    return _LINE.sub(lambda _: line, text, count=1)


def installed_schema(kind: YamlKind) -> Path:
    """Return the schema that travels with msr."""
    return bundled(kind) / SCHEMA_FILES[kind]


def _of_one_file(node: Any) -> Any:
    """Return a part of pydantic's schema as a file may hold it: nothing is required, for a parent may have it."""
    if isinstance(node, list):
        return [_of_one_file(one) for one in node]
    if not isinstance(node, dict):
        return node
    made = {
        key: {name: _of_one_file(one) for name, one in value.items()}
        if key in ("properties", "$defs")
        else value
        if key in ("default", "const", "enum")
        else _of_one_file(value)
        for key, value in node.items()
    }
    words = made.pop("allowed", None)
    if words is not None:
        made["description"] = f"{made.get('description', '')} Allowed: {words}.".strip()
    if "prefixItems" in made:  # draft 7 has another word for it
        made["items"] = made.pop("prefixItems")
    if "oneOf" in made:  # without its `kind`, which a parent may say, a mapping fits several
        made["anyOf"] = made.pop("oneOf")
    return _without(made, "required", "discriminator", "format", "title")


def _without(node: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key not in keys}
