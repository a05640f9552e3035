"""Move 1: an item's image, title and description become text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from msr_adapter.config.models import ItemSummaries
from msr_adapter.generation import Backend, CompletionCache, Image, Request
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.schema import EXAMPLES, ITEM_SUMMARIES, ITEMS, read_table, write_table
from msr_adapter.summarize.answers import Answers, distinctness

_LABEL = "item summaries"


def summarize_items(
    config: ItemSummaries,
    data_dir: Path,
    prompts: Prompts,
    backend: Backend | None,
    cache: CompletionCache,
    out: Path,
    reporter: Reporter,
) -> dict[str, Any]:
    """Write ``out/items.parquet``: a summary for every item, empty where the title must do; return counts.

    Under `on_failure: skip` an item that could not be described has no row, and histories leave it out.

    Only items that some history holds are described: candidates are shown with image and title, so a description of
    the others would never be read. Empty as well: items with neither title, text nor image, and empty answers.
    """
    items = read_table(data_dir / "items.parquet", ITEMS).to_pylist()
    wanted = _history_items(data_dir)
    summaries: dict[str, str | None] = {}
    counts: dict[str, Any] = {"mode": config.mode, "items": len(items), "items_in_histories": len(wanted)}
    if config.mode == "image":
        if backend is None:
            raise ValueError("mode image needs a backend")
        shown = [item for item in items if item["item_id"] in wanted and _is_known(item)]
        answers = Answers(backend, cache, config.max_new_tokens)
        summaries, described = _describe(shown, answers, prompts, data_dir, reporter)
        answers.settle(config.on_failure, out, reporter, _LABEL)
        counts |= described | {"nothing_to_describe": len(wanted) - len(shown)}
    known = [(item["item_id"], summaries.get(item["item_id"], "")) for item in items]
    if config.on_failure == "skip":
        known = [(item_id, text) for item_id, text in known if text is not None]
    ids, texts = [item_id for item_id, _ in known], [text or "" for _, text in known]
    write_table(pa.table({"item_id": ids, "summary": texts}), ITEM_SUMMARIES, out / "items.parquet")
    return counts | {"without_summary": texts.count("")}


def _describe(
    items: Sequence[dict[str, Any]], answers: Answers, prompts: Prompts, data_dir: Path, reporter: Reporter
) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Return the summary of each of ``items`` by id, None where it failed, and the counts."""
    requests = []
    for item in items:
        images = (Image(data_dir / item["image"], item["image_digest"]),) if item["image"] else ()
        prompt = prompts.item_summary(item["title"], image=bool(images), text=item["text"])
        requests.append(answers.request(prompt, images))
    with reporter.track(_LABEL, len(requests)) as advance:
        texts = answers.texts([item["item_id"] for item in items], requests, advance)
    answers.warn(reporter, _LABEL)
    counts = answers.counts() | {
        "with_image": sum(bool(request.images) for request in requests),
        "distinctness": distinctness(reporter, _LABEL, *_answered(requests, texts)),
    }
    return dict(zip((item["item_id"] for item in items), texts, strict=True)), counts


def _is_known(item: dict[str, Any]) -> bool:
    return bool(item["image"] or item["title"] or item["text"])


def _answered(requests: Sequence[Request], texts: Sequence[str | None]) -> tuple[list[str], list[str]]:
    pairs = [(request.key, text) for request, text in zip(requests, texts, strict=True) if text is not None]
    return [key for key, _ in pairs], [text for _, text in pairs]


def _history_items(data_dir: Path) -> set[str]:
    """Return the ids of all items in the histories of all splits."""
    histories = read_table(data_dir / "examples.parquet", EXAMPLES)["history"]
    return set(histories.combine_chunks().flatten().to_pylist()) if len(histories) else set()
