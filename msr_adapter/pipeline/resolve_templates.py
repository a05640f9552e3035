"""The templates of a pipeline's models, spelled out: `auto` becomes what the models' own files tell."""

import dataclasses

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import AUTO, ModelConfig, PipelineConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.llamafactory.family_recognition import (
    facts,
    family_of,
    resolve_template,
    takes_images,
    template_problems,
)
from msr_adapter.pipeline.weight_checks import roles


def resolve_models(loaded: LoadedPipeline, *, download: bool) -> LoadedPipeline:
    """Return ``loaded`` with the template of every model in use, also where it is written out.

    What a stage is told, its fingerprint and `pipeline.json` then have it. Raises one `UserError` for all models whose
    template is wrong or, with ``download``, cannot be found; without, a hub model that is not here yet stays `auto`.
    """
    problems: list[Problem] = []
    found: dict[str, ModelConfig] = {}
    for role, model in roles(loaded).items():
        try:
            found[role] = resolve_template(model, _where(loaded, role), role, download=download)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    pipeline = _with_models(loaded.pipeline, found)
    return dataclasses.replace(loaded, pipeline=pipeline, resolved=pipeline.model_dump(mode="json"))


def check_templates(loaded: LoadedPipeline) -> list[Problem]:
    """Return what is wrong with the templates, and which models are shown images and see none, as far as files tell."""
    found = [
        problem
        for role, model in roles(loaded).items()
        for problem in template_problems(model, _where(loaded, role), role)
    ]
    return found + _blind(loaded)


def _blind(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for every model that would be shown images and takes none, where there surely are some."""
    from msr_adapter.data import draws_images  # reads tables, which resolving the models has no need of

    data = loaded.pipeline.data
    named = getattr(getattr(data.source, "columns", None), "image", None)
    if data.images.folder is None and named is None and not draws_images(data.source):
        return []
    blind = [role for role, model in roles(loaded).items() if takes_images(model) is False]
    return [blind_problem(loaded, role) for role in blind if shown_images(loaded, role)]


_SHOWN = {"train.model": ("train.images", "false"), "summarize.items.model": ("summarize.items.mode", "none")}
"""Model that is shown images -> the setting that decides it, and its value without images."""


def shown_images(loaded: LoadedPipeline, role: str) -> bool:
    """Return whether the model called ``role`` is shown the images that items have; its mode may not ask it at all."""
    return role in _SHOWN and (role != "train.model" or loaded.pipeline.train.shows_images)


def blind_problem(loaded: LoadedPipeline, role: str) -> Problem:
    """Return the problem of a model that is shown images and takes none."""
    model, (setting, without) = roles(loaded)[role], _SHOWN[role]
    family = family_of(model)
    what = f"a {family.name}" if family else f"under the template {model.template}"
    found = f"{model.path}, {what}, sees no images"
    return Problem(loaded.where(setting), setting, found, without, "Or name a model that sees them")


def template_notes(loaded: LoadedPipeline) -> list[str]:
    """Say which models are not here yet to tell their template, and which are of no tested family."""
    said = []
    for role, model in roles(loaded).items():
        if not model.backend_row.local or family_of(model) is not None:
            continue
        if facts(model) is not None:
            said.append(f"{role}: {model.path} belongs to no family that msr is tested with (docs/models.md)")
        elif model.template == AUTO:
            said.append(f"{role}: the template of {model.path} is read from its files once they are on this machine")
    return said


def _where(loaded: LoadedPipeline, role: str) -> str:
    return loaded.where(f"{role}.template")


def _with_models(pipeline: PipelineConfig, found: dict[str, ModelConfig]) -> PipelineConfig:
    """Return the pipeline with the models ``found``, by role; a summariser whose mode asks none keeps its own."""
    items, users = (
        part.model_copy(update={"model": found.get(f"summarize.{name}.model", part.model)})
        for name, part in (("items", pipeline.summarize.items), ("users", pipeline.summarize.users))
    )
    train = pipeline.train.model_copy(update={"model": found["train.model"]})
    summarize = pipeline.summarize.model_copy(update={"items": items, "users": users})
    return pipeline.model_copy(update={"summarize": summarize, "train": train})
