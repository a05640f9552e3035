"""How long the rows will be, said before a summary is written or a model is loaded.

`lengths.json`::

    {"cutoff_len", "tokens": how they were counted, "items_looked_at", "overhead",
     "text": {"median", "max"}, "image": {"median", "max"} or null where unknown, "user_summary": {"median", "max"},
     "answer": {"median", "max"} where a text answers, "recent": {"median", "max"} where latest items are shown,
     "row": {"median", "max"}, "share_too_long": share of items whose longest row is over `cutoff_len`,
     "findings": [{"severity", "topic": "row-length", "text"}]}

A row is the recommender's prompt: its text with the title, the image, the user summary. The summaries are not written
yet, so each counts with the most that `max_new_tokens` allows. `preflight` measures the rows themselves, later.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from msr_adapter.arrays import Integers
from msr_adapter.config.schema import SummarizeConfig, TrainConfig
from msr_adapter.files import write_json
from msr_adapter.generation.request import Image
from msr_adapter.item_images import IMAGE_COLUMNS, images_of
from msr_adapter.llamafactory.token_counts import Count, image_tokens, overhead, token_counter
from msr_adapter.progress import Reporter
from msr_adapter.prompts import NOBODY, HistoryItem, Prompts, UserFields
from msr_adapter.prompts.attributes import UsedFields
from msr_adapter.prompts.stage_tables import ItemTable, UserTable, words_of_events
from msr_adapter.prompts.variables import IMAGE_PLACEHOLDER, placeholders
from msr_adapter.schema import read_listed
from msr_adapter.stage_arguments import Job, StageDirs

_ITEMS, _LONGEST, _EXAMPLES, _READ = 2_000, 200, 500, 65_536
"""Items drawn by seed; items with the longest titles beside them; histories (where these are the user texts) among
the first so many examples."""


def estimate_lengths(
    train: TrainConfig, summarize: SummarizeConfig, dirs: StageDirs, prompts: Prompts, job: Job
) -> dict[str, Any]:
    """Write ``lengths.json`` and return its content; say how long rows will be, and what to change if too long."""
    count, how = token_counter(train.model)
    items, drawn = _items(dirs.data, job.seed)
    used = prompts.fields("recommend")
    images_of_items = images_of(items, dirs.data) if train.images else [()] * len(items)
    rows = zip(items["item_id"].to_pylist(), items["title"].to_pylist(), images_of_items, strict=True)
    table = ItemTable(dirs.data, used) if used.item else None
    user = _widest_user(dirs.data, used)
    # Without a user summary; the placeholder of an image counts as text.
    shown = [
        prompts.recommend("", title, len(images), table.of(item) if table else None, user)
        for item, title, images in rows
    ]
    texts: Integers = np.array([count(prompt) for prompt in shown], np.int64)
    if used.item and used.has("summary") and summarize.items.mode != "none" and not train.asks_text:
        texts += summarize.items.max_new_tokens
    # Of the images of an item, those that the template shows.
    each = [images[: prompt.count(IMAGE_PLACEHOLDER)] for images, prompt in zip(images_of_items, shown, strict=True)]
    images = _image_tokens(each, train) if prompts.shows_images else np.zeros(len(texts), np.int64)
    summaries = _summary_tokens(summarize, dirs.data, items["item_id"].to_pylist()[drawn], prompts, count)
    if prompts.answers_with_user:
        summaries = np.zeros(1, np.int64)
    answer = _answer_tokens(train, items["title"].to_pylist(), prompts, count)
    around = overhead(train.model, count)
    recent = _recent_tokens(items["title"].to_pylist(), images_of_items, train, prompts, count)
    alone = around + texts + answer + (0 if images is None else images)
    found = {
        "cutoff_len": train.cutoff_len, "tokens": how, "items_looked_at": len(texts), "overhead": around,
        "text": _ends(texts), "image": None if images is None else _ends(images), "user_summary": _ends(summaries),
        "row": {"median": float(np.median(alone) + np.median(summaries) + np.median(recent)),
                "max": int(alone.max() + summaries.max() + recent.max())},
        "share_too_long": float((alone[drawn] + summaries.max() + recent.max() > train.cutoff_len).mean()),
    }  # fmt: skip
    if train.asks_text:
        found["answer"] = _ends(answer)
    if prompts.shows_recent:
        found["recent"] = _ends(recent)
    found["findings"] = _findings(found, train.too_long, bool(np.median(alone) > train.cutoff_len))
    write_json(job.out / "lengths.json", found)
    _tell(found, job.reporter)
    return found


def _answer_tokens(train: TrainConfig, titles: list[str], prompts: Prompts, count: Count) -> Integers:
    """Return the tokens of each item's answer, (items,); of what is not known yet, the most there can be."""
    most = train.text_answer.max_tokens
    if not train.asks_text:
        return np.zeros(len(titles), np.int64)
    if prompts.answers_with_user or prompts.fields(prompts.answer_template).item:
        return np.full(len(titles), most)
    return np.array([min(most, count(prompts.answer("", title))) for title in titles], np.int64)


def _recent_tokens(
    titles: list[str], images: Sequence[Sequence[Image]], train: TrainConfig, prompts: Prompts, count: Count
) -> Integers:
    """Return the tokens of a history's latest items, titles and images, were each of them this item: (items,)."""
    tokens = np.zeros(len(titles), np.int64)
    if not prompts.shows_recent:
        return tokens
    bare = count(prompts.recommend("", "", 0))
    for place, (title, several) in enumerate(zip(titles, images, strict=True)):
        shown = HistoryItem(title).showing(placeholders(len(several)))
        tokens[place] = count(prompts.recommend("", "", 0, recent=[shown] * prompts.recent)) - bare
    of_images = _image_tokens(images, train)
    return tokens if of_images is None else tokens + prompts.recent * of_images


