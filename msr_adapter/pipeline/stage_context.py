"""What a stage function is given: the pipeline, its prompts, the folders, the job, the cache and the backends."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import ModelConfig, PipelineConfig
from msr_adapter.generation import Backend, CompletionCache
from msr_adapter.llamafactory.model_weights import BASE, Weights
from msr_adapter.llamafactory.token_counts import AnswerCutter
from msr_adapter.pipeline.run_folder import Manifest, RunFolder
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts, Wording
from msr_adapter.prompts.attributes import KnownAttributes
from msr_adapter.stage_arguments import Job, StageDirs

OWN_CACHE = Path("cache", "completions.sqlite")
"""Where a run folder keeps its completions."""


def cache_path(pipeline: PipelineConfig, folder: RunFolder) -> Path:
    """Return where completions are kept: in the pipeline's file, or in the run's own."""
    return pipeline.cache or folder.root / OWN_CACHE


def prompts_of(pipeline: PipelineConfig, question: str | None = None) -> Prompts:
    """Return the pipeline's prompts, with what it says of its items and of how long a summary may be."""
    summaries = pipeline.summarize
    budgets = dict.fromkeys(("item_summary", "item_text", "item_image", "item_fusion"), summaries.items.max_new_tokens)
    budgets["user_summary"] = summaries.users.max_new_tokens
    wording = Wording(summaries.noun, summaries.language or "", budgets)
    train = pipeline.train
    cut = AnswerCutter(train.model, train.text_answer.max_tokens) if train.asks_text else None
    recent = train.history_images if train.images else 0
    return Prompts(pipeline.templates, wording, question=question or train.template, cut=cut, recent=recent)


def known_attributes(pipeline: PipelineConfig, data: Manifest | None = None) -> KnownAttributes:
    """Return the attributes that templates may say: their types as the data stage found them, else as configured."""
    items, users = pipeline.data.items, pipeline.data.users
    found = data.summary.get("attributes", {}) if data else {}
    kinds: list[dict[str, str | None]] = []
    missing = set()
    for owner, config in (("item", items), ("user", users)):
        names = config.attributes if config else {}
        facts = found.get(owner, {})
        types: Mapping[str, str] = config.types if config else {}
        kinds.append({name: facts[name]["type"] if name in facts else types.get(name) for name in names})
        missing |= {f"{owner}.{name}" for name, one in facts.items() if one["missing"]}
    return KnownAttributes(kinds[0], kinds[1], frozenset(missing))


def is_truncating(pipeline: PipelineConfig) -> bool:
    """Return whether user summaries are cut where a row would be longer than `train.cutoff_len`."""
    return pipeline.train.too_long == "truncate"


def weighs_trained(pipeline: PipelineConfig) -> bool:
    """Return whether a hybrid weighs the trained model, which is asked about validation users for it."""
    hybrid = pipeline.evaluate.hybrid
    return hybrid is not None and "trained" in hybrid.of


def stage_dirs(pipeline: PipelineConfig, folder: RunFolder) -> StageDirs:
    """Return the folders of a run's stages; `user_summaries` has the texts that all prompts show."""
    data, items, users, dataset, train = map(folder.stage, ("data", "items", "users", "dataset", "train"))
    user_summaries = folder.stage("truncate") if is_truncating(pipeline) else users
    return StageDirs(data, data, items, users, user_summaries, dataset, train)


@dataclass(frozen=True)
class Context:
    """One stage of one run; it writes into ``out`` and reads the folders of upstream stages."""

    pipeline: PipelineConfig
    resolved: Mapping[str, Any]
    folder: RunFolder
    prompts: Prompts
    out: Path
    reporter: Reporter
    labels: Mapping[str, str] = field(default_factory=dict)
    """Stage -> what the report calls it."""
    data: Path | None = None
    """Another folder of data than the run's: one that has items which came later."""

    def dir(self, stage: str) -> Path:
        """Folder of an upstream stage."""
        return self.folder.stage(stage)

    @cached_property
    def dirs(self) -> StageDirs:
        """Folders of the run's stages."""
        dirs = stage_dirs(self.pipeline, self.folder)
        return dirs if self.data is None else replace(dirs, data=self.data, examples=self.data)

    @property
    def job(self) -> Job:
        """Where the stage writes, how it reports, and the pipeline's seed."""
        return Job(self.out, self.reporter, self.pipeline.seed)

    @property
    def cache_path(self) -> Path:
        """File of the completion cache: the pipeline's, or the run's own."""
        return cache_path(self.pipeline, self.folder)

    def cache(self) -> CompletionCache:
        """Open the completion cache."""
        return CompletionCache(self.cache_path, note=self.reporter.note)

    def backend(self, model: ModelConfig, weights: Weights = BASE) -> AbstractContextManager[Backend]:
        """Return a context that yields the backend of ``model`` with the trained ``weights``, run as `execution` says.

        What a stage asks it through `cache` is spread over the workers, which end with the context.
        """
        from msr_adapter.distributed import open_backend

        logs = self.folder.root / "logs"
        return open_backend(self.pipeline.execution, model, logs, self.reporter.note, weights)
