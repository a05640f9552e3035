"""How long the stages of hours will take: by what earlier runs measured, else by a rule of thumb, and said which.

The rule counts 2 operations for each parameter and token that is read, `_WRITTEN` times as many for one that is
written and `_TRAINED` times for one that is trained on, at the pace of `_CORE` or `_GPU`. It is good to a factor of
three or so; docs/training.md has it. Nothing is imported that loads a model.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import ModelConfig, PipelineConfig
from msr_adapter.errors import plural
from msr_adapter.files import read_json_object
from msr_adapter.integrity import read_manifest
from msr_adapter.llamafactory.memory_estimate import model_shape
from msr_adapter.pipeline.kept import kept_stages
from msr_adapter.pipeline.mining_checks import mining_work
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.report.cost import duration
from msr_adapter.schema import read_listed
from msr_adapter.system import cpu_count

_CORE, _GPU = 40e9, 60e12
"""Operations a second that one core does in float32, or one GPU in bfloat16, with all that is not arithmetic."""
_WRITTEN, _TRAINED = {False: 3.0, True: 12.0}, 4.0
"""Cost of a token beside that of one that is read; writing, by whether a GPU does it, waits for memory."""
_LEAST = 3e-3
"""Seconds that a request takes in any case."""
_LARGE = 1e9
"""Parameters from which on a machine without a GPU is warned of."""
_UNKNOWN_ROW, _PROMPT = 300, 150
"""Tokens of a row before lengths are estimated, and of a summariser's prompt."""
_PER = 1_000
_SAME_PROMPTS = {
    "mine": ("score",), "rerank": ("score",), "rerank-base": ("score-base",), "score-validation": ("score",),
}  # fmt: skip
"""Stages whose pace is that of another, which asks the same model the same question."""
_SIZE = re.compile(r"(?<![a-zA-Z0-9.])(\d+(?:\.\d+)?)[bB](?![a-zA-Z0-9])")
"""How the names of models tell their size: Qwen2-VL-2B-Instruct."""


@dataclass(frozen=True)
class Work:
    """What one stage has to do."""

    stage: str
    role: str
    """The key that names its model."""
    model: ModelConfig
    read: int
    """Tokens of each request or row."""
    written: int = 0
    trained: bool = False
    number: int | None = None
    """Requests or rows; None before the data is built."""


def time_notes(loaded: LoadedPipeline, stages: Mapping[str, str], labels: Mapping[str, str]) -> list[str]:
    """Return how long what would run will take, with the basis, and a warning where a large model meets a few cores.

    ``stages`` is `plan`'s answer, ``labels`` what they are called. Of a model that is asked through a server, only
    earlier runs tell.
    """
    gpus, told, total = _gpus(), list[str](), 0.0
    works = [work for work in _works(loaded, stages) if _would_run(stages.get(work.stage, "up to date"))]
    counted = all(work.number is not None for work in works)
    bases: dict[str, None] = {}
    for work in works:
        each, basis = _seconds_each(work, loaded.run_dir, gpus)
        label = labels[work.stage].lower()
        if each is None:
            told.append(f"{label} unknown ({basis})")
            continue
        number = _PER if work.number is None else work.number
        total += each * number
        bases[basis] = None
        told.append(f"{label} {duration(each * number)} for {number:,}")
    notes = list(_too_large(loaded, works, gpus))
    if told:
        whole = f"about {duration(total)}" if counted else "counted once the data is built (`msr build-data`)"
        notes.append(f"time: {whole}: {', '.join(told)}; {' and '.join(bases) or 'nothing to go by'}")
    return notes


def _would_run(state: str) -> bool:
    return state != "up to date" and not state.startswith("found again")


def _gpus() -> int:
    from msr_adapter.distributed.devices import visible_gpus

    return len(visible_gpus(os.environ))


