"""The stages, in order: all that is known of each. This is the one file that knows the order.

A new stage is a row of `STAGES`, a function in `stage_functions`, what counts for it in `fingerprints`, and a package.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import PipelineConfig
from msr_adapter.evaluate.baselines.catalogue import row_of, to_fit
from msr_adapter.evaluate.table_retrieval import embeds, is_of_the_table
from msr_adapter.pipeline import fingerprints as counts
from msr_adapter.pipeline import stage_functions as functions
from msr_adapter.pipeline.embedding_stage import run_embed
from msr_adapter.pipeline.mining_stage import run_mine
from msr_adapter.pipeline.stage_context import Context, is_truncating, weighs_trained


@dataclass(frozen=True)
class Stage:
    """One stage; ``version`` rises when its output changes for equal inputs."""

    name: str
    """Of the folder, and on the command line."""
    label: str
    """What the report calls it."""
    product: tuple[str, str]
    """What it makes, in words, and the file that holds it: what a finished command points to."""
    version: int
    inputs: tuple[str, ...]
    """The stages that it reads."""
    outputs: tuple[str, ...]
    """What later stages depend on; equal outputs leave them up to date."""
    config: Callable[[PipelineConfig], object]
    """Its part of the config, JSON-able: see `fingerprints`."""
    run: Callable[[Context], dict[str, Any]]
    """Fills the stage's folder and returns counts for its manifest."""
    part: Callable[[Path], str | None] | None = None
    """Digest of what counts of an output for stages that do not show all of it; None = nothing of it. Without this
    function, all of every output counts."""
    shows_all_of: tuple[str, ...] = ()
    """Inputs of which all counts, also what other stages are not made of."""
    sources: Callable[[PipelineConfig], object] = counts.no_sources
    """What it reads that no stage made, by content."""
    templates: Callable[[PipelineConfig], tuple[str, ...]] = lambda _: ()
    """The templates that it renders under this pipeline."""
    needed: Callable[[PipelineConfig], bool] = lambda _: True
    spared: Callable[[PipelineConfig], tuple[str, ...]] = lambda _: ()
    """Inputs that this pipeline can do without: they count where they are, and are not made for this stage."""
    prompts_retrieved: bool = False
    """Whether it asks about what was retrieved: what that takes is only known, and said, once it is."""
    over_trainings: bool = False
    """Whether it reads the scores of every training (`train.repeats`), which are made before it."""
    costly: bool = False
    """Whether what it made is kept when something else takes its place, and found again when its settings return."""


def _always(*names: str) -> Callable[[PipelineConfig], tuple[str, ...]]:
    return lambda _: names


def _items_templates(p: PipelineConfig) -> tuple[str, ...]:
    if p.summarize.items.mode == "fusion":
        return ("item_text", "item_image", "item_fusion")
    return ("item_summary",) if p.summarize.items.mode == "image" else ()


def _served(p: PipelineConfig) -> tuple[str, ...]:
    """Return what a served model stands in for: the training is not done here for its sake."""
    return ("train",) if p.evaluate.scorer else ()


def _embedded_by_another(p: PipelineConfig) -> tuple[str, ...]:
    """Return the training, where another model than the run's embeds, or nothing is embedded."""
    return () if p.embedding.own and embeds(p.evaluate.full, p.fusion) else ("train",)


def _retrieved_unfitted(p: PipelineConfig) -> tuple[str, ...]:
    """Return the fitting, where what retrieves needs none."""
    full = p.evaluate.full
    return ("baselines",) if full and (is_of_the_table(full) or row_of(full.retriever).fitting is None) else ()


