"""What stands beside an exported model's weights: the model card, the settings it is asked with, its templates.

The card says what the recommender is, what it was trained and evaluated on, and how it is asked.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import ModelConfig, Question
from msr_adapter.evaluate.metrics_file import MetricsFile
from msr_adapter.evaluate.text_tables import full_table, metric_table, to_markdown
from msr_adapter.files import write_json, write_text
from msr_adapter.filesystem import read_object
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.stage_context import prompts_of

_TAGS = ("recommender-systems", "sequential-recommendation", "multimodal", "llama-factory")


@dataclass(frozen=True)
class CardFacts:
    """What the card says beside the metrics. Names, never paths of this machine."""

    name: str
    base_model: str
    base_is_public: bool
    """It is a hub id, not a folder's name."""
    licence: str
    """Empty: not known."""
    images: bool
    method: str
    dtype: str
    template: str
    """LLaMA-Factory's name for the chat format."""
    prompt: str
    """An example of what it is asked."""
    answers: tuple[str, str]
    data: Mapping[str, str]
    """What the data was, with digests."""
    training: Mapping[str, str]
    question: Question = "yes-no"
    """What it is asked."""


def describe(loaded: LoadedPipeline, folder: RunFolder, out: Path, dtype: str, licence: str) -> None:
    """Write the card, the settings and the templates into ``out``, beside the weights."""
    pipeline = loaded.pipeline
    train, prompts = pipeline.train, prompts_of(pipeline)
    metrics = cast("MetricsFile", read_object(folder.stage("evaluate") / "metrics.json"))
    local = Path(train.model.path).expanduser().is_dir() or train.model.path == "tiny"
    facts = CardFacts(
        name=pipeline.name, base_model=Path(train.model.path).name if local else train.model.path,
        base_is_public=not local, licence=licence, images=train.images, method=train.method, dtype=dtype,
        template=train.model.template,
        prompt=prompts.recommend("likes quiet landscapes and red covers", "The Blue Harbour", train.images),
        answers=train.answers.trained, data=_about_data(loaded, folder),
        training=_about_training(loaded, folder, dtype), question=train.question,
    )  # fmt: skip
    write_text(out / "README.md", model_card(facts, metrics))
    settings = train.model.model_dump(include={"template", "default_system", "image_max_pixels", "image_min_pixels"})
    write_json(
        out / "msr.json",
        {
            **settings,
            "question": train.question,
            "answers": list(train.answers.trained),
            "images": train.images,
            "dtype": dtype,
        },
    )
    for name, text in prompts.sources("recommend").items():
        write_text(out / "templates" / name, text)


def stated_licence(model: ModelConfig) -> str:
    """Return the licence that the base model's own card states, or nothing; looks at local files alone."""
    from msr_adapter.llamafactory.family_recognition import model_file

    card = model_file(model, "README.md")
    if card is None:
        return ""
    head = card.read_text(encoding="utf-8", errors="replace").split("---")
    lines = head[1].splitlines() if len(head) > 2 and not head[0].strip() else []
    stated = [line.partition(":")[2].strip().strip("'\"") for line in lines if line.startswith("license:")]
    return stated[0] if stated else ""


def _about_data(loaded: LoadedPipeline, folder: RunFolder) -> dict[str, str]:
    """Return the source, the digests of the stages, and the counts of the data, as the card lists them."""
    manifests = {name: manifest for name in ("data", "users", "dataset") if (manifest := folder.manifest(name))}
    counts = manifests["data"].summary if "data" in manifests else {}
    return {
        "source": loaded.pipeline.data.source.kind,
        **{f"{name} digest": manifest.output[:16] for name, manifest in manifests.items()},
        **{
            noun: f"{counts[noun]:,}"
            for noun in ("users", "items", "interactions")
            if isinstance(counts.get(noun), int)
        },
    }


def _about_training(loaded: LoadedPipeline, folder: RunFolder, dtype: str) -> dict[str, str]:
    """Return the settings of the training, as the card lists them."""
    train, manifest = loaded.pipeline.train, folder.manifest("train")
    steps = manifest.summary.get("steps") if manifest else None
    return {
        "method": train.method,
        "steps": f"{steps:,}" if steps else "not recorded",
        "rows per step and process": str(train.batch_size * train.gradient_accumulation),
        "learning rate": f"{train.learning_rate:g}",
        "weights here": dtype,
        "precision in training": train.model.dtype,
    }


def model_card(facts: CardFacts, metrics: MetricsFile) -> str:
    """Return the card as Markdown with the front matter that model hubs read."""
    parts = [
        _front_matter(facts),
        f"# {facts.name}",
        f"Fine-tuned from {facts.base_model} ({facts.method}) {_purpose(facts)}",
        "## How it is asked",
        f"In the chat format that LLaMA-Factory calls `{facts.template}`, with one user turn. An example follows. The "
        "wording is in `templates/`, the settings are in `msr.json`, both beside this card. Another wording gives "
        "other scores.",
        _fenced(facts.prompt),
        "## How it was evaluated",
        to_markdown(metric_table(metrics)),
        *([to_markdown(full)] if (full := full_table(metrics)) else []),
        "*trained* is this model before it was cast; the others ranked the same candidates, and *chance* is the exact "
        "value of a scorer that knows nothing.",
        _listed({"protocol": f"{metrics['protocol']['name']}, digest {metrics['protocol_digest'][:16]}",
                 "candidates": f"{metrics['candidates']['rows']:,}, digest {metrics['candidates']['digest'][:16]}"}),
        "## What it was trained on",
        _listed(facts.data),
        "## How it was trained",
        _listed(facts.training),
        "## Limits",
        "The numbers hold for these users, items and candidates. Ranking among drawn candidates is easier than among a "
        "whole catalogue. A user summary is about a person: treat it as personal data.",
        f"Licence: {facts.licence}. What it was trained on may set further terms." if facts.licence else
        f"Licence: not stated. The terms of {facts.base_model}, and of what it was trained on, apply.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _purpose(facts: CardFacts) -> str:
    """Return what the model does and what a score is, the end of a sentence and another one."""
    image, ratio = "image and " if facts.images else "", "log-likelihood ratio, no probability"
    if facts.question == "next-item-text":
        does = "to answer a summary of a user's preferences with the title of what the user chooses next"
        return f"{does}. A score is a {ratio}: of a title given the user, against the same prompt without a user."
    if facts.question == "user-text":
        does = f"to answer an item's {image}title with the preferences of a user who chooses it"
        return f"{does}. A score is a {ratio}: of the user's text given the candidate, against the prompt without one."
    yes, no = facts.answers
    does = "to say whether a user will choose a candidate item, given a summary of the user's preferences and"
    score = f"The score of a candidate is p({yes}) / (p({yes}) + p({no})) of the first token of the answer."
    return f"{does} the candidate's {image}title. {score}"


def _front_matter(facts: CardFacts) -> str:
    """Return the YAML block with which model hubs expect a card to begin."""
    # JSON is YAML: no name or licence can break out of its quotes.
    lines = [
        f"base_model: {json.dumps(facts.base_model)}" if facts.base_is_public else "",
        f"license: {json.dumps(facts.licence or 'other')}",
        "library_name: transformers",
        f"pipeline_tag: {'image-text-to-text' if facts.images else 'text-generation'}",
        f"tags: {json.dumps(list(_TAGS))}",
    ]
    return "\n".join(["---", *filter(None, lines), "---"])


def _listed(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _fenced(text: str) -> str:
    """Return ``text`` in a fence longer than any fence in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
