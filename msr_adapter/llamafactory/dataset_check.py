"""The written rows as LLaMA-Factory's own loader and converter hand them to its tokeniser, against what was written.

Its loader drops what it does not understand with a line in the log and trains on the rest: wrong columns, wrong tags,
a stray file, a row with another number of messages.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from msr_adapter.llamafactory.dataset import Turn, WrittenRow, read_rows
from msr_adapter.llamafactory.literal_paths import literal_paths

READ_BACK = ".read-back-"
"""How the names of the folders begin in which rows are read back."""

_BATCH = 1_000
_BITS = 128


class Content(NamedTuple):
    """What some rows are, whatever their order: files of a folder are read in no order."""

    rows: int
    digest: int


class RowDifference(NamedTuple):
    """One row folder that LLaMA-Factory reads otherwise than it was written."""

    name: str
    reason: str


def compare(dataset_dir: Path, media_dir: Path, names: Iterable[str], parent: Path) -> list[RowDifference]:
    """Return each data set of ``names`` whose rows do not come back as written: count, messages, answers, image paths.

    LLaMA-Factory's caches go to a new folder in ``parent``, which is removed. Tokenises nothing; 10,000 rows take a
    second or two. Memory: some thousand rows.
    """
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=READ_BACK, dir=parent, ignore_cleanup_errors=True) as work:
        found = [(name, _difference(dataset_dir, media_dir, name, Path(work))) for name in names]
    return [RowDifference(name, reason) for name, reason in found if reason]


def _difference(dataset_dir: Path, media_dir: Path, name: str, work: Path) -> str:
    written = _content(_as_converted(row, media_dir) for row in read_rows(dataset_dir / name))
    try:
        read = _content(_loaded(dataset_dir, media_dir, name, work))
    except Exception as error:  # whatever its loader and its libraries raise: they are asked what they make of it
        return f"its loader fails: {type(error).__name__}: {error}"
    if read.rows != written.rows:
        return f"{written.rows:,} rows were written, but {read.rows:,} are read"
    return "" if read == written else "the number of rows is right, but their contents differ"


def _as_converted(row: WrittenRow, media_dir: Path) -> dict[str, Any]:
    """Return what the converter should make of a row."""
    turns = row["messages"]
    if "chosen" in row:
        prompt, response = turns, [row["chosen"], row["rejected"]]
    elif "kto_tag" in row:
        other: Turn = {"role": "assistant", "content": ""}
        prompt, response = turns[:-1], [turns[-1], other] if row["kto_tag"] else [other, turns[-1]]
    else:
        prompt, response = turns[:-1], turns[-1:]
    images = [os.path.join(media_dir, path) for path in row["images"]]  # noqa: PTH118  # as the converter joins them
    return {"_prompt": prompt, "_response": response, "_images": images}


def _loaded(dataset_dir: Path, media_dir: Path, name: str, work: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data set as LLaMA-Factory's loader and converter give them to its tokeniser."""
    from datasets import disable_progress_bars, enable_progress_bars
    from llamafactory.data.loader import _load_single_dataset
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.hparams import DataArguments, ModelArguments

    logging.getLogger("llamafactory").setLevel(logging.ERROR)
    model = ModelArguments(model_name_or_path="unused", cache_dir=str(work))
    data = DataArguments(dataset_dir=str(dataset_dir), media_dir=str(media_dir), overwrite_cache=True)
    # All that the loader asks of it; the real class would look for other processes to train with.
    training: Any = SimpleNamespace(dataloader_num_workers=0, local_process_index=0)
    (attributes,) = get_dataset_list([name], str(dataset_dir))
    disable_progress_bars()
    try:
        with literal_paths():  # as in the trainer's own processes
            loaded = _load_single_dataset(attributes, model, data, training)
        for batch in loaded.iter(_BATCH):
            for place in range(len(batch["_prompt"])):
                yield {column: values[place] for column, values in batch.items()}
    finally:
        enable_progress_bars()


def _content(rows: Iterable[dict[str, Any]]) -> Content:
    count, total = 0, 0
    for row in rows:
        count += 1
        total += _digest(row)
    # A sum of digests: equal for equal rows in any order, and unlike an exclusive or, a row that is there twice counts.
    return Content(count, total % (1 << _BITS))


def _digest(row: dict[str, Any]) -> int:
    parts = [
        *([turn["role"], turn["content"]] for turn in [*row["_prompt"], *row["_response"]]),
        row["_images"] or [], row.get("_system") or "", row.get("_tools") or "", row.get("_videos") or [],
        row.get("_audios") or [], len(row["_prompt"]),
    ]  # fmt: skip
    text = json.dumps(parts, ensure_ascii=False).encode("utf-8", errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=_BITS // 8).digest())
