"""The stages, in order: what each reads, what its fingerprint covers, and the function that runs it.

This is the one file that knows the order. Stage packages are imported when a stage runs, so that planning stays fast.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from msr_adapter.config.schema import ModelConfig, PipelineConfig
from msr_adapter.errors import UserError
from msr_adapter.evaluate.baselines.catalogue import chosen
from msr_adapter.files import path_stamp
from msr_adapter.generation import Backend
from msr_adapter.jobs import Job
from msr_adapter.llamafactory.objectives import objective_of
from msr_adapter.llamafactory.weights import BASE, model_stamp, starting_weights, trained_weights
from msr_adapter.pipeline.context import Context
from msr_adapter.pipeline.ignored_keys import counted


@dataclass(frozen=True)
class Stage:
    """One stage; ``version`` rises when its output changes for equal inputs."""

    name: str
    version: int
    inputs: tuple[str, ...]
    templates: tuple[str, ...] | Callable[[PipelineConfig], tuple[str, ...]]
    outputs: tuple[str, ...]
    """What later stages depend on; equal outputs leave them up to date."""
    config: Callable[[PipelineConfig], Any]
    sources: Callable[[PipelineConfig], Any]
    run: Callable[[Context], dict[str, Any]]
    needed: Callable[[PipelineConfig], bool] = lambda _: True
    spared: Callable[[PipelineConfig], tuple[str, ...]] = lambda _: ()
    """Inputs that this pipeline can do without: they count where they are, and are not made for this stage."""

    def templates_of(self, pipeline: PipelineConfig) -> tuple[str, ...]:
        """Return the templates that the stage renders under this pipeline."""
        return self.templates(pipeline) if callable(self.templates) else self.templates


def _model(p: PipelineConfig, role: str) -> Any:
    """Return what of the model at the key ``role`` counts; its adapter does by content, in the stage's sources."""
    return counted(p, role, "adapter")


def _stamp(model: ModelConfig) -> Any:
    """Identify the weights; a server's are not ours to see."""
    return None if model.backend_row.remote else model_stamp(model)


def _no_sources(_: PipelineConfig) -> None:
    return None


def _data_config(p: PipelineConfig) -> Any:
    protocol = p.evaluate.protocol.model_dump(mode="json", include={"target", "negatives", "candidates"})
    negatives = p.train.negatives.model_dump(mode="json")
    return [p.data.model_dump(mode="json"), p.split.model_dump(mode="json"), protocol, negatives, p.seed]


def _data_sources(p: PipelineConfig) -> Any:
    from msr_adapter.data import protocol_stamp, source_stamp

    return [source_stamp(p.data), protocol_stamp(p.evaluate.protocol, p.train.negatives)]


def _run_data(c: Context) -> dict[str, Any]:
    from msr_adapter.data import BuildInputs, build

    p = c.pipeline
    inputs = BuildInputs(p.data, p.split, p.evaluate.protocol, p.train.negatives)
    return {**build(inputs, Job(c.out, c.reporter, p.seed), c.folder.root / "cache" / "images")}


def _lengths_config(p: PipelineConfig) -> Any:
    items, users = p.summarize.items, p.summarize.users
    texts = [items.mode, items.max_new_tokens, users.mode, users.max_new_tokens]
    return [p.train.images, p.train.cutoff_len, p.train.too_long, _model(p, "train.model"), texts, p.seed]


def _run_lengths(c: Context) -> dict[str, Any]:
    from msr_adapter.train import estimate_lengths

    return estimate_lengths(c.pipeline.train, c.pipeline.summarize, c.dirs, c.prompts, c.job)


def _items_config(p: PipelineConfig) -> Any:
    return ["none"] if p.summarize.items.mode == "none" else counted(p, "summarize.items", "model.adapter")


def _items_templates(p: PipelineConfig) -> tuple[str, ...]:
    if p.summarize.items.mode == "fusion":
        return ("item_text", "item_image", "item_fusion")
    return ("item_summary",) if p.summarize.items.mode == "image" else ()


def _items_sources(p: PipelineConfig) -> Any:
    return None if p.summarize.items.mode == "none" else _stamp(p.summarize.items.model)


def _run_items(c: Context) -> dict[str, Any]:
    from msr_adapter.summarize import summarize_items

    config = c.pipeline.summarize.items
    with c.cache() as cache, nullcontext() if config.mode == "none" else c.backend(config.model) as backend:
        return summarize_items(config, c.dir("data"), c.prompts, backend, cache, c.out, c.reporter)


