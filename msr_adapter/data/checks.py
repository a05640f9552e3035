"""What can be known about the sources before anything is built, and their stamp for the stage's fingerprint."""

import math
from pathlib import Path

from msr_adapter.config.schema import DataConfig, NegativesConfig, ProtocolConfig
from msr_adapter.data.attributes import check_users
from msr_adapter.data.negatives.candidate_files import read_lists
from msr_adapter.data.negatives.scored_items import read_scores
from msr_adapter.data.readers.compressed import compression_problems
from msr_adapter.data.readers.sources import check_source, draws_images, may_hold_images, source_files
from msr_adapter.errors import Problem, collecting
from msr_adapter.files import path_stamp
from msr_adapter.filesystem import absent
from msr_adapter.prompts.neutralize import RULES_VERSION

_LOOKED_INTO = 256 * 2**20
"""Bytes of a packed file; more than its longest line may have, so that its header can be read."""


def check_data(data: DataConfig) -> list[Problem]:
    """Return what is wrong with files, headers and folders; rows and images are not read.

    Of a packed file, the beginning is decompressed before its header is looked for.
    """
    packed = packed_problems(data, _LOOKED_INTO)  # first, because looking for a header unpacks whatever is there
    return (packed or check_source(data.source)) + check_users(data) + _check_images(data)


def packed_problems(data: DataConfig, budget: float = math.inf) -> list[Problem]:
    """Return which files of the source are decompression bombs, damaged, or packed in an unknown way."""
    paths = [path for path in source_files(data.source).values() if isinstance(path, Path)]
    paths += [] if data.users is None else [data.users.path]
    return compression_problems(paths, data.max_expansion, budget)


def check_protocol(protocol: ProtocolConfig, train: NegativesConfig) -> list[Problem]:
    """Return what is wrong with files of candidates or scores: absent, no such tables, rows that cannot be read."""
    wanted = {
        "evaluate.protocol.candidates": protocol.candidates,
        "evaluate.protocol.negatives.scores": protocol.negatives.scores,
        "train.negatives.scores": train.scores,
    }
    step = "Correct the path; it starts from the YAML that names it"
    given = {setting: path for setting, path in wanted.items() if path is not None}
    problems = [Problem(str(path), setting, absent(path), "", step)
                for setting, path in given.items() if not path.is_file()]  # fmt: skip
    for setting, path in given.items():
        if path.is_file() and path.stat().st_size <= _LOOKED_INTO:  # larger ones are read once, by the data stage
            with collecting(problems):
                (read_lists if setting == "evaluate.protocol.candidates" else read_scores)(path)
    return problems


def source_stamp(data: DataConfig) -> dict[str, str | int | None]:
    """Return what identifies the sources: logs by content, images by name, size and time; None = absent."""
    stamp: dict[str, str | int | None] = {"title_rules": RULES_VERSION}
    for role, found in source_files(data.source).items():
        stamp[role] = found if isinstance(found, str) else _stamp(found)
    if data.users is not None:
        stamp["users"] = _stamp(data.users.path)
    if not draws_images(data.source):
        # By name, size and time: for their content, every image would be read before each run.
        stamp["images"] = _stamp(data.images.folder, content_limit=0)
    return stamp


def protocol_stamp(protocol: ProtocolConfig, train: NegativesConfig) -> dict[str, object]:
    """Return what identifies the files that decide candidates: candidate lists, scores; None = absent."""
    scores = [_stamp(negatives.scores) for negatives in (train, protocol.negatives)]
    return {"candidates": _stamp(protocol.candidates), "scores": scores}


def _stamp(path: Path | None, **limit: int) -> str | None:
    return path_stamp(path, **limit) if path is not None and path.exists() else None


def _check_images(data: DataConfig) -> list[Problem]:
    images = data.images
    if draws_images(data.source):
        return []
    if images.folder is None:
        if images.missing != "error" or may_hold_images(data.source):
            return []
        step = "Set data.images.folder, or data.images.missing to text-only or placeholder"
        return [Problem("", "data.images.folder", "not given", "data.images.missing: error wants images", step)]
    if not images.folder.is_dir():
        step = "Correct data.images.folder, fill it with `msr fetch-images`, or remove it to go on without images"
        return [
            Problem(
                str(images.folder),
                "data.images.folder",
                absent(images.folder, "folder"),
                "a folder of {item}.jpg",
                step,
            )
        ]
    return []
