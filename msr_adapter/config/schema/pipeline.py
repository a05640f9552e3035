"""One experiment."""

from pathlib import Path

from pydantic import Field

from msr_adapter.config.schema.base import Model, allowed
from msr_adapter.config.schema.data import Data, Split
from msr_adapter.config.schema.evaluate import Evaluate
from msr_adapter.config.schema.execution import Execution
from msr_adapter.config.schema.summarize import Summarize
from msr_adapter.config.schema.train import Train


class Pipeline(Model):
    """One experiment."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        json_schema_extra=allowed("letters, digits, dots, dashes and underscores, a letter or digit first"),
    )
    """Default: the file's name."""
    seed: int = Field(0, ge=0)
    """Decides every draw: users, splits, candidates, order of training rows, bootstrap."""
    run_dir: Path | None = None
    """Default: `runs/<name>` under the working directory."""
    cache: Path | None = None
    """File that keeps every summary and score by request; several pipelines may share one. Default: in `run_dir`."""
    templates: Path | None = Field(None, json_schema_extra=allowed("a folder, a bundled folder's name, or null"))
    """Searched before the bundled templates."""
    data: Data
    """Where the log comes from and what is kept of it."""
    split: Split = Split()
    """Who is trained on and who is tested on."""
    summarize: Summarize
    """Moves 1 and 2: image -> text, history -> text."""
    train: Train
    """Move 3: fine-tuning the recommender."""
    evaluate: Evaluate
    """How the trained model is judged."""
    execution: Execution = Execution()
    """Where summaries and scores are computed: in this process, in several, on a Ray cluster."""
