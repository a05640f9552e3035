"""What is wrong with how templates show several images, and what is worth knowing of it before a run."""

from collections.abc import Callable
from functools import partial

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import PipelineConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.generation.request import IMAGE_PLACEHOLDER
from msr_adapter.pipeline.stage_context import prompts_of
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.prompts.variables import placeholders

_LOOP = "{% for image in images %}<image>{% endfor %}"


def check_images(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem where images of the history are wanted that no prompt shows, and for every template that cannot
    show as many images as there may be."""
    pipeline, problems = loaded.pipeline, list[Problem]()
    train, prompts = pipeline.train, prompts_of(pipeline)
    if train.history_images and not train.images:
        found, step = "shown images are switched off by train.images: false", "Set train.images: true, or this to 0"
        problems.append(Problem(loaded.where("train.history_images"), "train.history_images", found, "0", step))
    elif train.history_images and not prompts.shows_recent:
        found = f"the template {prompts.question}.j2 does not show the latest items of the history"
        step = "Show `recent` in it, as the bundled recommend.j2 does, or set train.history_images: 0"
        problems.append(Problem(loaded.where("train.history_images"), "train.history_images", found, "0", step))
    for render in _renderings(pipeline, prompts).values():
        try:
            render()
        except UserError as error:
            problems += error.problems
    return problems


def image_notes(loaded: LoadedPipeline) -> list[str]:
    """Say which templates show fewer images of an item than there may be."""
    pipeline, told = loaded.pipeline, list[str]()
    most, prompts = pipeline.data.images.max, prompts_of(pipeline)
    for name, render in _renderings(pipeline, prompts).items():
        try:
            shown = render().count(IMAGE_PLACEHOLDER) - (_recent_images(pipeline, prompts) if name == "question" else 0)
        except UserError:
            continue
        if shown < most:
            called = prompts.question if name == "question" else name
            told.append(f"{called}.j2 shows {shown} of up to {most} images of an item (data.images.max): write {_LOOP} "
                        "in it to show them all")  # fmt: skip
    return told


def _renderings(pipeline: PipelineConfig, prompts: Prompts) -> dict[str, Callable[[], str]]:
    """Return template -> what renders it for an item with as many images as there may be; none where one is all.

    Templates that look at attributes are tried where their types are known.
    """
    most, items = pipeline.data.images.max, pipeline.summarize.items
    recent = [_chosen(pipeline)] * prompts.recent if prompts.shows_recent else []
    if (most == 1 and not recent) or pipeline.data.items.attributes or pipeline.data.users:
        return {}
    found: dict[str, Callable[[], str]] = {}
    if items.mode == "image":
        found["item_summary"] = partial(prompts.item_summary, "A title", most, "Some text")
    if items.mode == "fusion":
        found["item_image"] = partial(prompts.item_image, "A title", None, most)
    if pipeline.train.images and prompts.shows_images:
        found["question"] = partial(prompts.recommend, "Some text", "A title", most, recent=recent)
    return found


def _chosen(pipeline: PipelineConfig) -> HistoryItem:
    return HistoryItem("A title", images=placeholders(pipeline.data.images.max))


def _recent_images(pipeline: PipelineConfig, prompts: Prompts) -> int:
    return prompts.recent * pipeline.data.images.max if prompts.shows_recent else 0
