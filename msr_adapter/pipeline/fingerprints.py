"""What of a pipeline counts for each stage: its part of the config, and the content of what it reads from outside.

Both go into the stage's fingerprint as digests, so that they only have to be JSON-able and differ where results may.
"""

from pathlib import Path
from typing import Any

from msr_adapter.config.schema import ModelConfig, PipelineConfig
from msr_adapter.errors import UserError
from msr_adapter.evaluate.baselines.catalogue import row_of, to_fit
from msr_adapter.evaluate.table_retrieval import compared, embeds, is_of_the_table
from msr_adapter.files import path_stamp
from msr_adapter.filesystem import home
from msr_adapter.integrity import content_of
from msr_adapter.llamafactory.model_weights import model_stamp, starting_weights
from msr_adapter.llamafactory.objectives import objective_of
from msr_adapter.pipeline.earlier_run import open_earlier
from msr_adapter.pipeline.ignored_keys import counted
from msr_adapter.pipeline.repeated_trainings import training_seed
from msr_adapter.schema import listed_digest

_ELSEWHERE = {
    "history_images": "the rows have them",
    "negatives": "the data stage draws them",
    "prompt": "the template counts",
    "start": "its weights count, not where they lie",
    "too_long": "the rows say it",
    "model.adapter": "its weights count, not where they lie",
}
"""Settings of the training that count by what comes of them."""
_CUT = {"max_tokens"}
_SCORED = _CUT | {"length", "end_of_turn", "alone_weight"}
"""Settings of an answer that is a text: what makes the text, and what makes a score of its likelihood."""
_TRAINER = "huggingface"
"""Who trains, counts tokens and judges checkpoints, whoever answers later."""


_MINED = {"run", "among", "retriever"}
"""Keys of mined negatives that count by what the earlier run's model says."""


def mine_config(p: PipelineConfig) -> object:
    """Return what counts for what an earlier run's model is asked about."""
    return p.train.negatives.model_dump(mode="json", include=_MINED - {"run"})


def data_config(p: PipelineConfig) -> object:
    """Return what counts for the data stage."""
    protocol = p.evaluate.protocol.model_dump(
        mode="json", include={"target", "negatives", "catalogue", "cold", "candidates"}
    )
    # Without the keys of mined negatives where there are none: what was built before there were any is up to date.
    mines, unmixed = p.train.negatives.mines, not p.train.negatives.mixture.mined
    beside: dict[str, Any] = dict.fromkeys(_MINED if mines else {*_MINED, "top"}, True)
    negatives = p.train.negatives.model_dump(mode="json", exclude=beside | ({"mixture": {"mined"}} if unmixed else {}))
    # Without the window's key where it says what has always been: what was built before there was one is up to date.
    blocks = p.split.history_window == "blocks"
    split = p.split.model_dump(mode="json", exclude=None if blocks else {"history_window"})
    return [p.data.model_dump(mode="json"), split, protocol, negatives, p.seed, *([p.history_step] if blocks else [])]


def lengths_config(p: PipelineConfig) -> object:
    """Return what counts for the estimate of the row lengths."""
    items, users = p.summarize.items, p.summarize.users
    texts = [items.mode, items.max_new_tokens, users.mode, users.max_new_tokens]
    return [_images(p), p.train.cutoff_len, p.train.too_long, _trained(p), texts, p.seed, *_text_question(p, _CUT)]


def _images(p: PipelineConfig) -> object:
    """Return which images prompts show; without those of the history, what was said before there could be any."""
    return [p.train.images, p.train.history_images] if p.train.history_images else p.train.images


def items_config(p: PipelineConfig) -> object:
    """Return what counts for item summaries."""
    return ["none"] if p.summarize.items.mode == "none" else counted(p, "summarize.items", "model.adapter")


def users_config(p: PipelineConfig) -> object:
    """Return what counts for user summaries."""
    return ["none"] if p.summarize.users.mode == "none" else counted(p, "summarize.users", "model.adapter")


