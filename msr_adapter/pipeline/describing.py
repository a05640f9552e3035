"""What is said beside an exported model: its card, its settings and its templates."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.models import ModelRef
from msr_adapter.files import write_json, write_text
from msr_adapter.pipeline.context import prompts_of
from msr_adapter.pipeline.folder import RunFolder


def stated_licence(model: ModelRef) -> str:
    """Return the licence that the base model's own card states, or nothing; looks at local files alone."""
    from msr_adapter.llamafactory.recognise import model_file

    card = model_file(model, "README.md")
    if card is None:
        return ""
    head = card.read_text(encoding="utf-8", errors="replace").split("---")
    lines = head[1].splitlines() if len(head) > 2 and not head[0].strip() else []
    stated = [line.partition(":")[2].strip().strip("'\"") for line in lines if line.startswith("license:")]
    return stated[0] if stated else ""


def describe(loaded: LoadedPipeline, folder: RunFolder, out: Path, dtype: str, licence: str) -> None:
    """Write the card, the settings and the templates beside the weights."""
    from msr_adapter.evaluate.card import CardFacts, model_card

    pipeline = loaded.pipeline
    train, prompts = pipeline.train, prompts_of(pipeline)
    metrics = json.loads((folder.stage("evaluate") / "metrics.json").read_text(encoding="utf-8"))
    local = Path(train.model.path).expanduser().is_dir() or train.model.path == "tiny"
    facts = CardFacts(
        name=pipeline.name, base_model=Path(train.model.path).name if local else train.model.path,
        base_is_public=not local, licence=licence, images=train.images, method=train.method, dtype=dtype,
        template=train.model.template,
        prompt=prompts.recommend("likes quiet landscapes and red covers", "The Blue Harbour", train.images),
        answers=train.answers.trained, data=_about_data(loaded, folder),
        training=_about_training(loaded, folder, dtype),
    )  # fmt: skip
    write_text(out / "README.md", model_card(facts, metrics))
    settings = train.model.model_dump(include={"template", "default_system", "image_max_pixels", "image_min_pixels"})
    write_json(
        out / "msr.json", {**settings, "answers": list(train.answers.trained), "images": train.images, "dtype": dtype}
    )
    for name, text in prompts.sources("recommend").items():
        write_text(out / "templates" / name, text)


def _about_data(loaded: LoadedPipeline, folder: RunFolder) -> dict[str, str]:
    digests = {name: folder.manifest(name) for name in ("data", "users", "dataset")}
    source = loaded.pipeline.data.source
    return {
        "source": source.kind,
        **{f"{name} digest": manifest.output[:16] for name, manifest in digests.items() if manifest},
        **_counts(digests["data"].summary if digests["data"] else {}),
    }


def _counts(summary: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{summary[name]:,}" for name in ("users", "items", "interactions") if isinstance(summary.get(name), int)
    }


def _about_training(loaded: LoadedPipeline, folder: RunFolder, dtype: str) -> dict[str, str]:
    train, manifest = loaded.pipeline.train, folder.manifest("train")
    steps = manifest.summary.get("steps") if manifest else None
    return {
        "method": train.method,
        "steps": f"{steps:,}" if steps else "not recorded",
        "rows a step and process": str(train.batch_size * train.gradient_accumulation),
        "learning rate": f"{train.learning_rate:g}",
        "weights here": dtype,
        "precision in training": train.model.dtype,
    }
