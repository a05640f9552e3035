"""What is said beside an exported model: its card, its settings and its templates."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msr_adapter import schema
from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.outputs import protected_by, require_folder
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import Problem, StageError, UserError
from msr_adapter.files import atomic_folder, write_json, write_text
from msr_adapter.llamafactory.objectives import objective_of
from msr_adapter.pipeline.context import prompts_of, user_summaries_dir
from msr_adapter.pipeline.resolve import resolve_models
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import run
from msr_adapter.progress import Reporter


def stated_licence(model: ModelConfig) -> str:
    """Return the licence that the base model's own card states, or nothing; looks at local files alone."""
    from msr_adapter.llamafactory.recognition import model_file

    card = model_file(model, "README.md")
    if card is None:
        return ""
    head = card.read_text(encoding="utf-8", errors="replace").split("---")
    lines = head[1].splitlines() if len(head) > 2 and not head[0].strip() else []
    stated = [line.partition(":")[2].strip().strip("'\"") for line in lines if line.startswith("license:")]
    return stated[0] if stated else ""


def describe(loaded: LoadedPipeline, folder: RunFolder, out: Path, dtype: str, licence: str) -> None:
    """Write the card, the settings and the templates beside the weights."""
    from msr_adapter.workflows.model_card import CardFacts, model_card

    pipeline = loaded.pipeline
    train, prompts = pipeline.train, prompts_of(pipeline)
    metrics = json.loads((folder.stage("evaluate") / "metrics.json").read_text(encoding="utf-8"))
    local = Path(train.model.path).expanduser().is_dir() or train.model.path == "tiny"
    facts = CardFacts(
        name=pipeline.name, base_model=Path(train.model.path).name if local else train.model.path,
        base_is_public=not local, licence=licence, images=train.images, method=train.method, dtype=dtype,
        template=train.model.template,
        prompt=prompts.recommend("likes quiet landscapes and red covers", "The Blue Harbour", train.images),
        answers=train.answers.trained, data=_about_data(loaded, folder),
        training=_about_training(loaded, folder, dtype),
    )  # fmt: skip
    write_text(out / "README.md", model_card(facts, metrics))
    settings = train.model.model_dump(include={"template", "default_system", "image_max_pixels", "image_min_pixels"})
    write_json(
        out / "msr.json", {**settings, "answers": list(train.answers.trained), "images": train.images, "dtype": dtype}
    )
    for name, text in prompts.sources("recommend").items():
        write_text(out / "templates" / name, text)


def _about_data(loaded: LoadedPipeline, folder: RunFolder) -> dict[str, str]:
    digests = {name: folder.manifest(name) for name in ("data", "users", "dataset")}
    source = loaded.pipeline.data.source
    return {
        "source": source.kind,
        **{f"{name} digest": manifest.output[:16] for name, manifest in digests.items() if manifest},
        **_counts(digests["data"].summary if digests["data"] else {}),
    }


def _counts(summary: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: f"{summary[name]:,}" for name in ("users", "items", "interactions") if isinstance(summary.get(name), int)
    }


def _about_training(loaded: LoadedPipeline, folder: RunFolder, dtype: str) -> dict[str, str]:
    train, manifest = loaded.pipeline.train, folder.manifest("train")
    steps = manifest.summary.get("steps") if manifest else None
    return {
        "method": train.method,
        "steps": f"{steps:,}" if steps else "not recorded",
        "rows a step and process": str(train.batch_size * train.gradient_accumulation),
        "learning rate": f"{train.learning_rate:g}",
        "weights here": dtype,
        "precision in training": train.model.dtype,
    }


# `msr export`: the trained recommender as a folder for others, checked against the scores of the run.

CHECKED = 64
"""Test candidates that the exported model scores again."""
_EXACT = 1e-3
"""Largest difference in log-odds that rounding explains in float32."""


@dataclass(frozen=True)
class Exported:
    """What was written and how near its scores are to the run's."""

    folder: Path
    parameters: int
    checked: int
    """Candidates scored again; none where a server scored the run's."""
    largest_difference: float | None
    """In log-odds of yes against no, over them."""


