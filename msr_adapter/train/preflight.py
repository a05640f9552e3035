"""Everything that would end a training hours later, or spoil it silently, found before it starts."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from msr_adapter.arrays import Integers
from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION, count_rows, read_images, read_rows
from msr_adapter.llamafactory.dataset_check import compare
from msr_adapter.llamafactory.device_defaults import with_device_defaults
from msr_adapter.llamafactory.memory_estimate import Estimate, estimate, model_shape
from msr_adapter.llamafactory.prompt_encoder import Encoder
from msr_adapter.llamafactory.row_lengths import UNREADABLE, MeasureRequest, measuring
from msr_adapter.llamafactory.training_yaml import expected_steps, unknown_overrides
from msr_adapter.progress import Reporter
from msr_adapter.stage_arguments import StageDirs
from msr_adapter.train.dataset import LabelBalance, measure_request

_SHOWN = 5


@dataclass
class _Lengths:
    """Lengths of all rows so far."""

    rows: int = 0
    tokens: int = 0
    longest: int = 0
    too_long: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, name: str, begin: int, lengths: Integers, cutoff_len: int) -> None:
        """Count rows of the data set ``name``, the first of which is its row ``begin`` (from 0)."""
        self.rows += len(lengths)
        self.tokens += int(lengths[lengths != UNREADABLE].sum())
        self.longest = max(self.longest, int(lengths.max(initial=0)))
        over = np.flatnonzero(lengths > cutoff_len)
        self.too_long += len(over)
        self.named += [f"{name} {begin + row + 1}" for row in over[: _SHOWN - len(self.named)].tolist()]


def preflight(train: TrainConfig, dirs: StageDirs, reporter: Reporter, *, workers: int | None = None) -> dict[str, Any]:
    """Measure every row as LLaMA-Factory will encode it, and have its loader read all of them; return what was found.

    Raises `UserError` with everything that is wrong: rows longer than ``cutoff_len`` (they would be cut without a
    word, right before the answer), images that cannot be read, rows that do not come back as written, unknown
    overrides, a template without images, too little disk. The result does not depend on ``workers``, the number of
    processes. Memory: a path for each distinct image, and some thousand rows a process.
    """
    data_dir, dataset_dir = dirs.data, dirs.dataset
    encoder = Encoder(train.model)
    # Answers that cannot be told apart by one token cannot be scored: better said before training than after.
    if not train.asks_text:
        encoder.side_tokens([train.answers.yes, train.answers.no])
    names = [name for name in (TRAIN, VALIDATION) if (dataset_dir / name).is_dir()]
    images = {data_dir / image: None for name in names for image in read_images(dataset_dir / name)}
    if images and not encoder.sees_images:
        found = f"template {encoder.model.template} takes no images, but rows have one"
        step = "Set train.images: false, or use a template with images"
        raise UserError(Problem("", "train.images", found, "", step))
    counts = {name: count_rows(dataset_dir / name) for name in names}
    rows = sum(counts.values())
    lengths, balance = _Lengths(), LabelBalance(train.answers.trained)
    with measuring(encoder, rows, len(images), workers) as measurer:
        with reporter.track("checking images", len(images)) as advance:
            measurer.learn(images, advance)
        with reporter.track("measuring rows", rows) as advance:
            for name in names:
                asked = _asked(dataset_dir / name, data_dir, balance if name == TRAIN else LabelBalance())
                begin = 0
                for part in measurer.lengths(asked):
                    lengths.add(name, begin, part, train.cutoff_len)
                    begin += len(part)
                    advance(len(part))
    needed = _estimate(train, lengths, counts.get(TRAIN, 0))
    problems = [
        *unknown_overrides(train.overrides), *_length_problems(train, lengths),
        *_image_problems(measurer.faults, data_dir), *_disk_problems(dataset_dir, needed),
    ]  # fmt: skip
    # A missing image does not come back either: one problem at a time.
    problems += [] if measurer.faults else _read_back_problems(dataset_dir, data_dir, names)
    if problems:
        raise UserError(problems)
    if not train.asks_text:
        balance.warn(train, reporter)
    _tell_memory(train, needed, lengths, reporter)
    return {
        "rows": lengths.rows, "images": len(images), "longest_row": lengths.longest, "tokens": lengths.tokens,
        "yes_share": None if train.asks_text else balance.share, "memory_estimate": needed.memory if needed else None,
        "disk_estimate": needed.disk if needed else None,
    }  # fmt: skip


def _asked(folder: Path, data_dir: Path, balance: LabelBalance) -> Iterator[MeasureRequest]:
    """Yield what is measured of each written row, and count its label: the rows are read once for both."""
    for row in read_rows(folder):
        balance.add(row)
        yield measure_request(row, data_dir)


def _length_problems(train: TrainConfig, lengths: _Lengths) -> list[Problem]:
    if not lengths.too_long:
        return []
    found = (f"{lengths.too_long:,} of {lengths.rows:,} rows are longer than {train.cutoff_len} tokens "
             f"({', '.join(lengths.named)}{', ...' if lengths.too_long > len(lengths.named) else ''})")  # fmt: skip
    step = (f"Set train.cutoff_len: {lengths.longest}, or train.too_long: truncate, or lower split.max_history, "
            "summarize.users.max_new_tokens or train.model.image_max_pixels")  # fmt: skip
    return [Problem("", "train.cutoff_len", found, f"the longest has {lengths.longest}", step)]


def _image_problems(faults: dict[Path, str], data_dir: Path) -> list[Problem]:
    step = "Rebuild the data stage (--force data), which checks every image"
    shown = list(faults.items())[:_SHOWN]
    problems = [Problem(str(path), "", f"cannot be read as an image: {why}", "", step) for path, why in shown]
    if (hidden := len(faults) - _SHOWN) > 0:
        problems.append(Problem(str(data_dir), "", f"{plural(hidden, 'more image')} cannot be read"))
    return problems


def _read_back_problems(dataset_dir: Path, data_dir: Path, names: list[str]) -> list[Problem]:
    step = "Rebuild it (--force dataset); leave nothing else in its folder"
    return [
        Problem(str(dataset_dir / one.name), "", f"LLaMA-Factory does not read it as it was written: {one.reason}", "",
                step)
        for one in compare(dataset_dir, data_dir, names, dataset_dir.parent)
    ]  # fmt: skip


def _estimate(train: TrainConfig, lengths: _Lengths, rows: int) -> Estimate | None:
    shape = model_shape(train.model)
    if shape is None:
        return None
    import torch

    processes = train.launch.processes
    world = train.launch.nodes * (max(1, torch.cuda.device_count()) if processes == "auto" else processes)
    settled = with_device_defaults(train, lengths.longest, cuda=torch.cuda.is_available())
    return estimate(settled, shape, lengths.longest, lengths.tokens, world, expected_steps(train, rows, world))


def _disk_problems(dataset_dir: Path, needed: Estimate | None) -> list[Problem]:
    free = shutil.disk_usage(dataset_dir).free
    if needed is None or needed.disk <= free:
        return []
    found = f"{free / 1e9:.1f} GB free on its disk"
    allowed = f"checkpoints, the model and the trainer's caches take about {needed.disk / 1e9:.1f} GB"
    return [Problem(str(dataset_dir.parent), "run_dir", found, allowed, "Free some space or choose another --run-dir")]


def _tell_memory(train: TrainConfig, needed: Estimate | None, lengths: _Lengths, reporter: Reporter) -> None:
    """Note what training will take, and on a GPU whether that fits; nothing where the model's size is not known."""
    if needed is None:
        return
    import torch

    what = f"{train.batch_size} x {lengths.longest:,} tokens"
    if not torch.cuda.is_available():
        reporter.note(f"  training will take {needed} with {what}: an estimate, to plan with")
        return
    total = torch.cuda.mem_get_info()[1]
    verdict = f"this one has {total / 1e9:.1f} GB"
    if needed.memory > total:
        verdict += ": warning: too little. Lower train.batch_size or image_max_pixels, or share (train.launch.strategy)"
    reporter.note(f"  training will take {needed} with {what}, an estimate; {verdict}")