def _works(loaded: LoadedPipeline, stages: Mapping[str, str]) -> Iterator[Work]:
    """Yield what the stages of hours have to do, counted where the data is built."""
    summarize, train = loaded.pipeline.summarize, loaded.pipeline.train
    folder = RunFolder(loaded.run_dir)
    data = folder.stage("data") if stages.get("data") == "up to date" else None
    row = _row_tokens(loaded.pipeline, folder, stages.get("lengths") == "up to date")
    if (mining := mining_work(loaded.pipeline)) is not None:
        yield Work("mine", "train.model", mining.model, row, number=mining.prompts)
    if summarize.items.mode != "none":
        requests = 3 if summarize.items.mode == "fusion" else 1
        number = None if data is None else requests * _listed(data)
        image = 0 if loaded.pipeline.data.images.folder is None else _PROMPT
        yield Work("items", "summarize.items.model", summarize.items.model, _PROMPT + image,
                   summarize.items.max_new_tokens, number=number)  # fmt: skip
    if summarize.users.mode != "none":
        block = summarize.users.block if summarize.users.mode == "recurrent" else None
        read = _PROMPT + (block or 10) * (20 if summarize.items.mode == "none" else summarize.items.max_new_tokens)
        number = None if data is None else _steps(data, block)
        yield Work("users", "summarize.users.model", summarize.users.model, read, summarize.users.max_new_tokens,
                   number=number)  # fmt: skip
    if stages.get("train"):
        yield Work("train", "train.model", train.model, row, trained=True, number=_rows(loaded, folder, data))
    scored = None if data is None else _split(folder, "test")
    found = None if data is None else retrieved_prompts(loaded.pipeline, data)
    weighed = None if data is None else _weighed(loaded.pipeline, folder)
    for stage, number in (("score-base", scored), ("score", scored), ("score-validation", weighed),
                          ("rerank-base", found), ("rerank", found)):  # fmt: skip
        if stage in stages:
            role, model = _scorer(loaded.pipeline, stage)
            yield Work(stage, role, model, row, number=number)


def _listed(data: Path) -> int:
    """Return how many items lists may have."""
    return len(read_listed(data / "items.parquet", ["listed"]))


def _scorer(pipeline: PipelineConfig, stage: str) -> tuple[str, ModelConfig]:
    """Return the key that names the model of a stage that scores, and the model."""
    served = None if stage.endswith("-base") else pipeline.evaluate.scorer
    return ("train.model", pipeline.train.model) if served is None else ("evaluate.scorer", served)


def _row_tokens(pipeline: PipelineConfig, folder: RunFolder, estimated: bool) -> int:
    known = read_json_object(folder.stage("lengths") / "lengths.json") if estimated else {}
    median = float(known.get("row", {}).get("median", _UNKNOWN_ROW))
    return min(pipeline.train.cutoff_len, round(median))


def retrieved_prompts(pipeline: PipelineConfig, data: Path) -> int:
    """Return how many prompts one model answers to rank what is retrieved, at most, by the tables of the data stage."""
    full = pipeline.evaluate.full
    if full is None:
        return 0
    splits = pq.read_table(data / "examples.parquet", columns=["split"])["split"].to_numpy()
    items = _listed(data)
    return int((splits == "test").sum()) * min(full.top, items)


def reranking_cost(pipeline: PipelineConfig, folder: RunFolder, stage: str) -> str:
    """Say how many prompts a stage has to score what was retrieved, and how long that takes by the basis of `check`."""
    number = pq.read_metadata(folder.stage("retrieve") / "candidates.parquet").num_rows
    role, model = _scorer(pipeline, stage)
    row = _row_tokens(pipeline, folder, folder.manifest("lengths") is not None)
    each, basis = _seconds_each(Work(stage, role, model, row, number=number), folder.root, _gpus())
    took = f"about {duration(each * number)} {basis}" if each is not None else basis
    return f"{plural(number, 'prompt')} to rank what was retrieved, those in the cache included: {took}"