def export(loaded: LoadedPipeline, out: Path, dtype: str, licence: str | None, reporter: Reporter) -> Exported:
    """Bring the run up to date, write its merged model with a card into ``out``, score some candidates with it.

    ``out`` appears whole or not at all. Raises `UserError` for one that is not empty and for a reward model,
    `StageError` if the exported model does not score as the trained one did.
    """
    require_folder(out, protected_by(loaded))
    if objective_of(loaded.pipeline.train).value_head:
        found = "a reward model: its value head has no place in a model folder"
        raise UserError(Problem(loaded.where("train.objective"), "train.objective", found, "sft, dpo or kto"))
    run(loaded, ("train", "evaluate"), reporter=reporter)  # for a server's scores alone, nothing is trained
    loaded = resolve_models(loaded, download=True)
    with atomic_folder(out) as partial:
        exported = _write(loaded, partial, dtype, licence, reporter)
    return Exported(out, *exported)


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Upload an exported ``folder`` to the hub; return its address. The token is the environment's or the login's."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    api = HfApi()
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export of msr")
    except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
        # The message itself may repeat what was sent: it is not shown.
        raise StageError(
            f"{repository} was not uploaded ({type(error).__name__})",
            "no network, no token with write access, or a name that is taken",
            f"the export is in {folder}; set HF_TOKEN, or run `hf auth login`, and push again",
        ) from None
    return str(address)


def _write(
    loaded: LoadedPipeline, out: Path, dtype: str, licence: str | None, reporter: Reporter
) -> tuple[int, int, float | None]:
    from msr_adapter.llamafactory.merged_model import write_merged_model
    from msr_adapter.llamafactory.weights import trained_weights

    folder, train = RunFolder(loaded.run_dir), loaded.pipeline.train
    weights = trained_weights(folder.stage("train"))
    reporter.note(f"merging {train.model.path} into {dtype}")
    parameters = write_merged_model(train.model, weights, out, dtype)
    exported = train.model.model_copy(
        update={"path": str(out), "dtype": dtype, "revision": None, "adapter": None, "quantization": "none"}
    )
    checked, difference = _check(loaded, folder, exported, reporter)
    describe(loaded, folder, out, dtype, licence if licence is not None else stated_licence(train.model))
    return parameters, checked, difference


def _check(
    loaded: LoadedPipeline, folder: RunFolder, exported: ModelConfig, reporter: Reporter
) -> tuple[int, float | None]:
    """Score the first candidates with the exported model; return how many, and the largest difference in log-odds.

    A server's scores say nothing of the model that was trained here: nothing is compared with them.
    """
    from msr_adapter.backends import make_backend
    from msr_adapter.candidate_rows import CandidateRows, ask
    from msr_adapter.generation import Completion

    if loaded.pipeline.evaluate.scorer is not None:
        reporter.note("not compared: a server scored")
        return 0, None
    train = loaded.pipeline.train
    prompts, preferences = prompts_of(loaded.pipeline), user_summaries_dir(loaded.pipeline, folder)
    rows = CandidateRows(folder.stage("data"), preferences, prompts, "test", images=train.images)
    some = rows.take(np.arange(min(CHECKED, len(rows))))
    before = schema.read_table(folder.stage("score") / "scores.parquet", schema.SCORES)["logit"].to_numpy()[: len(some)]
    backend = make_backend(exported)
    asked = [ask(row, train.answers, backend.identity) for row in some]
    answers = [answer for answer in backend.complete(asked) if isinstance(answer, Completion)]
    after = np.array([answer.choice_logprobs[0] - answer.choice_logprobs[1] for answer in answers])
    if len(after) != len(some) or not np.isfinite(after).all():
        raise StageError(
            "the exported model gives no finite score",
            f"its numbers overflow in {exported.dtype}",
            "export in bfloat16 or float32",
        )
    difference = float(np.abs(after - before).max())
    if exported.dtype == train.model.dtype == "float32" and train.model.quantization == "none" and difference > _EXACT:
        raise StageError(
            f"the exported model scores differently: log-odds of {len(some)} candidates are up to {difference:.3g} off",
            "the run's scores are another model's, or saving changed the weights",
            "run `msr evaluate --force score` and export again",
        )
    reporter.note(f"checked: log-odds of {len(some)} test candidates differ by {difference:.2g} at most")
    return len(some), difference