def _users_config(p: PipelineConfig) -> Any:
    return ["none"] if p.summarize.users.mode == "none" else counted(p, "summarize.users", "model.adapter")


def _users_sources(p: PipelineConfig) -> Any:
    return None if p.summarize.users.mode == "none" else _stamp(p.summarize.users.model)


def _run_users(c: Context) -> dict[str, Any]:
    from msr_adapter.summarize import summarize_users

    config = c.pipeline.summarize.users
    with c.cache() as cache, nullcontext() if config.mode == "none" else c.backend(config.model) as backend:
        return summarize_users(config, c.dir("data"), c.dir("items"), c.prompts, backend, cache, c.out, c.reporter)


def _truncates(p: PipelineConfig) -> bool:
    return p.train.too_long == "truncate"


def _truncate_config(p: PipelineConfig) -> Any:
    return [p.train.images, p.train.cutoff_len, _model(p, "train.model"), p.train.answers.trained]


def _run_truncate(c: Context) -> dict[str, Any]:
    from msr_adapter.summarize import read_histories, read_summaries
    from msr_adapter.train import UserTexts, truncate_summaries

    def histories(examples: Any) -> Any:
        return read_histories(examples, c.dir("data"), read_summaries(c.dir("items")))

    return truncate_summaries(c.pipeline.train, c.dirs, UserTexts(c.prompts, histories), c.job)


def _dataset_config(p: PipelineConfig) -> Any:
    return [p.train.images, p.train.rows, objective_of(p.train).shape, p.train.answers.trained, p.seed]


def _run_dataset(c: Context) -> dict[str, Any]:
    from msr_adapter.train import build_dataset

    return build_dataset(c.pipeline.train, c.dirs, c.prompts, c.job)


_ELSEWHERE = {
    "negatives": "the data stage draws them",
    "prompt": "the template counts",
    "start": "its weights count, not where they lie",
    "too_long": "the rows say it",
    "model.adapter": "its weights count, not where they lie",
}
"""Settings of the training that count by what comes of them."""


def _train_config(p: PipelineConfig) -> Any:
    # Answers choose the best checkpoint; else they are nowhere but in the rows.
    answers = () if p.train.keep == "best" else ("answers",)
    return [counted(p, "train", *_ELSEWHERE, *answers), p.seed]


def _model_sources(p: PipelineConfig) -> Any:
    return model_stamp(p.train.model)


def _train_sources(p: PipelineConfig) -> Any:
    """Identify what training starts from, which is also what `score-base` scores."""
    base, start = model_stamp(p.train.model), _start_sources(p)
    return [base, start] if start else base


def _start_sources(p: PipelineConfig) -> Any:
    if p.train.start is None:
        return None
    try:
        return starting_weights(p.train).stamps()
    except UserError:  # `check` says what is wrong with it
        return "absent"


def _run_train(c: Context) -> dict[str, Any]:
    from msr_adapter.pipeline.selecting import checkpoint_judge
    from msr_adapter.train import train

    judge = checkpoint_judge(c, c.user_summaries) if c.pipeline.train.keep == "best" else None
    return train(c.pipeline.train, c.dirs, c.job, c.folder.unfinished("train"), judge)


def _score_config(p: PipelineConfig) -> Any:
    if p.evaluate.scorer is None:
        return _base_config(p)
    return [*_base_config(p), _model(p, "evaluate.scorer")]


def _base_config(p: PipelineConfig) -> Any:
    return [p.train.images, _model(p, "train.model"), p.train.cutoff_len, p.train.answers.model_dump(mode="json")]


def _served(p: PipelineConfig) -> tuple[str, ...]:
    """Return what a served model stands in for: the training is not done here for its sake."""
    return ("train",) if p.evaluate.scorer else ()


def _run_score(c: Context) -> dict[str, Any]:
    return _score(c, make_scorer(c))


def _run_score_base(c: Context) -> dict[str, Any]:
    return _score(c, c.backend(c.pipeline.train.model, starting_weights(c.pipeline.train)))


def _score(c: Context, scorer: AbstractContextManager[Backend]) -> dict[str, Any]:
    from msr_adapter.score import score

    p = c.pipeline
    with c.cache() as cache, scorer as backend:
        return score(
            p.train, c.dir("data"), c.user_summaries, c.prompts, backend, cache, c.out, c.reporter, bounded_share(p)
        )


