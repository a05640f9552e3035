"""Every key of every bundled pipeline changes some stage's fingerprint, or is known to change no result."""

import copy
import json
from collections.abc import Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import ValidationError

from msr_adapter.config.bundled import bundled_files
from msr_adapter.config.error_messages import field_at, kind_of, models_of
from msr_adapter.config.loader import load_pipeline
from msr_adapter.config.schema import PipelineConfig, SourceConfig, StrictModel
from msr_adapter.files import digest
from msr_adapter.pipeline.ignored_keys import CANNOT_MATTER, counted, ignored
from msr_adapter.pipeline.stage_context import prompts_of
from msr_adapter.pipeline.stages import STAGES
from msr_adapter.prompts import TEMPLATE_NAMES

# Those of published logs are `table` but for their source, whose keys are all tried below.
BUNDLED = [file.name for file in bundled_files("pipelines") if not file.name.startswith("logs/")]
UNCHANGED = {
    "data.source.kind", "tracking.kind", "data.items.types", "evaluate.protocol.ties",
    "data.source.events.weight", "data.source.events.words",
    "evaluate.protocol.negatives.exclude", "train.negatives.exclude",
    "train.selection.patience", "evaluate.scorer.adapter", "evaluate.scorer.quantization",
}  # fmt: skip
"""Keys with a single value; three that are about others; one that has others under `keep: best` alone, and two that no
server may have."""
Loc = tuple[str, ...]

MODELS = ("summarize.items.model", "summarize.users.model", "train.model")
SERVER = {"url": "http://127.0.0.1:1/v1"}
OPENED: dict[str, Any] = {
    "server": SERVER,
    "scorer": {"path": "served", "backend": "server", "server": SERVER},
    "items_format": {"delimiter": ";"},
    "items_columns": {"item": "sku"},
    "sweep": {"trials": 20, "metric": "auc", "users": 100},
    "users": {"path": "users.csv", "attributes": ["age"]},
    "events": {"column": "event_type", "positive": ["purchase"], "history": ["view"], "seen": ["remove"]},
    "join": {"path": "orders.csv", "by": "order_id"},
    "items_join": {"path": "aisles.csv", "by": "aisle_id"},
    "full": {"retriever": "popularity", "top": 20},
    "cold": {"share": 0.2},
    "hybrid": {"of": ["trained", "popularity"]},
    "tracking": {"kind": "mlflow", "server": "http://127.0.0.1:1"},
}
"""What stands for an optional part that no bundled pipeline has."""
WORDS = {
    "url": "http://127.0.0.1:2/v1", "metric": "ndcg@10", "validation_from": "2020-01-01", "test_from": "2021-01-01",
    "until": "2022-01-01", "delimiter": ";", "encoding": "cp1252", "timestamp_format": "%d.%m.%Y",
    "url_env": "SHOP_DB", "address": "head:6379", "primary": "mrr@5",
}  # fmt: skip
"""Other values of texts that have a form."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder that a key of any kind may name: templates, an adapter, a table."""
    (tmp_path / "recommend.j2").write_text("{% if image %}<image>{% endif %}{{ user_summary }} {{ title }} now?")
    (tmp_path / "next-item-text.j2").write_text("{{ user_summary }} And now?")
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_text("weights")
    return tmp_path


def others(loc: Loc, annotation: Any, value: Any, files: Path) -> Iterator[Any]:
    """Yield values of another content; not all of them need be valid."""
    options = get_args(annotation)
    if get_origin(annotation) is Literal:
        yield from (option for option in options if option != value)
    elif annotation is bool:
        yield not value
    elif annotation in (int, float):
        yield from (1, 50_000) if value is None else (value + 1, value - 1, value * 2, value / 2, 0.25)
    elif annotation is Path:
        yield str(files)
    elif annotation is str:
        yield WORDS.get(loc[-1], f"{value or 'some'}x")
    elif annotation is dict or get_origin(annotation) is dict:
        yield from ({"a_key": 1}, {"a_key": "column"}, {"age": "text"})
    elif get_origin(annotation) is tuple:
        given = list(value or ("one", "two"))
        yield from (given, given[1:], given[:1], given[::-1], ["Nope"], ["uniform"], ["item-knn"], [4], [0.7, 0.1, 0.2])
    else:
        # A run counts by its weights: of two that are not there, neither has any.
        for option in reversed(options) if loc[-1] == "start" and value else options:
            if option is type(None):
                yield None
            elif option not in (None, ...) and not hasattr(option, "ge"):
                yield from others(loc, option, value if type(value) is option else None, files)


def parse(data: Any) -> PipelineConfig | None:
    try:
        return PipelineConfig.model_validate_json(json.dumps(data), strict=True)
    except ValidationError:
        return None


def put(data: Any, loc: Loc, value: Any) -> Any:
    changed = copy.deepcopy(data)
    place = changed
    for part in loc[:-1]:
        place = place[part]
    place[loc[-1]] = value
    return changed


def get(data: Any, loc: Loc) -> Any:
    for part in loc:
        data = data[part]
    return data


def leaves(data: Any, loc: Loc = ()) -> Iterator[tuple[Loc, Any]]:
    """Yield each key that holds no others, and the pipeline to change it in: one that has the part around it."""
    value = get(data, loc)
    known = field_at(PipelineConfig, loc, data) if loc else None
    parts: tuple[type[StrictModel], ...] = models_of(known.annotation) if known else ()
    if value is None and parts:
        yield loc, data
        given = put(data, loc, OPENED.get(loc[-1], {"path": "hub/table"}))
        opened = parse(given)
        assert opened, f"no value for {'.'.join(loc)}"
        yield from leaves(opened.model_dump(mode="json"), loc)
    elif isinstance(value, dict) and not (known and not parts and get_origin(known.annotation) is dict):
        for name in value:
            yield from leaves(data, (*loc, name))
    else:
        yield loc, data


