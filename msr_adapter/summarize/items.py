"""Move 1: an item's image, title and description become text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.config.schema import ItemSummariesConfig
from msr_adapter.generation import Request
from msr_adapter.item_images import images_of_row
from msr_adapter.progress import Reporter
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.prompts.attributes import UsedFields
from msr_adapter.prompts.stage_tables import ItemTable
from msr_adapter.schema import EXAMPLES, ITEM_SUMMARIES, ITEMS, read_listed, read_table, write_table
from msr_adapter.stage_arguments import Client, Job, StageDirs
from msr_adapter.summarize.cost_estimate import estimate_cost
from msr_adapter.summarize.summary_answers import NAMED, Asking, SummaryAnswers
from msr_adapter.summarize.summary_chains import FusionChain, ItemChain
from msr_adapter.summarize.summary_faults import sampled

FUSION_TEMPLATES = ("item_text", "item_image", "item_fusion")
_LABEL = "item summaries"


def summarize_items(config: ItemSummariesConfig, dirs: StageDirs, client: Client, job: Job) -> dict[str, Any]:
    """Write ``out/items.parquet``: a summary for every item, empty where the title must do; return counts.

    Under `on_failure: skip` an item that could not be described has no row, and histories leave it out.

    Only items that some history holds are described: candidates are shown with image and title, so a description of
    the others would never be read; all that lists may have are, where the recommender's template says a candidate's
    summary. Empty as well: items with neither title, text nor image, and empty answers. What no list has and no history
    holds has no row.
    """
    wanted = _wanted_items(dirs, client.prompts)
    every = read_table(dirs.data / "items.parquet", ITEMS, ["item_id", "listed"])
    items = every.filter(pc.or_(every["listed"], _are_among(every, wanted))).to_pylist()
    summaries: dict[str, str | None] = {}
    counts: dict[str, Any] = {"mode": config.mode, "items": len(items), "items_in_histories": len(wanted)}
    if config.mode != "none":
        shown, starts = plan_items(config, dirs, client.prompts, client.model().identity)
        estimate = estimate_cost(starts, client.cache.lookup, config.model, config.max_new_tokens)
        estimate.tell(job.reporter, _LABEL)
        counts |= {"estimate": estimate.as_dict()}
        answers = SummaryAnswers(client, config.max_new_tokens)
        summaries, described = _describe(shown, starts, answers, job.reporter)
        answers.apply_policy(config.on_failure, job.out, job.reporter, _LABEL)
        bare = sorted(wanted - {item["item_id"] for item in shown})
        untitled = [item["item_id"] for item in shown if not item["title"]]
        counts |= described | {"nothing_to_describe": len(bare), "bare": bare[:NAMED], "bare_items": len(bare)}
        counts |= {"untitled": untitled[:NAMED], "untitled_items": len(untitled)}
    known = [(item["item_id"], summaries.get(item["item_id"], "")) for item in items]
    if config.on_failure == "skip":
        known = [(item_id, text) for item_id, text in known if text is not None]
    ids, texts = [item_id for item_id, _ in known], [text or "" for _, text in known]
    write_table(pa.table({"item_id": ids, "summary": texts}), ITEM_SUMMARIES, job.out / "items.parquet")
    return counts | {"without_summary": texts.count("")}


def plan_items(
    config: ItemSummariesConfig, dirs: StageDirs, prompts: Prompts, model: str
) -> tuple[list[dict[str, Any]], list[ItemChain | FusionChain]]:
    """Return the items that are to be described, and the chain of each; ``model`` identifies what will be asked."""
    items = read_table(dirs.data / "items.parquet", ITEMS)
    known = items.filter(_are_among(items, _wanted_items(dirs, prompts))).to_pylist()
    shown = [item for item in known if item["image"] or item["title"] or item["text"]]
    asking = Asking(model, config.max_new_tokens)
    used = described_fields(config, prompts)
    table = ItemTable(dirs.data, used) if used.item else None
    told = [table.of(item["item_id"]) if table else None for item in shown]
    pairs = zip(shown, told, strict=True)
    return shown, [item_chain(config, prompts, asking, item, dirs.data, about) for item, about in pairs]


def described_fields(config: ItemSummariesConfig, prompts: Prompts) -> UsedFields:
    """Return which fields of an item the templates may look at that describe it."""
    return prompts.fields(*(FUSION_TEMPLATES if config.mode == "fusion" else ("item_summary",)))


def item_chain(
    config: ItemSummariesConfig, prompts: Prompts, asking: Asking, item: Mapping[str, Any], data_dir: Path,
    told: HistoryItem | None = None,
) -> ItemChain | FusionChain:  # fmt: skip
    """Return the chain that describes a row of ITEMS, whose image lies in ``data_dir``.

    ``told`` is what templates call `item`; None = they know no more of it than the row.
    """
    kind = FusionChain if config.mode == "fusion" else ItemChain
    return kind(prompts, asking, item["title"], item["text"], images_of_row(item, data_dir), told)


def _describe(
    items: Sequence[dict[str, Any]],
    starts: Sequence[ItemChain | FusionChain],
    answers: SummaryAnswers,
    reporter: Reporter,
) -> tuple[dict[str, str | None], dict[str, Any]]:
    """Return the summary of each of ``items`` by id, None where it failed, and the counts."""
    once = [start for start in starts if isinstance(start, ItemChain)]
    fused = [start for start in starts if isinstance(start, FusionChain)]
    texts, lasts = _ask_once(items, once, answers, reporter) if once else _fuse(items, fused, answers, reporter)
    answers.warn(reporter, _LABEL)
    answered = [(last, text) for last, text in zip(lasts, texts, strict=True) if text is not None]
    looked_at = sampled(len(answered))
    ends = [answers.last_answer(request, text) for place, (request, text) in enumerate(answered) if place in looked_at]
    counts = answers.counts() | {
        "with_image": sum(item["image"] is not None for item in items),
        **answers.review(
            reporter, _LABEL, [request.key for request, _ in answered], [text for _, text in answered], ends
        ),
    }
    return dict(zip((item["item_id"] for item in items), texts, strict=True)), counts


def _ask_once(
    items: Sequence[dict[str, Any]], starts: Sequence[ItemChain], answers: SummaryAnswers, reporter: Reporter
) -> tuple[list[str | None], list[Request]]:
    """Ask once about each item; return the texts, None where it failed, and the requests."""
    requests = [start.request for start in starts]
    with reporter.track(_LABEL, len(requests), answers.meter) as advance:
        texts = answers.texts([item["item_id"] for item in items], requests, advance)
    return texts, requests


def _fuse(
    items: Sequence[dict[str, Any]], starts: Sequence[FusionChain], answers: SummaryAnswers, reporter: Reporter
) -> tuple[list[str | None], list[Request]]:
    """Run one chain for each item; return the texts, None where it failed, and their last requests."""
    total = sum(1 for start in starts for _ in start.decisions())
    with reporter.track(_LABEL, total, answers.meter) as advance:
        fused = dict(answers.run_chains(starts, [start.family for start in starts], advance))
    described = [fused[place] for place in range(len(items))]
    for item, one in zip(items, described, strict=True):
        for request, answer in one.steps:
            answers.accept(item["item_id"], request, answer)
    return [one.summary for one in described], [one.steps[-1][0] for one in described]


def _are_among(items: pa.Table, wanted: set[str]) -> pa.ChunkedArray:
    """Return which rows of ITEMS are of the ids ``wanted``."""
    return pc.is_in(items["item_id"], value_set=pa.array(sorted(wanted), pa.string()))


def _wanted_items(dirs: StageDirs, prompts: Prompts) -> set[str]:
    """Return the ids of the items whose summaries are read."""
    if prompts.says_candidates_summaries:
        listed = read_listed(dirs.data / "items.parquet", ["item_id"])["item_id"].to_pylist()
        return {*listed, *_history_items(dirs.examples)}
    return _history_items(dirs.examples)


def _history_items(examples_dir: Path) -> set[str]:
    """Return the ids of all items in the histories of all splits."""
    histories = read_table(examples_dir / "examples.parquet", EXAMPLES)["history"]
    return set(histories.combine_chunks().flatten().to_pylist()) if len(histories) else set()