def _items(data_dir: Path, seed: int) -> tuple[pa.Table, slice]:
    """Return a table of items drawn by seed, followed by those with the longest titles, and the slice of the drawn."""
    items = read_listed(data_dir / "items.parquet", ["item_id", "title", *IMAGE_COLUMNS])
    number = min(_ITEMS, items.num_rows)
    drawn = np.random.default_rng([seed, 11]).choice(items.num_rows, number, replace=False)
    # A sample of thousands misses the few titles that decide `cutoff_len`: the longest are looked at in any case.
    longest = np.argsort(-pc.binary_length(items["title"]).to_numpy(), kind="stable")[:_LONGEST]
    return items.take(pa.array(np.append(drawn, np.setdiff1d(longest, drawn)))), slice(number)


def _widest_user(data_dir: Path, used: UsedFields) -> UserFields:
    """Return a user with the longest value of each attribute, so that nobody's row is longer for it."""
    users = UserTable(data_dir, used)
    if users.is_empty:
        return NOBODY
    ids = pq.read_table(data_dir / "user_attributes.parquet", columns=["user_id"])["user_id"].to_pylist()
    known = [users.of(one).attributes for one in ids]
    return UserFields(
        tuple(max(column, key=lambda pair: len(str(pair[1] or ""))) for column in zip(*known, strict=True))
    )


def _image_tokens(images: Sequence[Sequence[Image]], train: TrainConfig) -> Integers | None:
    """Return the tokens of each row's images together, (rows,); None where the model's image tokens are not known."""
    tokens = np.zeros(len(images), dtype=np.int64)
    for row, several in enumerate(images):
        for shown in several:
            try:
                with PIL.Image.open(shown.path) as image:  # reads the header alone
                    known = image_tokens(train.model, *image.size)
            except OSError:  # damaged since it was stored: whoever shows it to a model says so, by name
                known = 0
            if known is None:
                return None
            tokens[row] += known
    return tokens


def _summary_tokens(
    summarize: SummarizeConfig, data_dir: Path, ids: list[str], prompts: Prompts, count: Count
) -> Integers:
    """Return the most tokens that user summaries can have: one number, or in mode `none` one for each listed history.

    Those histories are of lengths that occur, with items drawn by a fixed seed among those of the ``ids``.
    """
    if summarize.users.mode != "none":
        return np.array([summarize.users.max_new_tokens])
    summary = 0 if summarize.items.mode == "none" else summarize.items.max_new_tokens
    examples = pq.ParquetFile(data_dir / "examples.parquet")
    batch = next(examples.iter_batches(_READ, columns=["history"]), None)
    if batch is None or not batch.num_rows:  # nobody has a history whose text could be long
        return np.zeros(1, np.int64)
    lengths = pc.list_value_length(batch["history"]).to_numpy()
    rng = np.random.default_rng(11)
    drawn = [rng.choice(len(ids), size) for size in (*lengths[:: max(1, len(lengths) // _EXAMPLES)], lengths.max())]
    used = prompts.fields("history")
    items, user = ItemTable(data_dir, used), _widest_user(data_dir, used)
    longest = max(words_of_events(data_dir) or [""], key=count) if used.has("event") else ""
    known = [replace(items.of(one), event=longest) for one in ids]
    return np.array([count(prompts.history([known[item] for item in history], user)) + summary * len(history)
                     for history in drawn])  # fmt: skip


def _ends(tokens: Integers) -> dict[str, float]:
    return {"median": float(np.median(tokens)), "max": int(tokens.max())}


def _findings(found: dict[str, Any], too_long: str, certain: bool) -> list[dict[str, str]]:
    """Return what is wrong with the lengths; ``certain``: half of the rows are too long even without a summary."""
    longest, cutoff = found["row"]["max"], found["cutoff_len"]
    if longest <= cutoff:
        return []
    then = ("the summaries of their users will be truncated" if too_long == "truncate" and not certain
            else "one is enough to stop before training")  # fmt: skip
    text = (f"Rows may have up to {longest:,} tokens, but train.cutoff_len is {cutoff:,}: too few for the longest rows "
            f"of {found['share_too_long']:.0%} of the items, and {then}. Set "
            f"train.cutoff_len: {longest}, or lower summarize.users.max_new_tokens, train.model.image_max_pixels or "
            "split.max_history.")  # fmt: skip
    return [{"severity": "error" if certain else "warning", "topic": "row-length", "text": text}]


def _tell(found: dict[str, Any], reporter: Reporter) -> None:
    parts = [f"text {found['text']['max']:,}", f"user summary {found['user_summary']['max']:,}"]
    parts.insert(1, "image unknown" if found["image"] is None else f"image {found['image']['max']:,}")
    if "recent" in found:
        parts.append(f"latest items {found['recent']['max']:,}")
    reporter.note(f"Rows of about {found['row']['median']:,.0f} tokens, at most {found['row']['max']:,} of "
                  f"{found['cutoff_len']:,} (at most: {', '.join(parts)}; {found['tokens']})")  # fmt: skip
    for finding in found["findings"]:
        reporter.note(f"{finding['severity']}: {finding['text']} [{finding['topic']}]")