def changes(loc: Loc, data: Any, files: Path) -> Iterator[PipelineConfig]:
    """Yield the pipeline with other values at ``loc``, as many as are valid."""
    known = field_at(PipelineConfig, loc, data)
    assert known is not None
    value = get(data, loc)
    candidates = [OPENED[loc[-1]]] if value is None and loc[-1] in OPENED else []
    for other in (*candidates, *others(loc, known.annotation, value, files)):
        if other != value and (changed := parse(put(data, loc, other))) is not None:
            yield changed


_TEMPLATES: dict[Any, dict[str, str]] = {}


def template_digests(p: PipelineConfig) -> dict[str, str]:
    """Digest every template, once for all pipelines that say the same in them; lengths are settings of the stages."""
    said = (p.templates, p.summarize.noun, p.summarize.language, p.train.template)
    if said not in _TEMPLATES:
        prompts = prompts_of(p)
        _TEMPLATES[said] = {name: prompts.digest(name) for name in (*TEMPLATE_NAMES, "report.html")}
    return _TEMPLATES[said]


def fingerprints(p: PipelineConfig) -> dict[str, str]:
    """What `running` takes of the pipeline for each stage that it needs."""
    templates = template_digests(p)
    return {
        stage.name: digest([stage.config(p), stage.sources(p), [templates[name] for name in stage.templates(p)]])
        for stage in STAGES
        if stage.needed(p)
    }


def reason(known: Mapping[str, str], loc: Loc) -> str | None:
    """Return why the key cannot matter, by its own entry or by that of a key above it."""
    return next((known[key] for n in range(1, len(loc) + 1) if (key := ".".join(loc[:n])) in known), None)


def visit(name: str, files: Path, *sets: str) -> dict[str, bool | None]:
    """Return for each key of a pipeline whether it counts; None = it has no other valid value there."""
    seen: dict[str, bool | None] = {}
    wrong: list[str] = []
    for data, locs in groupby(leaves(load_pipeline(name, sets).resolved), key=lambda leaf: leaf[1]):
        before = parse(data)
        assert before is not None
        used = {template for stage in STAGES if stage.needed(before) for template in stage.templates(before)}
        known, taken = ignored(before, used), fingerprints(before)
        for loc, _ in locs:
            key, why, after = ".".join(loc), reason(known, loc), next(changes(loc, data, files), None)
            seen[key] = found = None if after is None else taken != fingerprints(after)
            if found is False and why is None:
                wrong.append(f"{key} counts nowhere, and nothing says why")
            if found and why is not None:
                wrong.append(f"{key} counts, and is said not to matter: {why}")
    assert wrong == []
    return seen


MODES = (
    ("summarize.items.mode=none", "summarize.users.mode=direct", "train.keep=last"),
    ("summarize.items.mode=fusion", "summarize.users.mode=none", "train.too_long=truncate"),
    ("train.question=next-item-text", "summarize.users.mode=none"),
    ("train.question=user-text", "train.keep=last", "summarize.users.mode=direct"),
)


@pytest.mark.parametrize("sets", MODES)
def test_so_it_is_in_modes_that_no_bundled_pipeline_has(sets: tuple[str, ...], files: Path) -> None:
    seen = visit("demo", files, *sets)
    assert seen["summarize.users.block"] is False


@pytest.mark.parametrize("source", get_args(get_args(SourceConfig)[0]), ids=lambda source: source.__name__)
def test_every_key_of_every_source_counts(source: type[StrictModel], files: Path) -> None:
    needed = {
        name: {"path": "hub/log"} if models_of(field.annotation) else WORDS.get(name, str(files / name))
        for name, field in source.model_fields.items()
        if field.is_required() and name != "kind"
    }
    given = parse(put(load_pipeline("demo").resolved, ("data", "source"), {"kind": kind_of(source), **needed}))
    assert given is not None
    for loc, data in leaves(given.model_dump(mode="json"), ("data", "source")):
        before = parse(data)
        assert before is not None
        for after in islice(changes(loc, data, files), 1):
            assert fingerprints(before)["data"] != fingerprints(after)["data"], loc


@pytest.mark.parametrize("name", BUNDLED)
def test_every_key_counts_or_cannot_matter(name: str, files: Path) -> None:
    # A model that nobody has fetched has no content that could count.
    sets = [f"{key}.path=tiny" for key in MODELS if load_pipeline(name).where(key)] if "smollm2" in name else []
    seen = visit(name, files, *sets)
    assert len(seen) > 150
    assert sum(found is True for found in seen.values()) > 80
    assert {key for key, found in seen.items() if found is None} <= UNCHANGED


def test_every_entry_is_a_key_that_there_is(files: Path) -> None:
    keys = {".".join(loc) for name in BUNDLED for loc, _ in leaves(load_pipeline(name).resolved)}
    for entry in CANNOT_MATTER:
        for key in entry.keys:
            assert any(one == key or one.startswith(f"{key}.") for one in keys), key


def test_a_key_that_came_later_leaves_trainings_of_before_up_to_date() -> None:
    before = load_pipeline("demo", []).pipeline
    other = load_pipeline("demo", ["train.batches=similar-length"]).pipeline
    assert "batches" not in counted(before, "train")
    assert counted(other, "train") == counted(before, "train") | {"batches": "similar-length"}