def _steps(data: Path, block: int | None) -> int:
    """Return how many blocks all histories have, or how many are not empty where each is read at once."""
    lengths = pc.list_value_length(pq.read_table(data / "examples.parquet", columns=["history"])["history"]).to_numpy()
    return int((lengths > 0).sum() if block is None else (-(-lengths // block)).sum())


def _weighed(pipeline: PipelineConfig, folder: RunFolder) -> int:
    """Return of how many candidates a hybrid's validation users have, on average."""
    manifest, hybrid = folder.manifest("data"), pipeline.evaluate.hybrid
    told = manifest.summary["splits"].get("validation", {}) if manifest else {}
    if hybrid is None or not told.get("examples"):
        return 0
    return int(told["candidates"] * min(1.0, hybrid.users / told["examples"]))


def _split(folder: RunFolder, name: str) -> int:
    manifest = folder.manifest("data")
    return int(manifest.summary["splits"][name]["candidates"]) if manifest else 0


def _examples(folder: RunFolder, name: str) -> int:
    manifest = folder.manifest("data")
    return int(manifest.summary["splits"][name]["examples"]) if manifest else 0


def _rows(loaded: LoadedPipeline, folder: RunFolder, data: Path | None) -> int | None:
    train = loaded.pipeline.train
    if train.max_steps is not None:
        return train.max_steps * train.batch_size * train.gradient_accumulation
    split = _examples(folder, "train") if train.asks_text else _split(folder, "train")
    return None if data is None else math.ceil(train.epochs * split)


def _seconds_each(work: Work, run_dir: Path, gpus: int) -> tuple[float | None, str]:
    """Return the seconds of one request or row, and what says so."""
    if (measured := _measured(work, run_dir)) is not None:
        return measured[0], f"as measured in {measured[1]}"
    if not work.model.backend_row.local:
        return None, "a server's pace is known from earlier runs alone"
    size = parameters(work.model)
    if size is None:
        return None, f"the size of {work.model.path} is not known"
    tokens = work.read * (_TRAINED if work.trained else 1.0) + work.written * _WRITTEN[gpus > 0]
    pace = gpus * _GPU if gpus else cpu_count() * _CORE
    device = plural(gpus, "GPU") if gpus else plural(cpu_count(), "CPU core")
    basis = f"by a rule of thumb for {_billions(size)} on {device} (docs/training.md), an order of magnitude"
    return max(2 * size * tokens / pace, _LEAST), basis


def _measured(work: Work, run_dir: Path) -> tuple[float, str] | None:
    """Return the seconds of one request or row in the latest run beside that asked the same model, and its folder."""
    found = []
    names = (work.stage, *_SAME_PROMPTS.get(work.stage, ()))
    for name, stage in ((one, stage) for one in names for stage in _stages_beside(one, run_dir)):
        manifest = read_manifest(stage, name)
        summary, told = manifest.get("summary") or {}, manifest.get("settings") or {}
        for key in work.role.split("."):
            told = told.get(key) or {} if isinstance(told, dict) else {}
        if not isinstance(told, dict) or told.get("path") != work.model.path:
            continue
        pace = (summary.get("measured") or {}).get("rows_per_second") if work.trained else None
        asked = summary.get("computed") if not work.trained else None
        if pace:
            found.append((str(manifest.get("finished")), 1 / pace, stage))
        elif asked and manifest.get("seconds"):
            found.append((str(manifest.get("finished")), manifest["seconds"] / asked, stage))
    if not found:
        return None
    _, seconds, stage = max(found, key=lambda one: one[0])
    return seconds, str(stage.parent if stage.name in names else stage)


def _stages_beside(name: str, run_dir: Path) -> Iterator[Path]:
    """Yield what this run and those beside it have made in a stage, the kept ones too."""
    runs = [run_dir]
    with contextlib.suppress(OSError):
        runs += sorted(path for path in run_dir.parent.iterdir() if path != run_dir and (path / name).is_dir())
    for run in runs:
        yield run / name
        yield from (one.folder for one in kept_stages(RunFolder(run), name))


def parameters(model: ModelConfig) -> float | None:
    """Return the number of a model's parameters: counted in its files, else as its name tells; None where unknown."""
    if (shape := model_shape(model)) is not None:
        return float(shape.parameters)
    named = _SIZE.findall(Path(model.path).name)
    return float(named[-1]) * 1e9 if named else None


def _billions(size: float) -> str:
    return f"{size / 1e9:.1f} billion parameters" if size >= 1e8 else f"{size / 1e6:.1f} million parameters"


def _too_large(loaded: LoadedPipeline, works: list[Work], gpus: int) -> Iterator[str]:
    """Yield a warning for each large model that is to run on a processor."""
    if gpus:
        return
    local = {work.model.path: work for work in works if work.model.backend_row.local}
    for path, work in local.items():
        size = parameters(work.model)
        if size is not None and size >= _LARGE:
            cores = plural(cpu_count(), "CPU core")
            yield (
                f"warning: {work.role} {path} has {_billions(size)}, and this machine has {cores} and no GPU: days, "
                "not hours. Try it with `tiny`, ask a server (backend: server), or run it where there is a GPU"
            )
