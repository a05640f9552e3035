"""One experiment."""

from pathlib import Path

from pydantic import Field, model_validator

from msr_adapter.config.schema.base import Seed, StrictModel, allowed
from msr_adapter.config.schema.data import DataConfig, SplitConfig
from msr_adapter.config.schema.embedding import EmbeddingConfig, FusionConfig
from msr_adapter.config.schema.evaluate import EvaluateConfig
from msr_adapter.config.schema.execution import ExecutionConfig
from msr_adapter.config.schema.summarize import SummarizeConfig
from msr_adapter.config.schema.tracking import TrackingConfig
from msr_adapter.config.schema.train import TrainConfig


class PipelineConfig(StrictModel):
    """One experiment."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=200,
        json_schema_extra=allowed("up to 200 letters, digits, dots, dashes and underscores, a letter or digit first"),
    )
    """Default: the file's name."""
    seed: Seed = 0
    """Decides every draw: users, splits, candidates, order of training rows, sign patterns of tests."""
    run_dir: Path | None = None
    """Default: `runs/<name>` under the working directory."""
    cache: Path | None = None
    """File that keeps every summary and score by request; several pipelines may share one. Default: in `run_dir`."""
    templates: Path | None = Field(None, json_schema_extra=allowed("a folder, a bundled folder's name, or null"))
    """Searched before the bundled templates."""
    data: DataConfig
    """Where the log comes from and what is kept of it."""
    split: SplitConfig = SplitConfig()
    """Who is trained on and who is tested on."""
    summarize: SummarizeConfig
    """Moves 1 and 2: image -> text, history -> text."""
    train: TrainConfig
    """Move 3: fine-tuning the recommender."""
    evaluate: EvaluateConfig
    """How the trained model is judged."""
    embedding: EmbeddingConfig = EmbeddingConfig()
    """Items and users as vectors, for retrieval by content."""
    fusion: FusionConfig = FusionConfig()
    """What the retriever `fused` is made of."""
    execution: ExecutionConfig = ExecutionConfig()
    """Where summaries and scores are computed: in this process, in several, on a Ray cluster."""
    tracking: TrackingConfig | None = Field(None, discriminator="kind")
    """An experiment tracker that settings, curves, metrics and the report are sent to (docs/tracking.md)."""

    @property
    def history_step(self) -> int:
        """By how many items the beginning of a cut history moves."""
        return self.summarize.users.block if self.split.history_window == "blocks" else 1

    @model_validator(mode="after")
    def _a_block_fits_the_history(self) -> "PipelineConfig":
        longest, block = self.split.max_history, self.summarize.users.block
        if self.history_step > longest:
            raise ValueError(f"split.history_window: blocks moves by summarize.users.block ({block}) items, of which a "
                             f"history has split.max_history ({longest}); expected a max_history of {block} or more, "
                             "or history_window: items")  # fmt: skip
        return self

    @model_validator(mode="after")
    def _negatives_fit_the_repeats(self) -> "PipelineConfig":
        """Settle what `exclude: null` stands for, so that whatever shows the protocol shows it."""
        repeats, protocol = self.data.repeats, self.evaluate.protocol
        protocol = protocol.model_copy(update={"negatives": protocol.negatives.settled(repeats)})
        # A frozen model cannot be assigned to, and a validator must return the very object that it was given.
        settled = {
            "train": self.train.model_copy(update={"negatives": self.train.negatives.settled(repeats)}),
            "evaluate": self.evaluate.model_copy(update={"protocol": protocol}),
        }
        self.__dict__.update(settled)
        return self
