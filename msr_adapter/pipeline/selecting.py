"""The judge of checkpoints: the scoring stage's own way of asking, lent to the training stage."""

from collections.abc import Callable
from pathlib import Path

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.errors import Problem
from msr_adapter.llamafactory.weights import starting_weights
from msr_adapter.metrics import Judgement
from msr_adapter.pipeline.context import Context
from msr_adapter.pipeline.resources import release
from msr_adapter.progress import Reporter


def checkpoint_judge(c: Context, users_dir: Path) -> Callable[[Path | None, Reporter], Judgement]:
    """Return what values the weights in a folder (None = the model before training) on validation users.

    ``users_dir`` has the preferences that the recommender reads. Answers are cached by the weights' content. Raises
    `UserError` without a validation split.
    """
    from msr_adapter.score import Validation

    p = c.pipeline
    start = starting_weights(p.train)
    validation = Validation(p.train, c.dir("data"), users_dir, c.prompts, p.seed)

    def judge(folder: Path | None, reporter: Reporter) -> Judgement:
        with c.cache() as cache, c.backend(p.train.model, start.then(folder) if folder else start) as backend:
            found = validation.judge(backend, cache, reporter)
        del backend
        release()
        return found

    return judge


def check_selection(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem if the best checkpoint is to be kept and the split can have nobody to judge it by."""
    split = loaded.pipeline.split
    if loaded.pipeline.train.keep != "best":
        return []
    found = ""
    if split.kind == "user-holdout" and split.fractions[1] == 0:
        found = "split.fractions leaves no validation users"
    if split.kind == "temporal" and split.validation_from is None:
        found = "split.validation_from is not set, so that there is no validation"
    if not found:
        return []
    from msr_adapter.score.validation import nobody

    return [nobody(found, loaded.where("train.keep"))]
