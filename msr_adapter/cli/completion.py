"""What the shell completes: names of pipelines, runs and stages, and paths. Asked at every Tab: nothing heavy here."""

from collections.abc import Callable, Iterator
from pathlib import Path

STAGES = (
    "mine", "data", "lengths", "items", "users", "truncate", "dataset", "train", "score", "score-base",
    "score-validation", "baselines", "embed", "retrieve", "rerank", "rerank-base", "evaluate",
)  # fmt: skip
"""The stages in their order, as `pipeline.stages` has them, which takes seconds to import."""
_YAML = (".yaml", ".yml")


def complete_pipeline(incomplete: str) -> list[str]:
    """Return bundled pipelines, YAML files and folders that begin so."""
    from msr_adapter.config.bundled import bundled_files

    names = [file.name for file in bundled_files("pipelines")]
    return [*_beginning(names, incomplete), *_paths(incomplete, lambda path: path.suffix in _YAML)]


def complete_run(incomplete: str) -> list[str]:
    """Return runs under `runs/`, bundled pipelines, and paths of YAML files and folders that begin so."""
    from msr_adapter.run_folder_mark import is_run

    runs = Path("runs")
    try:
        names = sorted(path.name for path in runs.iterdir() if path.is_dir() and is_run(path))
    except OSError:
        names = []
    return list(dict.fromkeys([*_beginning(names, incomplete), *complete_pipeline(incomplete)]))


def complete_stage(incomplete: str) -> list[str]:
    """Return the stages that begin so."""
    return _beginning(STAGES, incomplete)


def _beginning(names: list[str] | tuple[str, ...], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str, is_wanted: Callable[[Path], bool]) -> Iterator[str]:
    """Yield folders, with a slash behind them, and the files wanted."""
    head, slash, start = incomplete.rpartition("/")
    try:
        found = sorted(Path(head + slash or ".").iterdir())
    except OSError:
        return
    for path in found:
        if not path.name.startswith(start) or (path.name.startswith(".") and not start):
            continue
        if path.is_dir():
            yield f"{head}{slash}{path.name}/"
        elif is_wanted(path):
            yield f"{head}{slash}{path.name}"
