"""Runs for other tools: TREC files for trec_eval and pytrec_eval, JSON for ranx."""

import json
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.arrays import Floats
from msr_adapter.evaluate.candidates import flat
from msr_adapter.evaluate.results import FinishedRun
from msr_adapter.files import atomic_path

USERS = "users.tsv"
"""Query -> user id, beside the runs."""
_USERS_AT_ONCE = 4096


def write_trec(run: FinishedRun, out: Path) -> list[Path]:
    """Write `qrels.txt`, `run.<model>.txt` and `users.tsv` into ``out``; return the files.

    A query is an example id; `users.tsv` says whose. TREC separates by spaces, so white space and `%` in
    item ids are percent-encoded. trec_eval reads scores as 32-bit floats and orders ties by item id.
    """
    items = _encoded(flat(run.table["item_id"]))
    queries = flat(run.table["example_id"]).cast(pa.string())
    positive = run.table["label"].to_numpy() > 0
    judged = pc.binary_join_element_wise(
        queries.filter(pa.array(positive)), "0", items.filter(pa.array(positive)), "1", " "
    )
    files = [_write_lines(out / "qrels.txt", judged)]
    owner = np.repeat(np.arange(len(run.held_out.example_ids)), np.diff(run.held_out.offsets))
    for model in run.models:
        scores = _finite(run, model)
        order = np.lexsort((-scores, owner))  # by query, then falling score: lexsort's last key comes first
        ranks = np.arange(len(owner)) - run.held_out.offsets[owner] + 1
        columns = (queries.take(pa.array(order)), "Q0", items.take(pa.array(order)),
                   pa.array(ranks).cast(pa.string()), pa.array(scores[order]).cast(pa.string()), model)  # fmt: skip
        files.append(_write_lines(out / f"run.{model}.txt", pc.binary_join_element_wise(*columns, " ")))
    return [*files, _write_users(run, out / USERS)]


def _encoded(items: pa.Array) -> pa.Array:
    coded = items.dictionary_encode()  # an item stands in many lists, and is encoded once
    names = [
        "".join(urllib.parse.quote(char) if char.isspace() or char == "%" else char for char in name)
        for name in coded.dictionary.to_pylist()
    ]
    return pa.array(names, pa.string()).take(coded.indices)


def _finite(run: FinishedRun, model: str) -> Floats:
    return np.nan_to_num(run.scores(model))  # infinite log-odds become the largest numbers: the order stays


def _write_lines(path: Path, lines: pa.Array) -> Path:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for start in range(0, len(lines), 2**16):
            file.writelines(f"{line}\n" for line in lines.slice(start, 2**16).to_pylist())
    return path


def write_ranx(run: FinishedRun, out: Path) -> list[Path]:
    """Write `qrels.json`, `run.<model>.json` and `users.tsv` into ``out``; return the files.

    Read them with `ranx.Qrels.from_file(path, kind="json")` and `ranx.Run.from_file(path, kind="json")`.
    """
    labels = run.table["label"].to_numpy()
    files = [_write_mapping(out / "qrels.json", run, labels.astype(np.int64), labels > 0)]
    everything = np.ones(len(labels), bool)
    files += [_write_mapping(out / f"run.{model}.json", run, _finite(run, model), everything) for model in run.models]
    return [*files, _write_users(run, out / USERS)]


def _write_users(run: FinishedRun, path: Path) -> Path:
    """Write which user each query is: tabs between, quoted where an id has tabs, quotes or line breaks."""
    with atomic_path(path) as temporary:
        run.queries().write_csv(temporary, separator="\t")
    return path


def _write_mapping(path: Path, run: FinishedRun, values: np.ndarray, keep: np.ndarray) -> Path:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("{")
        for number, (query, documents) in enumerate(_by_query(run, values, keep)):
            file.write(f"{',' if number else ''}\n{json.dumps(query)}: {json.dumps(documents, ensure_ascii=False)}")
        file.write("\n}\n")
    return path


def _by_query(run: FinishedRun, values: np.ndarray, keep: np.ndarray) -> Iterator[tuple[str, dict[str, float]]]:
    held_out, items = run.held_out, flat(run.table["item_id"])
    bounds, ids = held_out.offsets, held_out.example_ids
    for first in range(0, len(ids), _USERS_AT_ONCE):
        last = min(first + _USERS_AT_ONCE, len(ids))
        start, end = int(bounds[first]), int(bounds[last])
        names, numbers = items.slice(start, end - start).to_pylist(), values[start:end].tolist()
        kept = keep[start:end].tolist()
        for user in range(first, last):
            rows = range(int(bounds[user]) - start, int(bounds[user + 1]) - start)
            yield str(ids[user]), {names[row]: numbers[row] for row in rows if kept[row]}


WRITERS: dict[str, Callable[[FinishedRun, Path], list[Path]]] = {"trec": write_trec, "ranx": write_ranx}
_SUFFIXES = {"trec": "txt", "ranx": "json"}


def file_names(run: FinishedRun, form: str) -> list[str]:
    """Return the names of the files that the writer of ``form`` makes."""
    return [*(f"{name}.{_SUFFIXES[form]}" for name in ("qrels", *(f"run.{model}" for model in run.models))), USERS]
