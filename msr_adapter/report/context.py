"""What the pipeline knows and the report wants to tell."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ReportContext:
    """Only ``name`` is needed; whatever is absent is left out of the report."""

    name: str
    """The pipeline's."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The resolved pipeline, JSON-able."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Library -> version."""
    manifests: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Stage -> its manifest, JSON-able."""
    history: Path | None = None
    """LLaMA-Factory's `trainer_log.jsonl`."""
    items_dir: Path | None = None
    """Folder with the item summaries, `items.parquet`."""
    users_dir: Path | None = None
    """Folder with the user summaries, `users.parquet`, and how they grew, `steps.parquet`."""
    user_summaries_dir: Path | None = None
    """Folder whose `users.parquet` has the texts that prompts show, where these were shortened; else ``users_dir``."""
    templates: Path | None = None
    """A folder searched for `report.html.j2` before the bundled one."""
