"""docs/configuration.md is written from the config classes.

`UPDATE_GOLDENS=1 pytest tests/config/test_reference.py` rewrites it.
"""

import json
import os
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from msr_adapter.config.error_messages import allowed, kind_of, models_of
from msr_adapter.config.schema import PipelineConfig, StrictModel
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs" / "configuration.md"

HEADER = """\
# Configuration

One YAML is one experiment. This page lists every key; `msr check PIPELINE` says what is wrong with a file, all problems
at once. (The tables are written from the classes in `msr_adapter/config/schema/`; a test keeps them true.)

- **What wins**: defaults < `extends:` parents < the file < `--set key=value`. Mappings merge key by key, everything
  else replaces. A `data.source` of another `kind` replaces the whole source.
- **`extends:`** names a file, a bundled pipeline, or a list of them, later ones winning.
- **Relative paths** start from the YAML that names them; in `--set`, from the working directory.
- **Names**: where a bundled thing can be named (`msr ls`), an existing file of that name wins.
- **`--set a.b=value`** takes YAML: `--set split.fractions='[0.7, 0.1, 0.2]'`, `--set train.max_steps=null`.
- **Scalars** follow YAML 1.2: `1e-4` is a number, `no` and `012` are text. Unknown and repeated keys are errors.
- **A protocol** (a file in `eval/`) holds the keys of `evaluate.protocol`; it may use `extends:` too.
- **In an editor** with a YAML plug-in (VS Code: "YAML" by Red Hat; PyCharm and Neovim have theirs) keys are completed,
  explained and checked while you type: the line `# yaml-language-server: $schema=...` of bundled files, and of
  what `msr cp` copies, names the JSON schema. Into a file of your own write it yourself: `msr schema --out .` puts
  `pipeline.schema.json` and `protocol.schema.json` here, for `$schema=pipeline.schema.json`; so they can lie beside the
  pipelines in a repository. `msr check` still knows more: what files hold, what fits together.
"""


def reference() -> str:
    """Return the page: one table per class, in the order in which a pipeline names them."""
    places: dict[type[StrictModel], list[str]] = {}
    collect(PipelineConfig, "", places)
    return HEADER + "".join(section(model, where) for model, where in places.items())


def collect(model: type[StrictModel], place: str, places: dict[type[StrictModel], list[str]]) -> None:
    known = places.setdefault(model, [])
    known += [place] * (place not in known)
    for key, field in model.model_fields.items():
        for inner in models_of(field.annotation):
            collect(inner, f"{place}.{key}".removeprefix("."), places)


def section(model: type[StrictModel], places: list[str]) -> str:
    title = ", ".join(f"`{place}`" for place in places) if places != [""] else "Top level"
    if len(model_alternatives(model)) > 1:
        title += f" with `kind: {kind_of(model)}`"
    rows = "".join(row(key, field) for key, field in model.model_fields.items())
    return f"\n## {title}\n\n{model.__doc__}\n\n| key | value | default | |\n|---|---|---|---|\n{rows}"


def model_alternatives(model: type[StrictModel]) -> tuple[type[StrictModel], ...]:
    from msr_adapter.config.schema import DataConfig

    for field in (DataConfig.model_fields["source"], PipelineConfig.model_fields["tracking"]):
        if model in (alternatives := models_of(field.annotation)):
            return alternatives
    return ()


def row(key: str, field: FieldInfo) -> str:
    cells = (f"`{key}`", allowed(field), default(field), " ".join((field.description or "").split()))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "required"
    return "its defaults" if isinstance(field.default, StrictModel) else f"`{plain(field.default)}`"


def plain(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def test_the_page_is_up_to_date() -> None:
    page = reference()
    if os.environ.get("UPDATE_GOLDENS") == "1":
        DOCUMENT.parent.mkdir(exist_ok=True)
        DOCUMENT.write_text(page, encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == page


def test_every_key_is_explained() -> None:
    places: dict[type[StrictModel], list[str]] = {}
    collect(PipelineConfig, "", places)
    assert len(places) > 15
    fields = [(model, key, field) for model in places for key, field in model.model_fields.items()]
    assert [f"{model.__name__}.{key}" for model, key, field in fields if not field.description] == []
