"""Everything that would end a training hours later, or spoil it silently, found before it starts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image

from msr_adapter.config.models import Train
from msr_adapter.errors import Problem, UserError
from msr_adapter.llamafactory.config import unknown_overrides
from msr_adapter.llamafactory.dataset import TRAIN, VALIDATION, TrainingRow, count_rows, read_rows
from msr_adapter.llamafactory.encode import Encoder
from msr_adapter.progress import Reporter
from msr_adapter.rows import ANSWERS

_SHOWN = 5


@dataclass
class _Findings:
    rows: int = 0
    longest: int = 0
    too_long: int = 0
    images: set[str] = field(default_factory=set)
    broken: dict[str, str] = field(default_factory=dict)


def preflight(train: Train, data_dir: Path, dataset_dir: Path, reporter: Reporter) -> dict[str, Any]:
    """Encode every row as LLaMA-Factory will; return rows, distinct images and the longest row in tokens.

    Raises `UserError` when a row is longer than ``cutoff_len`` (it would be cut without a word, right before the
    answer), an image cannot be read, an override is unknown, or the template cannot take images. Seconds per 10,000
    rows; each distinct image is processed once.
    """
    encoder = Encoder(train.model)
    encoder.answer_tokens(ANSWERS)
    findings = _Findings()
    folders = [dataset_dir / name for name in (TRAIN, VALIDATION)]
    with reporter.track("checking rows", sum(map(count_rows, folders))) as advance:
        for folder in folders:
            for row in read_rows(folder):
                _check_row(row, encoder, data_dir, train.cutoff_len, findings)
                advance(1)
    if problems := unknown_overrides(train.overrides) + _problems(train, findings, data_dir):
        raise UserError(problems)
    return {"rows": findings.rows, "images": len(findings.images), "longest_row": findings.longest}


def _check_row(row: TrainingRow, encoder: Encoder, data_dir: Path, cutoff_len: int, findings: _Findings) -> None:
    findings.rows += 1
    if row.images and not encoder.sees_images:
        found = f"template {encoder.model.template} takes no images, but rows have one"
        step = "Set train.images: false, or use a template with images"
        raise UserError(Problem("", "train.images", found, "", step))
    for image in set(row.images) - findings.images:
        findings.images.add(image)
        if error := _fault(data_dir / image):
            findings.broken[image] = error
    if findings.broken.keys() & set(row.images):
        return
    images = [data_dir / image for image in row.images]
    length = max(encoder.row_length(row.prompt, images, answer) for answer in row.answers)
    findings.longest = max(findings.longest, length)
    findings.too_long += length > cutoff_len


def _fault(path: Path) -> str:
    """Say why ``path`` cannot be decoded to its last pixel; empty when it can."""
    try:
        with PIL.Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:  # all that Pillow raises
        return str(error) or type(error).__name__
    return ""


def _problems(train: Train, findings: _Findings, data_dir: Path) -> list[Problem]:
    problems = []
    if findings.too_long:
        found = f"{findings.too_long} of {findings.rows} rows are longer than {train.cutoff_len} tokens"
        step = (f"Set train.cutoff_len: {findings.longest}, or lower split.max_history, "
                "summarize.users.max_new_tokens or train.model.image_max_pixels")  # fmt: skip
        problems.append(Problem("", "train.cutoff_len", found, f"the longest has {findings.longest}", step))
    for path, error in list(findings.broken.items())[:_SHOWN]:
        step = "Rebuild the data stage (--force data), which checks every image"
        problems.append(Problem(str(data_dir / path), "", f"cannot be read as an image: {error}", "", step))
    if (hidden := len(findings.broken) - _SHOWN) > 0:
        problems.append(Problem(str(data_dir), "", f"{hidden} more images cannot be read"))
    return problems
