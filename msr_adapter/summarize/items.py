"""Move 1: an item's image, title and description become text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from msr_adapter.config.models import ItemSummaries
from msr_adapter.generation import Backend, CompletionCache, Image
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.schema import EXAMPLES, ITEM_SUMMARIES, ITEMS, read_table, write_table
from msr_adapter.summarize.answers import Answers, distinctness
from msr_adapter.summarize.fusion import Fusing

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
    if config.mode != "none":
        if backend is None:
            raise ValueError(f"mode {config.mode} needs a backend")
        shown = [item for item in items if item["item_id"] in wanted and _is_known(item)]
        answers = Answers(backend, cache, config.max_new_tokens)
        summaries, described = _describe(config.mode, shown, answers, prompts, data_dir, reporter)
        answers.settle(config.on_failure, out, reporter, _LABEL)
        counts |= described | {"nothing_to_describe": len(wanted) - len(shown)}
    known = [(item["item_id"], summaries.get(item["item_id"], "")) for item in items]
    if config.on_failure == "skip":
        known = [(item_id, text) for item_id, text in known if text is not None]
    ids, texts = [item_id for item_id, _ in known], [text or "" for _, text in known]
    write_table(pa.table({"item_id": ids, "summary": texts}), ITEM_SUMMARIES, out / "items.parquet")
    return counts | {"without_summary": texts.count("")}


def _describe(
    mode: str,
    items: Sequence[dict[str, Any]],
    answers: Answers,
    prompts: Prompts,
    data_dir: Path,
    reporter: Reporter,
) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Return the summary of each of ``items`` by id, None where it failed, and the counts."""
    ask = _fuse if mode == "fusion" else _ask_once
    texts, keys = ask(items, answers, prompts, data_dir, reporter)
    answers.warn(reporter, _LABEL)
    answered = [(key, text) for key, text in zip(keys, texts, strict=True) if text is not None]
    counts = answers.counts() | {
        "with_image": sum(item["image"] is not None for item in items),
        "distinctness": distinctness(reporter, _LABEL, [key for key, _ in answered], [text for _, text in answered]),
    }
    return dict(zip((item["item_id"] for item in items), texts, strict=True)), counts


def _ask_once(
    items: Sequence[dict[str, Any]], answers: Answers, prompts: Prompts, data_dir: Path, reporter: Reporter
) -> tuple[list[str | None], list[str]]:
    """One request for each item; return the texts and the keys of the requests."""
    requests = []
    for item in items:
        image = _image(item, data_dir)
        prompt = prompts.item_summary(item["title"], image=image is not None, text=item["text"])
        requests.append(answers.request(prompt, (image,) if image else ()))
    with reporter.track(_LABEL, len(requests)) as advance:
        texts = answers.texts([item["item_id"] for item in items], requests, advance)
    return texts, [request.key for request in requests]


def _fuse(
    items: Sequence[dict[str, Any]], answers: Answers, prompts: Prompts, data_dir: Path, reporter: Reporter
) -> tuple[list[str | None], list[str]]:
    """One chain of requests for each item; return the texts and the keys of the requests that gave them."""
    starts = [Fusing(prompts, answers.asking, item["title"], item["text"], _image(item, data_dir)) for item in items]
    with reporter.track(_LABEL, sum(start.most for start in starts)) as advance:
        fused = dict(answers.converse(starts, [start.family for start in starts], advance))
    described = [fused[place] for place in range(len(items))]
    for item, one in zip(items, described, strict=True):
        for request, answer in one.steps:
            answers.take(item["item_id"], request, answer)
    return [one.summary for one in described], [one.steps[-1][0].key for one in described]


def _image(item: dict[str, Any], data_dir: Path) -> Image | None:
    return Image(data_dir / item["image"], item["image_digest"]) if item["image"] else None


def _is_known(item: dict[str, Any]) -> bool:
    return bool(item["image"] or item["title"] or item["text"])


def _history_items(data_dir: Path) -> set[str]:
    """Return the ids of all items in the histories of all splits."""
    histories = read_table(data_dir / "examples.parquet", EXAMPLES)["history"]
    return set(histories.combine_chunks().flatten().to_pylist()) if len(histories) else set()
