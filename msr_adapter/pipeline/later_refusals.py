"""What stages would refuse after hours, found before the first of them runs; no weights are loaded.

`check_stages` asks the settings, this machine and the files there are; `check_finished` also what the first stages, of
minutes, have made: the run asks it again before the summaries, which may take hours.
"""

import os
import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.errors import Problem, UserError, collecting
from msr_adapter.files import read_json_object
from msr_adapter.filesystem import open_file
from msr_adapter.llamafactory.family_recognition import model_config, takes_images
from msr_adapter.llamafactory.fitting_weights import require_fitting_adapters
from msr_adapter.llamafactory.label_words import check_label_words
from msr_adapter.llamafactory.memory_estimate import estimate, model_shape
from msr_adapter.llamafactory.model_weights import own_adapters, starting_weights
from msr_adapter.pipeline.resolve_templates import blind_problem, shown_images
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.stage_context import cache_path, known_attributes, prompts_of
from msr_adapter.pipeline.weight_checks import roles
from msr_adapter.schema import read_listed

_SQLITE = b"SQLite format 3\0"
_PLACEHOLDER = ("IMAGE_PLACEHOLDER", "<image>")
"""A variable that LLaMA-Factory reads when it is imported, and what it means unless set."""


def check_stages(loaded: LoadedPipeline) -> list[Problem]:
    """Return what settings, machine and files are refused for by stages from the summaries on; imports no torch.

    On a machine with a GPU driver, torch is imported where the number of GPUs decides.
    """
    train = loaded.pipeline.train
    found = [
        *check_label_words(train),
        *_check_workers(loaded),
        *(_check_place(loaded) if trains(loaded) else ()),
        *_check_environment(loaded),
        *_check_cache(loaded),
        *_check_disk(loaded),
        *_check_report(loaded),
    ]
    return [replace(problem, where=problem.where or loaded.where(problem.field)) for problem in found]


def check_finished(loaded: LoadedPipeline, folder: RunFolder, finished: Collection[str]) -> list[Problem]:
    """Return what the training will refuse by what the ``finished`` stages made: no validation, images, rows.

    The stages have to be up to date; only those that take minutes are asked.
    """
    found = []
    if "data" in finished and (loaded.pipeline.data.items.attributes or loaded.pipeline.data.users):
        known = known_attributes(loaded.pipeline, folder.manifest("data"))
        found += prompts_of(loaded.pipeline).check(known)
    if "data" in finished:
        found += _nobody_to_weigh_on(loaded, folder)
    if not trains(loaded):
        return found
    if "data" in finished:
        found += [*_nobody_to_judge_by(loaded, folder), *_blind(loaded, folder)]
    if "lengths" in finished:
        found += _rows_too_long(loaded, folder)
    return found + _check_fit(loaded)


def trains(loaded: LoadedPipeline) -> bool:
    """Return whether this pipeline's model is trained here: a server may score in its place."""
    return loaded.pipeline.evaluate.scorer is None


def _check_report(loaded: LoadedPipeline) -> list[Problem]:
    """Return what is wrong with a report template of the user's own."""
    if loaded.pipeline.templates is None:
        return []
    from msr_adapter.report.page import template_faults  # which draws figures

    return template_faults(loaded.pipeline.templates)


