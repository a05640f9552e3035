"""The keys of a pipeline that cannot change a result, each with its reason; the stages' fingerprints leave them out."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from msr_adapter.config.schema import PipelineConfig, StrictModel
from msr_adapter.evaluate.table_retrieval import compared, embeds
from msr_adapter.pipeline.stage_context import prompts_of

_SUMMARISERS = ("summarize.items.model", "summarize.users.model")
_MODELS = (*_SUMMARISERS, "train.model", "evaluate.scorer")


@dataclass(frozen=True)
class Ignored:
    """Keys that cannot change a result; a key of a section stands for all keys in it."""

    keys: tuple[str, ...]
    why: str
    when: Callable[[PipelineConfig], bool] = lambda _: True
    """Under which pipelines: a key may be read by one mode alone."""
    told: bool = False
    """Whether the keys reach templates, and cannot matter only where none in use says them."""


def _under(parents: tuple[str, ...], *keys: str) -> tuple[str, ...]:
    return tuple(f"{parent}.{key}" for parent in parents for key in keys)


CANNOT_MATTER: tuple[Ignored, ...] = (
    Ignored(("run_dir", "cache"), "where results are kept, not what they are"),
    Ignored(("execution",), "the same shards, answered elsewhere"),
    Ignored(("tracking",), "where results are sent, not what they are"),
    Ignored(("embedding",), "read by `msr recommend` and `msr embed`, by no stage",
            lambda p: not embeds(p.evaluate.full, p.fusion)),
    Ignored(("embedding.batch_size",), "how many texts are embedded at a time"),
    Ignored(("fusion",), "read by `msr recommend` alone", lambda p: "fused" not in compared(p.evaluate.full, p.fusion)),
    Ignored(_under(_MODELS, "batch_size"), "how many prompts are computed at a time; each is computed by itself"),
    Ignored(
        _under(_MODELS, "server.key_variable", "server.concurrency", "server.timeout", "server.retries",
               "server.first_wait", "server.longest_wait"),
        "how a server is asked; what it answers is the same, and what it fails to answer is asked again",
    ),
    Ignored(_under(_MODELS, "server.compare_prompts"), "a check beforehand, which passes or ends the stage"),
    Ignored(
        _under((*_SUMMARISERS, "train.model"), "server.top_logprobs", "server.bounded_share"),
        "read where a server scores; summaries need no probabilities",
    ),
    Ignored(("train.launch.engine", "train.launch.address", "train.launch.port", "train.launch.wait"),
            "how the machines meet; how many they are, and what each holds, does count"),
    Ignored(("train.checkpoints", "train.checkpoint_steps", "train.selection"),
            "no checkpoint is chosen: the model of the last step is kept", lambda p: p.train.keep == "last"),
    Ignored(_under(("train.negatives",), "run", "top", "among", "retriever"),
            "no negative is mined from an earlier run", lambda p: not p.train.negatives.mines),
    Ignored(("summarize.items.model", "summarize.items.on_failure"),
            "nothing is asked about items", lambda p: p.summarize.items.mode == "none"),
    Ignored(("summarize.users.model", "summarize.users.on_failure"),
            "nothing is asked about users", lambda p: p.summarize.users.mode == "none"),
    Ignored(("summarize.users.block",),
            "a history is read in one piece, and begins at any item",
            lambda p: p.summarize.users.mode != "recurrent" and p.history_step == 1),
    Ignored(("train.text_answer",), "Yes or No is answered, and no text", lambda p: not p.train.asks_text),
    Ignored(("train.answers", "train.prompt"), "a text answers the question", lambda p: p.train.asks_text),
    Ignored(("summarize.noun", "summarize.language"), "no template in use says it", told=True),
)  # fmt: skip
"""The test of this table changes every key of every bundled pipeline: a key changes a fingerprint or stands here."""
_AS_BEFORE = {"train.batches": "random"}
"""Keys that came later, each with the value that does what was done before: at it they are left out, and finished
trainings stay up to date."""


def ignored(pipeline: PipelineConfig, templates: Collection[str]) -> dict[str, str]:
    """Return the keys that cannot change a result of ``pipeline``, each with the reason; it uses the ``templates``."""
    return {
        key: entry.why
        for entry in CANNOT_MATTER
        if entry.when(pipeline)
        for key in entry.keys
        if not (entry.told and _says(pipeline, key, templates))
    }


def _says(pipeline: PipelineConfig, key: str, templates: Collection[str]) -> bool:
    """Tell whether one of ``templates`` says what stands at ``key``, of `summarize`."""
    other = pipeline.summarize.model_copy(update={key.removeprefix("summarize."): "something else"})
    one, another = prompts_of(pipeline), prompts_of(pipeline.model_copy(update={"summarize": other}))
    return any(one.digest(name) != another.digest(name) for name in templates)


def counted(pipeline: PipelineConfig, key: str, *elsewhere: str) -> Any:
    """Return what stands at a dotted ``key``, JSON-able, without ignored keys and those that count ``elsewhere``.

    The latter are named relative to ``key``.
    """
    value: Any = pipeline
    for part in key.split("."):
        value = getattr(value, part)
    if not isinstance(value, StrictModel):
        return value
    found = value.model_dump(mode="json")
    entries = [entry for entry in CANNOT_MATTER if not entry.told and entry.when(pipeline)]
    below = [one.removeprefix(f"{key}.") for entry in entries for one in entry.keys if one.startswith(f"{key}.")]
    below += [
        name
        for one, value in _AS_BEFORE.items()
        if one.startswith(f"{key}.") and found.get(name := one.removeprefix(f"{key}.")) == value
    ]
    for path in (*elsewhere, *below):
        _drop(found, path.split("."))
    return found


def _drop(found: Any, path: list[str]) -> None:
    """Remove the key at ``path`` from nested dictionaries; a part that is not there, such as a server, is no error."""
    for part in path[:-1]:
        found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, dict):
        found.pop(path[-1], None)