STAGES: tuple[Stage, ...] = (
    Stage(
        "mine", "Scores by an earlier run", ("scores by an earlier run", "mined.parquet"), 1,
        inputs=(),
        outputs=("mined.parquet",),
        config=counts.mine_config, sources=counts.mine_sources, run=run_mine,
        needed=lambda p: p.train.negatives.mines,
        costly=True,
    ),
    Stage(
        "data", "Build data", ("audit", "audit.json"), 12,
        inputs=("mine",),
        outputs=("items.parquet", "interactions.parquet", "seen.parquet", "offered.parquet", "examples.parquet",
                 "earlier.parquet", "candidates.parquet", "truth.parquet", "audit.json"),
        part=counts.data_part,
        config=counts.data_config, sources=counts.data_sources, run=functions.run_data,
    ),
    Stage(
        "lengths", "Length estimate", ("estimate of the row lengths", "lengths.json"), 2,
        inputs=("data",),
        outputs=("lengths.json",),
        templates=_always("recommend", "history"),
        config=counts.lengths_config, sources=counts.model_sources, run=functions.run_lengths,
    ),
    Stage(
        "items", "Item summaries", ("item summaries", "items.parquet"), 4,
        inputs=("data",),
        outputs=("items.parquet",),
        templates=_items_templates,
        config=counts.items_config, sources=counts.items_sources, run=functions.run_items,
        costly=True,
    ),
    Stage(
        "users", "User summaries", ("user summaries", "users.parquet"), 5,
        inputs=("data", "items"),
        outputs=("users.parquet",),
        templates=_always("user_summary", "history"),
        config=counts.users_config, sources=counts.users_sources, run=functions.run_users,
        costly=True,
    ),
    Stage(
        "truncate", "Truncated user summaries", ("truncated user summaries", "truncated.parquet"), 2,
        inputs=("data", "items", "users"),
        outputs=("users.parquet",),
        templates=_always("recommend", "history"),
        config=counts.truncate_config, sources=counts.train_sources, run=functions.run_truncate,
        needed=is_truncating,
    ),
    Stage(
        "dataset", "Training rows", ("LLaMA-Factory dataset", "dataset_info.json"), 2,
        inputs=("data", "lengths", "users", "truncate"),
        outputs=("dataset_info.json", "msr_train", "msr_validation"),
        templates=_always("recommend"),
        config=counts.dataset_config, run=functions.run_dataset,
    ),
    Stage(
        "train", "Training", ("trained model", "model"), 1,
        inputs=("data", "dataset"),
        outputs=("model/*.safetensors",),
        config=counts.train_config, sources=counts.train_sources, run=functions.run_train,
        costly=True,
    ),
    Stage(
        "score", "Scores, trained", ("scores", "scores.parquet"), 2,
        inputs=("data", "users", "truncate", "train"),
        outputs=("scores.parquet",),
        templates=_always("recommend"),
        config=counts.score_config, sources=counts.start_sources, run=functions.run_score,
        spared=_served,
        costly=True,
    ),
    Stage(
        "score-base", "Scores, base", ("scores", "scores.parquet"), 2,
        inputs=("data", "users", "truncate"),
        outputs=("scores.parquet",),
        templates=_always("recommend"),
        config=counts.base_config, sources=counts.train_sources, run=functions.run_score_base,
        needed=lambda p: "base" in p.evaluate.baselines,
        costly=True,
    ),
    Stage(
        "score-validation", "Scores of validation users, trained", ("scores", "scores.parquet"), 1,
        inputs=("data", "users", "truncate", "train"),
        outputs=("scores.parquet",),
        templates=_always("recommend"),
        config=counts.validation_config, sources=counts.start_sources, run=functions.run_score_validation,
        needed=weighs_trained,
        spared=_served,
        costly=True,
    ),
    Stage(
        "baselines", "Baselines", ("baseline scores", "manifest.json"), 4,
        inputs=("data",),
        outputs=("*.parquet", "tuning.json"),
        config=counts.baselines_config, run=functions.run_baselines,
        needed=lambda p: bool(to_fit(p.evaluate)),
        costly=True,
    ),
    Stage(
        "embed", "Embeddings", ("embeddings", "items.parquet"), 1,
        inputs=("data", "items", "users", "train"),
        outputs=("items.parquet", "users.parquet"),
        config=counts.embed_config, sources=counts.embed_sources, run=run_embed,
        needed=lambda p: embeds(p.evaluate.full, p.fusion),
        spared=_embedded_by_another,
    ),
    Stage(
        "retrieve", "Retrieval", ("retrieved items", "candidates.parquet"), 2,
        inputs=("data", "baselines", "embed"),
        outputs=("candidates.parquet",),
        config=counts.retrieve_config, run=functions.run_retrieve,
        needed=lambda p: p.evaluate.full is not None,
        spared=_retrieved_unfitted,
    ),
    Stage(
        "rerank", "Scores of retrieved items, trained", ("scores", "scores.parquet"), 1,
        inputs=("data", "users", "truncate", "train", "retrieve"),
        outputs=("scores.parquet",),
        templates=_always("recommend"),
        config=counts.score_config, sources=counts.start_sources, run=functions.run_rerank,
        needed=lambda p: p.evaluate.full is not None,
        spared=_served,
        prompts_retrieved=True,
        costly=True,
    ),
    Stage(
        "rerank-base", "Scores of retrieved items, base", ("scores", "scores.parquet"), 1,
        inputs=("data", "users", "truncate", "retrieve"),
        outputs=("scores.parquet",),
        templates=_always("recommend"),
        config=counts.base_config, sources=counts.train_sources, run=functions.run_rerank_base,
        needed=lambda p: p.evaluate.full is not None and p.evaluate.full.base,
        prompts_retrieved=True,
        costly=True,
    ),
    Stage(
        "evaluate", "Evaluation", ("report", "report.html"), 8,
        inputs=("data", "items", "users", "truncate", "train", "score", "score-base", "score-validation", "baselines",
                "embed", "retrieve", "rerank", "rerank-base"),
        outputs=("metrics.json", "per_user.parquet", "full_per_user.parquet", "candidate_scores.parquet",
                 "hybrid.json", "report.html"),
        shows_all_of=("data",),
        templates=_always("report.html"),
        config=counts.evaluate_config, sources=counts.evaluate_sources, run=functions.run_evaluate,
        spared=_served,
        over_trainings=True,
    ),
)  # fmt: skip

STAGE_NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)

COSTLY: tuple[str, ...] = tuple(stage.name for stage in STAGES if stage.costly)
"""Stages whose makings are kept."""

LABELS: dict[str, str] = {stage.name: stage.label for stage in STAGES}
"""Stage -> what the report calls it."""

WHOLE: tuple[str, ...] = ("evaluate",)
"""What `msr run` asks for: all stages come before it, but those that the pipeline can do without."""
