"""Paths that `datasets` takes for patterns, read as they are; run by path in the trainers, nothing of ours is imported.

LLaMA-Factory hands the files of a data set to `datasets.load_dataset`, which expands `[`, `*`, `?` and `$NAME` in the
whole path: in a run folder `run [v2]` it finds no file, or those of another run.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any


def install() -> None:
    """Let `datasets` take a path that a file has for that file, in this process for good."""
    from datasets import data_files
    from datasets.utils import file_utils

    if not hasattr(data_files.resolve_pattern, "known"):
        data_files.resolve_pattern = _literal(data_files.resolve_pattern, lambda path: [path])
        file_utils.relative_to_absolute_path = _literal(file_utils.relative_to_absolute_path, lambda path: path)


@contextlib.contextmanager
def literal_paths() -> Iterator[None]:
    """Do what `install` does, while the context lasts."""
    from datasets import data_files
    from datasets.utils import file_utils

    before = data_files.resolve_pattern, file_utils.relative_to_absolute_path
    install()
    try:
        yield
    finally:
        data_files.resolve_pattern, file_utils.relative_to_absolute_path = before


def _literal(known: Callable[..., Any], answer: Callable[[str], Any]) -> Callable[..., Any]:
    """Return ``known``, but for an absolute path that a file has, which gets its own ``answer``."""

    # Not escaped: for `[[]` its library lists everything below the folder above the first bracket.
    def literal(path: Any, *arguments: Any, **named: Any) -> Any:
        if isinstance(path, str) and os.path.isabs(path) and os.path.isfile(path):  # noqa: PTH113, PTH117 - as written
            return answer(path)
        return known(path, *arguments, **named)

    literal.known = known  # type: ignore[attr-defined]
    return literal