def truncate_config(p: PipelineConfig) -> object:
    """Return what counts for truncated user summaries."""
    return [_images(p), p.train.cutoff_len, _trained(p), *(_text_question(p, _CUT) or [p.train.answers.trained])]


def dataset_config(p: PipelineConfig) -> object:
    """Return what counts for the training rows."""
    asked = [*_text_question(p, _CUT | {"without_evidence"}), model_stamp(p.train.model)]
    answers = asked if p.train.asks_text else p.train.answers.trained
    return [_images(p), p.train.rows, objective_of(p.train).shape, answers, p.seed]


def train_config(p: PipelineConfig) -> object:
    """Return what counts for the training."""
    # Answers choose the best checkpoint; else they are nowhere but in the rows.
    best = p.train.keep == "best"
    answers = () if best and not p.train.asks_text else ("answers",)
    texts = () if best and p.train.asks_text else ("question", "text_answer")
    found = counted(p, "train", "seed", "repeats", *_ELSEWHERE, *answers, *texts)
    found["model"] = _whoever_answers(p, found["model"])
    seed = training_seed(p)
    # The pipeline's draws the validation users that checkpoints are judged on.
    return [found, seed] if not best or seed == p.seed else [found, seed, p.seed]


def base_config(p: PipelineConfig) -> list[object]:
    """Return what counts for the scores of the model before training."""
    asked = _text_question(p, _SCORED) or [p.train.answers.model_dump(mode="json")]
    return [_images(p), _model(p, "train.model"), p.train.cutoff_len, *asked]


def score_config(p: PipelineConfig) -> object:
    """Return what counts for the scores of the trained model."""
    return base_config(p) if p.evaluate.scorer is None else [*base_config(p), _model(p, "evaluate.scorer")]


def validation_config(p: PipelineConfig) -> object:
    """Return what counts for the scores of validation users, which a hybrid weighs."""
    hybrid = p.evaluate.hybrid
    return [score_config(p), hybrid and hybrid.users, p.seed]


def baselines_config(p: PipelineConfig) -> object:
    """Return what counts for the fitted baselines."""
    rows = to_fit(p.evaluate)
    fittings = [row.fitting for row in rows if row.fitting]
    settings = [fitting.settings(p.evaluate).model_dump(mode="json") for fitting in fittings]
    grids = [fitting.grid(p.evaluate).model_dump(mode="json") for fitting in fittings] if p.evaluate.tune else "none"
    full = p.evaluate.full
    retrieves = full and not is_of_the_table(full) and row_of(full.retriever).fitting
    retrieval = [full.retriever, full.top] if full and retrieves else "none"
    # Whether repeats are kept is read from the audit, which says so much more that it does not count.
    return [[row.name for row in rows], settings, grids, retrieval, _excluded(p), p.data.repeats, p.seed]


def retrieve_config(p: PipelineConfig) -> object:
    """Return what counts for what is retrieved; the settings of what is fitted do by what the baselines stage found."""
    full, names = p.evaluate.full, compared(p.evaluate.full, p.fusion)
    content = [p.embedding.users, p.embedding.search] if embeds(full, p.fusion) else "none"
    fusion = p.fusion.model_dump(mode="json") if "fused" in names else "none"
    return [full and [full.retriever, full.top], _excluded(p), p.data.repeats, names, content, fusion]


def embed_config(p: PipelineConfig) -> object:
    """Return what counts for the vectors of the catalogue and the test users."""
    found = counted(p, "embedding", "search")
    return [found, p.train.images, _model(p, "train.model"), p.train.cutoff_len] if p.embedding.own else found


def embed_sources(p: PipelineConfig) -> object:
    """Identify the model that embeds; of the run's own, what was trained here is the train stage's."""
    if p.embedding.own:
        return [model_stamp(p.train.model), start_sources(p)]
    folder = home(p.embedding.model)
    return path_stamp(folder) if folder.is_dir() else [p.embedding.model, p.embedding.revision]


def _excluded(p: PipelineConfig) -> object:
    """Return what no ranking of the whole catalogue has."""
    return p.evaluate.protocol.negatives.exclude


