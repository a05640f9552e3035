"""`msr export`: the trained recommender as a model folder for others, checked against the scores of the run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.output_paths import protected_by, require_folder
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import Problem, StageError, UserError, plural
from msr_adapter.files import atomic_folder
from msr_adapter.filesystem import guarded
from msr_adapter.llamafactory.objectives import objective_of
from msr_adapter.model_scores import ranking_scores, read_model_scores
from msr_adapter.pipeline.planning import Retrain
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import run
from msr_adapter.pipeline.stage_context import prompts_of, stage_dirs
from msr_adapter.progress import Reporter
from msr_adapter.workflows.model_card import describe, stated_licence

CHECKED = 64
"""Test candidates that the exported model scores again."""
_EXACT = 1e-3
"""Largest difference in log-odds that rounding explains in float32."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how its scores compare with those of the run."""

    folder: Path
    parameters: int
    checked: int
    """Candidates scored again; none where a server scored the run's."""
    largest_difference: float | None
    """In log-odds of yes against no, over these candidates."""


def export(
    loaded: LoadedPipeline, out: Path, dtype: str, licence: str | None, reporter: Reporter, retrain: Retrain = "refuse"
) -> Exported:
    """Bring the run up to date, write its merged model with a card into ``out``, score some candidates with it.

    A trained model that is out of date is made again only where ``retrain`` says so, else `UserError`. Without a
    ``licence``, the card has the one that the base model states. ``out`` appears whole or not at all. Raises
    `UserError` for one that is not empty and for a reward model, `StageError` if the exported model does not score as
    the trained one did.
    """
    from msr_adapter.llamafactory.merged_model import write_merged_model
    from msr_adapter.llamafactory.model_weights import trained_weights

    require_folder(out, protected_by(loaded))
    if objective_of(loaded.pipeline.train).value_head:
        found = "a reward model: its value head has no place in a model folder"
        raise UserError(Problem(loaded.where("train.objective"), "train.objective", found, "sft, dpo or kto"))
    # Where a server scores, `evaluate` alone trains nothing.
    run(loaded, ("train", "evaluate"), reporter=reporter, retrain=retrain)
    loaded = resolve_models(loaded, download=True)
    folder, model = RunFolder(loaded.run_dir), loaded.pipeline.train.model
    with guarded(out.absolute().parent), atomic_folder(out) as partial:
        reporter.note(f"merging {model.path} into {dtype}")
        parameters = write_merged_model(model, trained_weights(folder.stage("train")), partial, dtype)
        merged = model.reference.model_copy(
            update={"path": str(partial), "dtype": dtype, "revision": None, "adapter": None,
                    "quantization": "none"}
        )  # fmt: skip
        checked, difference = compare_scores(loaded, folder, merged, reporter)
        describe(loaded, folder, partial, dtype, stated_licence(model) if licence is None else licence)
    return Exported(out, parameters, checked, difference)


def compare_scores(
    loaded: LoadedPipeline, folder: RunFolder, exported: ModelConfig, reporter: Reporter
) -> tuple[int, float | None]:
    """Score the first candidates with the exported model; return their number and the largest difference in log-odds.

    Raises `StageError` if the model does not score as it did in the run. A server's scores say nothing about the model
    that was trained here, so nothing is compared with them.
    """
    from msr_adapter.backends import make_backend
    from msr_adapter.candidate_requests import ask
    from msr_adapter.candidate_rows import CandidateFolders, CandidateRows
    from msr_adapter.generation import Completion, Failure

    if loaded.pipeline.evaluate.scorer is not None:
        reporter.note("not compared: a server scored")
        return 0, None
    train = loaded.pipeline.train
    prompts, dirs = prompts_of(loaded.pipeline), stage_dirs(loaded.pipeline, folder)
    shown = CandidateFolders(dirs.data, dirs.user_summaries, items=dirs.items)
    rows = CandidateRows.read(shown, prompts, "test", images=train.images)
    some = rows.take(np.arange(min(CHECKED, len(rows))))
    scores = read_model_scores(folder.stage("score") / "scores.parquet")
    # A text is compared with the user or candidate in the prompt: what is taken off it is the same kind of answer.
    before = (scores["given"].to_numpy() if train.asks_text else ranking_scores(scores))[: len(some)]
    backend = make_backend(exported)
    asked = [ask(row, train, backend.identity) for row in some]
    found = backend.complete(asked)
    if failures := [answer for answer in found if isinstance(answer, Failure)]:
        raise StageError(
            f"the exported model did not answer {plural(len(failures), 'candidate')} of {len(some)}, "
            f"first: {failures[0].reason}",
            "an image of the run is gone or damaged, or a prompt does not fit this machine",
            "fix what the reason names and export again; the trained model is unchanged",
        )
    answers = [answer for answer in found if isinstance(answer, Completion)]
    first = [answer.choice_logprobs[0] for answer in answers]
    after = np.array(first) if train.asks_text else np.array(first) - [one.choice_logprobs[1] for one in answers]
    if len(after) != len(some) or not np.isfinite(after).all():
        raise StageError(
            "the exported model gives no finite score",
            f"its numbers overflow in {exported.dtype}",
            "export in bfloat16 or float32",
        )
    difference, what = float(np.abs(after - before).max()), "log-likelihoods" if train.asks_text else "log-odds"
    # Only between two full-precision models is a difference a fault: a cast to fewer bits moves every score.
    if exported.dtype == train.model.dtype == "float32" and train.model.quantization == "none" and difference > _EXACT:
        raise StageError(
            f"the exported model scores differently: {what} of {len(some)} candidates are up to {difference:.3g} off",
            "the run's scores are another model's, or saving changed the weights",
            "run `msr evaluate --force score` and export again",
        )
    reporter.note(f"checked: {what} of {len(some)} test candidates differ by {difference:.2g} at most")
    return len(some), difference


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload an exported ``folder`` to the hub; return its address. The token is the environment's or the login's."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of msr")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        # The library's message may repeat what was sent, the token included: it is not shown.
        raise StageError(
            f"{repository} was not uploaded ({type(error).__name__})",
            "no network, no token with write access, or a name that is already taken",
            f"the export is in {folder}; set HF_TOKEN, or run `hf auth login`, and push again",
        ) from None
    return str(address)
