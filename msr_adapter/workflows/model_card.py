"""A model card: what an exported recommender is, what it was trained and judged on, and how it is asked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msr_adapter.evaluate.text_tables import metric_table, to_markdown

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


def model_card(facts: CardFacts, metrics: Mapping[str, Any]) -> str:
    """Return the card as Markdown with the front matter that model hubs read."""
    yes, no = facts.answers
    parts = [
        _front_matter(facts),
        f"# {facts.name}",
        f"Fine-tuned from {facts.base_model} ({facts.method}) to say whether a user will choose a candidate item, from "
        f"a text about the user's preferences and the candidate's {'picture and ' if facts.images else ''}title. The "
        f"score of a candidate is p({yes}) / (p({yes}) + p({no})) of the first token of the answer.",
        "## How it is asked",
        f"In the chat format that LLaMA-Factory calls `{facts.template}`, one user turn; this is an example. The words "
        "are in `templates/`, the settings in `msr.json`, both beside this card. Other words give other scores.",
        _fenced(facts.prompt),
        "## How it was judged",
        to_markdown(metric_table(metrics)),
        "*trained* is this model before it was cast; the others ranked the same candidates, and *chance* is what a "
        "scorer that knows nothing gets.",
        _listed({"protocol": f"{metrics['protocol']['name']}, digest {metrics['protocol_digest'][:16]}",
                 "candidates": f"{metrics['candidates']['rows']:,}, digest {metrics['candidates']['digest'][:16]}"}),
        "## What it was trained on",
        _listed(facts.data),
        "## How it was trained",
        _listed(facts.training),
        "## Limits",
        "The numbers hold for these users, items and candidates. Ranking among drawn candidates is easier than among a "
        "whole catalogue. A user's preference text is about a person: treat it as personal data.",
        _about_licence(facts),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: CardFacts) -> str:
    # JSON is YAML: no name or licence can break out of its quotes.
    lines = [
        f"base_model: {json.dumps(facts.base_model)}" if facts.base_is_public else "",
        f"license: {json.dumps(facts.licence or 'other')}",
        "library_name: transformers",
        f"pipeline_tag: {'image-text-to-text' if facts.images else 'text-generation'}",
        f"tags: {json.dumps(list(_TAGS))}",
    ]
    return "\n".join(["---", *filter(None, lines), "---"])


def _about_licence(facts: CardFacts) -> str:
    if facts.licence:
        return f"Licence: {facts.licence}. What it was trained on may set further terms."
    return f"Licence: not stated. The terms of {facts.base_model}, and of what it was trained on, apply."


def _listed(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