def evaluate_config(p: PipelineConfig) -> object:
    """Return what counts for the evaluation."""
    # How often each retriever finds the target is shown, and nothing else depends on it.
    retrieval = [retrieve_config(p)] if p.evaluate.full else []
    repeats = [{"repeats": p.train.repeats}] if p.train.repeats > 1 else []
    return [p.name, p.evaluate.model_dump(mode="json", exclude={"scorer"}), p.seed, *retrieval, *repeats]


def _text_question(p: PipelineConfig, keys: set[str]) -> list[object]:
    """Return what counts of a question that a text answers, its settings ``keys`` among it; nothing for yes-no."""
    return [p.train.question, p.train.text_answer.model_dump(mode="json", include=keys)] if p.train.asks_text else []


def _trained(p: PipelineConfig) -> object:
    """Return what of the recommender's model counts before it answers anything."""
    return _whoever_answers(p, _model(p, "train.model"))


def _whoever_answers(p: PipelineConfig, model: Any) -> Any:
    """Return what counts of the recommender's model where it is no matter which engine will score with it."""
    # The name that has always stood here, so that what was trained before there were others stays up to date.
    return {**model, "backend": _TRAINER} if p.train.model.backend_row.local else model


def _model(p: PipelineConfig, role: str) -> Any:
    """Return what of the model at the key ``role`` counts; its adapter does by content, among the sources."""
    return counted(p, role, "adapter")


# Outputs: what counts of them.


def data_part(path: Path) -> str | None:
    """Return the digest of what runs are made of: of the items those that lists may have, and nothing of the audit.

    So items that nobody interacted with yet, and what is said of them, leave every model and score as they are.
    """
    if path.name == "audit.json":
        return None
    return listed_digest(path) if path.name == "items.parquet" else content_of(path)


# Sources: files that no stage made, by content.


def no_sources(_: PipelineConfig) -> object:
    """Stand for a stage that reads nothing but what stages made."""
    return None


def mine_sources(p: PipelineConfig) -> object:
    """Identify the earlier run's trained model, and what it is asked about: its users, their summaries, its items."""
    if p.train.negatives.run is None:
        return None
    try:
        earlier = open_earlier(p.train.negatives.run)
        return [earlier.identity(), base_config(earlier.pipeline), model_stamp(earlier.pipeline.train.model)]
    except UserError:  # `check` says what is wrong with it
        return "absent"


def data_sources(p: PipelineConfig) -> object:
    """Identify the log, the items, the images and what a protocol reads."""
    from msr_adapter.data import protocol_stamp, source_stamp

    return [source_stamp(p.data), protocol_stamp(p.evaluate.protocol, p.train.negatives)]


def model_sources(p: PipelineConfig) -> object:
    """Identify the recommender's base model."""
    return model_stamp(p.train.model)


def items_sources(p: PipelineConfig) -> object:
    """Identify the item summariser's weights."""
    return None if p.summarize.items.mode == "none" else _stamp(p.summarize.items.model)


def users_sources(p: PipelineConfig) -> object:
    """Identify the user summariser's weights."""
    return None if p.summarize.users.mode == "none" else _stamp(p.summarize.users.model)


def start_sources(p: PipelineConfig) -> object:
    """Identify the weights of the run that training starts from; None = it starts from the base model."""
    if p.train.start is None:
        return None
    try:
        return starting_weights(p.train).stamps()
    except UserError:  # `check` says what is wrong with it
        return "absent"


def train_sources(p: PipelineConfig) -> object:
    """Identify what training starts from, which is also what `score-base` scores."""
    base, start = model_stamp(p.train.model), start_sources(p)
    return [base, start] if start else base


def evaluate_sources(p: PipelineConfig) -> object:
    """Identify the tables that slice users and items; one that is absent is left out, because `check` tells of it."""
    tables = (p.evaluate.tables.items, p.evaluate.tables.users)
    return [path_stamp(table) for table in tables if table is not None and table.exists()]


def _stamp(model: ModelConfig) -> object:
    """Identify the weights; a server's are not ours to see."""
    return None if model.backend_row.remote else model_stamp(model)
