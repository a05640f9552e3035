"""The weights that a run builds on: adapters of its models, and the run that its training starts from."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from packaging.version import Version

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import AUTO, ModelConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.filesystem import absent
from msr_adapter.integrity import read_manifest, read_sealed
from msr_adapter.llamafactory.claimed_sizes import rank_fault
from msr_adapter.llamafactory.family_recognition import family_of
from msr_adapter.llamafactory.kernels import INSTALL_BITSANDBYTES, LEAST_BITSANDBYTES, check_kernels
from msr_adapter.llamafactory.model_weights import STAGE

_SAME = ("path", "revision", "adapter", "template", "default_system", "image_max_pixels", "image_min_pixels")
"""What must be the model's in a run and in the one that it goes on from."""


def check_weights(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for every adapter that is none, and for quantised models without the library."""
    problems = []
    for role, model in roles(loaded).items():
        problems += [*_check_adapter(loaded.where(f"{role}.adapter"), role, model.adapter)]
        if model.quantization != "none":
            problems += _check_library(loaded.where(f"{role}.quantization"), f"{role}.quantization")
    return problems


def check_training(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for what objective, method and start cannot be together, each with its place."""
    from msr_adapter.llamafactory.finetuning_methods import check_method, check_start
    from msr_adapter.llamafactory.model_weights import BASE, starting_weights
    from msr_adapter.llamafactory.objectives import check_objective
    from msr_adapter.llamafactory.training_yaml import check_paths

    train = loaded.pipeline.train
    problems = check_objective(train) + check_method(train)
    if loaded.pipeline.evaluate.scorer is None:  # else nothing is trained
        problems += check_kernels(train)
    weights = BASE
    if train.start is not None:
        try:
            weights = starting_weights(train)
        except UserError as error:
            step = f"Run `msr run {train.start.name}` first, or name another run"
            problems += [Problem("", "train.start", f"{p.where}: {p.found}", p.allowed, step) for p in error.problems]
        else:
            problems += _check_same_model(train.start, loaded)
            if train.start == loaded.run_dir:
                found = f"{train.start} is the run's own folder: training would go on from itself, again and again"
                step = "Give this pipeline another name or --run-dir"
                problems.append(Problem("", "train.start", found, "another run", step))
            if weights.reward:
                found = f"{train.start} is a reward model, which has no answers to go on from"
                problems.append(Problem("", "train.start", found, "a run with another objective"))
    problems += check_start(train, weights)
    if loaded.pipeline.evaluate.scorer is None:  # else nothing is trained
        problems += check_paths(train, weights, loaded.run_dir)
    return [replace(problem, where=problem.where or loaded.where(problem.field)) for problem in problems]


def _check_same_model(start: Path, loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for every setting of the model that differs from the run in ``start``.

    A model trained under one template, system text and image size is another model under others.
    """
    theirs = _trained_model(start)
    model = loaded.pipeline.train.model
    ours = model.model_dump(mode="json")
    if (family := family_of(model)) and model.template == AUTO:
        ours["template"] = family.template
    # A run that stopped early, and a model that is not here yet, leave `auto`.
    differ = [field for field in _SAME if theirs.get(field, ours[field]) not in (ours[field], AUTO)
              and ours[field] != AUTO]  # fmt: skip
    return [
        Problem("", f"train.model.{field}", f"{ours[field]}", f"{theirs[field]} in {start}, where training starts")
        for field in differ
    ]


def _trained_model(run: Path) -> Mapping[str, object]:
    """Return the settings of the model that a run trained: by its manifest, which is sealed, else by its pipeline."""
    settings = read_manifest(run / STAGE).get("settings") or read_sealed(run / "pipeline.json")
    train = settings.get("train")
    model = train.get("model") if isinstance(train, dict) else None
    return model if isinstance(model, dict) else {}


def roles(loaded: LoadedPipeline) -> dict[str, ModelConfig]:
    """Return the models that this pipeline uses, by the key that names them."""
    summarize, train = loaded.pipeline.summarize, loaded.pipeline.train
    used: dict[str, ModelConfig] = {"train.model": train.model}
    if summarize.items.mode != "none":
        used["summarize.items.model"] = summarize.items.model
    if summarize.users.mode != "none":
        used["summarize.users.model"] = summarize.users.model
    return used


def _check_adapter(where: str, role: str, folder: Path | None) -> list[Problem]:
    """Return a problem if ``folder`` is to be an adapter and lacks its config or its weights."""
    if folder is None:
        return []
    missing = next((name for name in ("adapter_config.json", "adapter_model.safetensors")
                    if not (folder / name).is_file()), None)  # fmt: skip
    if missing is not None:
        fault = f"no {missing} in this folder" if folder.is_dir() else absent(folder, "folder")
    else:
        fault = rank_fault(folder)
    if not fault:
        return []
    found = f"{folder}: {fault}"
    step = "Save the adapter there with save_pretrained, or correct the path"
    return [Problem(where, f"{role}.adapter", found, "a folder that PEFT or LLaMA-Factory saved", step)]


def _check_library(where: str, field: str) -> list[Problem]:
    """Return a problem if bitsandbytes, which quantised models need, is absent or too old."""
    try:
        found = metadata.version("bitsandbytes")
    except metadata.PackageNotFoundError:
        state = "bitsandbytes is not installed"
    else:
        if Version(found) >= Version(LEAST_BITSANDBYTES):
            return []
        state = f"bitsandbytes is version {found}"
    step = f"Run: {INSTALL_BITSANDBYTES}, or leave the weights as they are (none; method: lora)"
    return [Problem(where, field, state, f"weights in 4 or 8 bits need {LEAST_BITSANDBYTES} or later", step)]