def make_scorer(c: Context) -> AbstractContextManager[Backend]:
    """Return what scores candidates: the trained model, where `execution` says, or the server that serves it."""
    from msr_adapter.backends import make_server_scorer

    p, trained = c.pipeline, c.dir("train")
    if p.evaluate.scorer is None:
        return c.backend(p.train.model, trained_weights(trained))
    # Weights that were trained here are part of what the server is taken for.
    weights = trained_weights(trained) if trained.exists() else BASE
    return nullcontext(make_server_scorer(p.evaluate.scorer, p.train.model, weights))


def bounded_share(p: PipelineConfig) -> float:
    """Return the largest share of candidates that may have a bound for a score; a model in memory has none."""
    scorer = p.evaluate.scorer
    return scorer.server.bounded_share if scorer is not None and scorer.server is not None else 0.0


def _baselines_config(p: PipelineConfig) -> Any:
    rows = chosen(p.evaluate, fitted=True)
    settings = [row.settings(p.evaluate).model_dump(mode="json") for row in rows if row.settings]
    return [[row.name for row in rows], settings, p.seed]


def _run_baselines(c: Context) -> dict[str, Any]:
    from msr_adapter.evaluate.baselines.fitting import fit_baselines

    return {**fit_baselines(c.pipeline.evaluate, c.dir("data"), c.job)}


def _evaluate_config(p: PipelineConfig) -> Any:
    return [p.name, p.evaluate.model_dump(mode="json", exclude={"scorer"}), p.seed]


def _evaluate_sources(p: PipelineConfig) -> Any:
    tables = (p.evaluate.tables.items, p.evaluate.tables.users)
    return [path_stamp(table) for table in tables if table is not None and table.exists()]


def _run_evaluate(c: Context) -> dict[str, Any]:
    from msr_adapter.pipeline.reporting import evaluate_run

    return evaluate_run(c)


_TABLES = ("items.parquet", "interactions.parquet", "examples.parquet", "candidates.parquet", "truth.parquet")

STAGES: tuple[Stage, ...] = (
    Stage("data", 4, (), (), (*_TABLES, "audit.json"), _data_config, _data_sources, _run_data),
    Stage(
        "lengths", 1, ("data",), ("recommend", "history"), ("lengths.json",),
        _lengths_config, _model_sources, _run_lengths,
    ),
    Stage("items", 3, ("data",), _items_templates, ("items.parquet",), _items_config, _items_sources, _run_items),
    Stage(
        "users", 4, ("data", "items"), ("user_summary", "history"), ("users.parquet",),
        _users_config, _users_sources, _run_users,
    ),
    Stage(
        "truncate", 1, ("data", "items", "users"), ("recommend", "history"), ("users.parquet",),
        _truncate_config, _train_sources, _run_truncate, _truncates,
    ),
    Stage(
        "dataset", 2, ("data", "lengths", "users", "truncate"), ("recommend",),
        ("dataset_info.json", "msr_train", "msr_validation"), _dataset_config, _no_sources, _run_dataset,
    ),
    Stage("train", 1, ("data", "dataset"), (), ("model/*.safetensors",), _train_config, _train_sources, _run_train),
    Stage(
        "score", 2, ("data", "users", "truncate", "train"), ("recommend",), ("scores.parquet",),
        _score_config, _start_sources, _run_score, spared=_served,
    ),
    Stage(
        "score-base", 2, ("data", "users", "truncate"), ("recommend",), ("scores.parquet",),
        _base_config, _train_sources, _run_score_base, lambda p: "base" in p.evaluate.baselines,
    ),
    Stage(
        "baselines", 1, ("data",), (), ("*.parquet",), _baselines_config, _no_sources, _run_baselines,
        lambda p: bool(chosen(p.evaluate, fitted=True)),
    ),
    Stage(
        "evaluate", 5, ("data", "items", "users", "truncate", "train", "score", "score-base", "baselines"),
        ("report.html",),
        ("metrics.json", "per_user.parquet", "candidate_scores.parquet", "report.html"),
        _evaluate_config, _evaluate_sources, _run_evaluate, spared=_served,
    ),
)  # fmt: skip

STAGE_NAMES: tuple[str, ...] = tuple(stage.name for stage in STAGES)

WHOLE: tuple[str, ...] = ("evaluate",)
"""What `msr run` asks for: all stages come before it, but those that the pipeline can do without."""
