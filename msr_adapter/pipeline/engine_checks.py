"""Which engine answers for each model of a pipeline, and whether it is here."""

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import Problem


def check_engines(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for each model that vLLM is to answer for where it is not installed."""
    from msr_adapter.backends.vllm.installed import VLLM, absence, installed_version

    settings = [f"{setting}.backend" for setting, model in _answering(loaded).items() if model.backend == VLLM]
    if not settings or installed_version():
        return []
    return [absence(loaded.where(setting), setting) for setting in settings]


def engine_notes(loaded: LoadedPipeline) -> list[str]:
    """Name the engine of each model that is loaded here, and the one that `auto` stands for on this machine."""
    from msr_adapter.backends.vllm.installed import AUTO, automatic

    said: dict[str, list[str]] = {}
    for setting, model in _answering(loaded).items():
        if not model.backend_row.local:
            continue
        rule = automatic(model)
        named = rule.model.backend if model.backend == AUTO else model.backend
        line = f"{named}; auto is {rule.model.backend} on this machine ({rule.because})"
        said.setdefault(line, []).append(setting)
    return [f"engine of {', '.join(settings)}: {line}" for line, settings in said.items()]


def _answering(loaded: LoadedPipeline) -> dict[str, ModelConfig]:
    """Return setting -> model of those that this pipeline asks, but for a server that scores."""
    summarize, train = loaded.pipeline.summarize, loaded.pipeline.train
    asked = {
        f"summarize.{role}.model": part.model
        for role, part in (("items", summarize.items), ("users", summarize.users))
        if part.mode != "none"
    }
    return asked | ({"train.model": train.scoring_model} if loaded.pipeline.evaluate.scorer is None else {})