def _check_workers(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem if workers of this machine are to have more GPUs than it has."""
    from msr_adapter.distributed.devices import share_gpus, visible_gpus

    execution, problems = loaded.pipeline.execution, list[Problem]()
    alone = execution.workers == 1 and execution.gpus_per_worker is None
    spread = any(model.backend_row.spreads for model in roles(loaded).values())
    if execution.engine == "local" and not alone and spread:
        gpus = visible_gpus(os.environ) if execution.gpus_per_worker != 0 else []
        with collecting(problems):
            share_gpus(execution.workers, execution.gpus_per_worker, gpus)
    return problems


def _check_place(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem if the training asks for more processes than GPUs, or is told of a machine it has not."""
    from msr_adapter.distributed.devices import visible_gpus
    from msr_adapter.llamafactory.nodes import find_place

    launch, problems = loaded.pipeline.train.launch, list[Problem]()
    if launch.processes in ("auto", 1) and launch.nodes == 1:
        return []
    # A check may be made where no machine of the training is: on a login node.
    environment = {"NODE_RANK": "0", **os.environ}
    if "SLURM_NODEID" in os.environ and "NODE_RANK" not in os.environ:
        del environment["NODE_RANK"]
    environment.setdefault("SLURM_JOB_NODELIST", "FIRST_HOST")
    with collecting(problems):
        find_place(launch, environment, len(visible_gpus(os.environ)))
    return problems


def _check_environment(loaded: LoadedPipeline) -> list[Problem]:
    name, usual = _PLACEHOLDER
    local = any(model.backend_row.local for model in roles(loaded).values())
    found = os.environ.get(name, usual)
    if found == usual or not local:
        return []
    return [Problem("environment", name, f"set to {found!r}", "must be unset", f"unset {name}")]


def _check_cache(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem if the answers of models cannot be kept where they are to be."""
    path = cache_path(loaded.pipeline, RunFolder(loaded.run_dir))
    step = "Name another file, or none to keep answers in the run folder"
    if path.is_dir():
        return [Problem(str(path), "cache", "a folder", "a file that msr makes", step)]
    try:
        with open_file(path) as file:
            head = file.read(len(_SQLITE))
    except FileNotFoundError:
        return _unwritable(path, step) if loaded.pipeline.cache else []
    except OSError as error:
        return [Problem(str(path), "cache", f"cannot be read ({error.strerror})", "", step)]
    if head and head != _SQLITE:
        return [Problem(str(path), "cache", "no completion cache", "a file that msr made, or a new one", step)]
    return []


def _unwritable(path: Path, step: str) -> list[Problem]:
    parent = next(parent for parent in path.absolute().parents if parent.exists())
    if parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return []
    return [Problem(str(path), "cache", f"cannot be made: {parent} cannot be written", "", step)]


def _check_disk(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem if what a training saves surely does not fit the disk; a trained model is not trained again."""
    train, folder = loaded.pipeline.train, RunFolder(loaded.run_dir)
    if not trains(loaded) or not train.model.backend_row.local or folder.manifest("train") is not None:
        return []
    shape = model_shape(train.model)
    if shape is None:
        return []
    least = estimate(train, shape, train.cutoff_len, 0, 1, train.max_steps).disk
    existing = next(parent for parent in (loaded.run_dir, *loaded.run_dir.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if least <= free:
        return []
    found, allowed = (
        f"{free / 1e9:.1f} GB free on its disk",
        f"checkpoints and the model take about {least / 1e9:.1f} GB",
    )
    step = "Free some space, choose another --run-dir, or lower train.checkpoints"
    return [Problem(str(loaded.run_dir), "run_dir", found, allowed, step)]


def _check_fit(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for adapters that training starts from and that fit no layer of the model.

    Only then torch is imported: the model is laid out without memory.
    """
    train, problems = loaded.pipeline.train, list[Problem]()
    if not train.model.backend_row.local or (train.model.adapter is None and train.start is None):
        return []
    if model_config(train.model) is None:  # not on this machine yet
        return []
    origin = starting_weights(train)
    with collecting(problems):
        require_fitting_adapters(train.model, origin.full, (*own_adapters(train.model), *origin.adapters))
    return problems


def _nobody_to_judge_by(loaded: LoadedPipeline, folder: RunFolder) -> list[Problem]:
    from msr_adapter.score.validation_ranking import nobody

    manifest = folder.manifest("data")
    if loaded.pipeline.train.keep != "best" or manifest is None:
        return []
    validation = manifest.summary.get("splits", {}).get("validation", {})
    if validation.get("examples", 1):
        return []
    return [nobody("the validation split is empty", loaded.where("train.keep"))]


def _nobody_to_weigh_on(loaded: LoadedPipeline, folder: RunFolder) -> list[Problem]:
    """Return a problem for a hybrid whose weights the built data has too few validation users for."""
    from msr_adapter.evaluate.hybrid.fitting import least_users, too_few

    hybrid, manifest = loaded.pipeline.evaluate.hybrid, folder.manifest("data")
    if hybrid is None or manifest is None:
        return []
    users = manifest.summary.get("splits", {}).get("validation", {}).get("examples", 0)
    return [too_few(users, hybrid, loaded.where("evaluate.hybrid"))] if users < least_users(hybrid) else []


def _blind(loaded: LoadedPipeline, folder: RunFolder) -> list[Problem]:
    """Return a problem for every model that would be shown the images that the data has, and takes none."""
    path = folder.stage("data") / "items.parquet"
    shown = {role: model for role, model in roles(loaded).items() if shown_images(loaded, role)}
    blind = {role: model for role, model in shown.items() if takes_images(model) is False}
    if not blind or not path.is_file():
        return []
    images = read_listed(path, ["image"])["image"]
    return [blind_problem(loaded, role) for role in blind] if images.null_count < len(images) else []


def _rows_too_long(loaded: LoadedPipeline, folder: RunFolder) -> list[Problem]:
    """Return a problem if half of the rows and more are too long whatever summary they get: training stops there."""
    told = read_json_object(folder.stage("lengths") / "lengths.json")
    certain = [finding for finding in told.get("findings", ()) if finding.get("severity") == "error"]
    if not certain:
        return []
    longest = told["row"]["max"]
    found = f"{told['cutoff_len']}: too few for more than half of the rows, even without a user summary"
    step = f"Set train.cutoff_len: {longest}, or lower train.model.image_max_pixels or split.max_history"
    return [
        Problem(loaded.where("train.cutoff_len"), "train.cutoff_len", found, f"the longest may have {longest}", step)
    ]


def require_finished(loaded: LoadedPipeline, folder: RunFolder) -> None:
    """Raise `UserError` with what `check_finished` finds once the data is built and rows are estimated."""
    if problems := check_finished(loaded, folder, ("data", "lengths")):
        raise UserError(problems)
