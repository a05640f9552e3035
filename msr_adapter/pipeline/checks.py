"""Everything that can be found wrong with a pipeline before a model is loaded, and what is worth a note."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.config.schema import ExecutionConfig, ModelConfig, SqlSourceConfig, TableSourceConfig
from msr_adapter.doctor.libraries import LIBRARIES, RAY, is_there
from msr_adapter.errors import Problem, UserError
from msr_adapter.evaluate.baselines.catalogue import BASELINES, to_fit
from msr_adapter.evaluate.table_retrieval import compared
from msr_adapter.files import bundled_model
from msr_adapter.filesystem import absent
from msr_adapter.llamafactory.packaged_models import how_to_get
from msr_adapter.pipeline.embedding_stage import check_retriever
from msr_adapter.pipeline.engine_checks import check_engines, engine_notes
from msr_adapter.pipeline.image_checks import check_images, image_notes
from msr_adapter.pipeline.later_refusals import check_finished, check_stages
from msr_adapter.pipeline.mining_checks import check_mining, mining_notes
from msr_adapter.pipeline.question_checks import check_question, question_notes
from msr_adapter.pipeline.repeated_trainings import check_repeats, repeat_notes
from msr_adapter.pipeline.resolve_templates import check_templates, template_notes
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.run_tracking import check_tracking
from msr_adapter.pipeline.stage_context import known_attributes, prompts_of, stage_dirs
from msr_adapter.pipeline.stages import LABELS, STAGES
from msr_adapter.pipeline.time_estimate import retrieved_prompts, time_notes
from msr_adapter.pipeline.weight_checks import check_training, check_weights, roles
from msr_adapter.progress import Reporter
from msr_adapter.prompts.attributes import KnownAttributes
from msr_adapter.run_folder_mark import folder_problems


def check_libraries(baselines: Sequence[str], where: str) -> list[Problem]:
    """Return one problem for all the baselines whose libraries are absent; nothing is imported."""
    needed = {row.name: row.fitting.libraries for row in BASELINES if row.fitting and row.name in baselines}
    absent = {name: [each for each in modules if find_spec(each) is None] for name, modules in needed.items()}
    short = sorted(name for name, modules in absent.items() if modules)
    if not short:
        return []
    modules = sorted({each for name in short for each in absent[name]})
    commands = dict.fromkeys(library.mend for library in LIBRARIES if library.module in modules)
    found = f"{', '.join(short)} cannot be fitted: {', '.join(modules)} not installed"
    step = f"Run `{' && '.join(commands)}`, or leave them out of evaluate.baselines and evaluate.full"
    return [Problem(where, "evaluate.baselines", found, next_step=step)]


def check_engine(execution: ExecutionConfig, where: str) -> list[Problem]:
    """Return a problem if the workers are Ray's and Ray is absent."""
    if execution.engine != "ray" or is_there("ray"):
        return []
    step = f"Run `{RAY}`, or set execution.engine=local"
    return [Problem(where, "execution.engine", "Ray is not installed", next_step=step)]


_LEAST_FREE = 2**30  # bytes


def check(loaded: LoadedPipeline, attributes: KnownAttributes | None = None) -> list[Problem]:
    """Return every problem with data, templates, models, versions and disk; reads headers, never whole logs.

    ``attributes`` are those that a look through the files has found, with which templates are tried.
    """
    from msr_adapter.data import check_data as check_data
    from msr_adapter.data import check_protocol
    from msr_adapter.llamafactory.parallelism import check_launch
    from msr_adapter.llamafactory.training_yaml import check_overrides
    from msr_adapter.llamafactory.versions import check_versions

    pipeline = loaded.pipeline
    return [
        *check_data(pipeline.data),
        *check_protocol(pipeline.evaluate.protocol, pipeline.train.negatives),
        *prompts_of(pipeline).check(attributes or known_attributes(pipeline)),
        *[problem for role, model in roles(loaded).items() for problem in _check_model(loaded, role, model)],
        *check_weights(loaded),
        *check_templates(loaded),
        *check_training(loaded),
        *check_mining(loaded),
        *_check_servers(loaded),
        *check_engines(loaded),
        *check_question(loaded),
        *check_images(loaded),
        *check_overrides(pipeline.train.overrides, loaded.where("train.overrides")),
        *check_launch(pipeline.train.launch, loaded.where("train.launch")),
        *_check_selection(loaded),
        *_check_hybrid(loaded),
        *check_repeats(loaded),
        *check_versions(),
        *_check_slices(loaded),
        *[
            problem
            for name in compared(pipeline.evaluate.full, pipeline.fusion)
            for problem in check_retriever(loaded, name, (loaded.where("evaluate.full"), "evaluate.full"))
        ],
        *check_libraries([row.name for row in to_fit(pipeline.evaluate)], loaded.where("evaluate.baselines")),
        *check_engine(pipeline.execution, loaded.where("execution.engine")),
        *check_tracking(loaded),
        *check_stages(loaded),
        *_check_run_dir(loaded),
    ]


def check_made(loaded: LoadedPipeline, stages: Mapping[str, str]) -> list[Problem]:
    """Return what later stages will refuse by what is made already; ``stages`` is `plan`'s answer."""
    finished = [name for name, state in stages.items() if state == "up to date"]
    return check_finished(loaded, RunFolder(loaded.run_dir), finished)


def notes(loaded: LoadedPipeline, stages: Mapping[str, str]) -> list[str]:
    """Return what is no problem but worth knowing before a run; ``stages`` is `plan`'s answer."""
    return [
        *template_notes(loaded),
        *image_notes(loaded),
        *engine_notes(loaded),
        *question_notes(loaded),
        *_growing(loaded),
        *_asked_often(loaded, stages),
        *mining_notes(loaded, stages.get("mine")),
        *_reranks(loaded, stages),
        *repeat_notes(loaded),
        *_fits(loaded, stages),
        *_orders(loaded, stages),
        *_note_memory(loaded, stages),
        *time_notes(loaded, stages, LABELS),
    ]


def _growing(loaded: LoadedPipeline) -> list[str]:
    """Return a note on the window of histories, where the log is one that is added to."""
    pipeline, source = loaded.pipeline, loaded.pipeline.data.source
    if pipeline.split.history_window == "blocks" or pipeline.summarize.users.mode != "recurrent":
        return []
    if isinstance(source, SqlSourceConfig) and source.watermark is not None:
        grows = "data.source.watermark reads a log that grows"
    elif isinstance(source, TableSourceConfig) and source.interactions.is_dir():
        grows = "data.source.interactions is a folder of parts"
    else:
        return []
    return [f"{grows}: with split.history_window: blocks, a user whose history is cut is not summarised anew for each "
            "interaction more"]  # fmt: skip


def _note_memory(loaded: LoadedPipeline, stages: Mapping[str, str]) -> list[str]:
    """Estimate what training takes, with the longest row as estimated, else as long as rows may be."""
    from msr_adapter.llamafactory.memory_estimate import estimate, model_shape

    train = loaded.pipeline.train
    if loaded.pipeline.evaluate.scorer is not None:  # nothing is trained
        return []
    if not train.model.backend_row.local or (shape := model_shape(train.model)) is None:
        return []
    estimated = RunFolder(loaded.run_dir).manifest("lengths") if stages.get("lengths") == "up to date" else None
    tokens = min(train.cutoff_len, estimated.summary["row"]["max"] if estimated else train.cutoff_len)
    processes = train.launch.processes
    world = train.launch.nodes * (1 if processes == "auto" else processes)
    needed = estimate(train, shape, tokens, 0, world)
    return [f"training will take {needed} with {train.batch_size} x {tokens:,} tokens: an estimate"]


def _asked_often(loaded: LoadedPipeline, stages: Mapping[str, str]) -> list[str]:
    """Return a note on how often the model is asked, where a protocol ranks the whole catalogue."""
    protocol = loaded.pipeline.evaluate.protocol
    if protocol.negatives.kind != "all":
        return []
    scored = 2 if "base" in loaded.pipeline.evaluate.baselines else 1
    manifest = RunFolder(loaded.run_dir).manifest("data") if stages["data"] == "up to date" else None
    if manifest is None:
        number = "once per test user and item; `msr build-data` counts them"
    else:
        number = f"{manifest.summary['splits']['test']['candidates'] * scored:,} times ({scored} scored)"
    told = [f"{protocol.name} ranks the whole catalogue: the model will be asked {number}"]
    train = loaded.pipeline.train
    if train.keep == "best" and train.checkpoints:
        users = f"{train.selection.users:,} validation users (train.selection.users)"
        told.append(f"keep: best ranks the whole catalogue for at most {users} at each checkpoint too")
    return told


def _reranks(loaded: LoadedPipeline, stages: Mapping[str, str]) -> list[str]:
    """Return a note on how often the model is asked to rank what is retrieved from the whole catalogue."""
    full = loaded.pipeline.evaluate.full
    if full is None or all(stages.get(stage) in (None, "up to date") for stage in ("rerank", "rerank-base")):
        return []
    models = 2 if full.base else 1
    told = f"evaluate.full: {full.retriever} retrieves {full.top:,} items for each test user, and the model ranks them"
    if stages["data"] != "up to date":
        return [f"{told}: {full.top * models:,} prompts a user; `msr build-data` counts the users"]
    number = retrieved_prompts(loaded.pipeline, RunFolder(loaded.run_dir).stage("data")) * models
    return [f"{told}: {number:,} prompts at most ({models} scored)"]


def _fits(loaded: LoadedPipeline, stages: Mapping[str, str]) -> list[str]:
    """Return a note on each baseline that will be tuned: how often it is fitted."""
    from msr_adapter.evaluate.baselines.tuning import fits_text, most_fits

    config = loaded.pipeline.evaluate
    if not config.tune or stages.get("baselines") in (None, "up to date"):
        return []
    fittings = {row.name: row.fitting for row in to_fit(config) if row.fitting}
    return [
        f"{name} is tuned on validation users: at most {fits_text(fitting, config, most_fits(fitting, config))}"
        for name, fitting in fittings.items()
    ]


def _orders(loaded: LoadedPipeline, stages: Mapping[str, str]) -> list[str]:
    if stages["data"] != "up to date" or stages.get("lengths") != "up to date" or loaded.pipeline.train.asks_text:
        return []
    from msr_adapter.pipeline.prompt_order import compare_orders

    return compare_orders(loaded.pipeline, RunFolder(loaded.run_dir))


def look_deep(loaded: LoadedPipeline, stages: Mapping[str, str], reporter: Reporter) -> dict[str, Any]:
    """Check the written rows as before a training, and return what was found with a sentence, ``said``; imports torch.

    ``stages`` is `plan`'s answer. Raises `UserError` with everything that is wrong, and if there are no rows yet.
    """
    from msr_adapter.train import preflight

    if "dataset" not in stages:
        found, step = "a server scores: this run has no training to look at", "Add --set evaluate.scorer=null"
        raise UserError(Problem(loaded.where("evaluate.scorer"), "evaluate.scorer", found, "null", step))
    if stages["dataset"] != "up to date":
        found = f"the rows are not there or not up to date ({stages['dataset']})"
        raise UserError(Problem(loaded.run_dir.as_posix(), "", found, "", "Run `msr build-data` first"))
    folder = RunFolder(loaded.run_dir)
    found_in = preflight(loaded.pipeline.train, stage_dirs(loaded.pipeline, folder), reporter)
    said = (f"{found_in['rows']:,} rows of at most {found_in['longest_row']:,} tokens and {found_in['images']:,} "
            "images are as the training needs them")  # fmt: skip
    return {**found_in, "said": said}


def require(loaded: LoadedPipeline) -> None:
    """Raise one `UserError` with all problems found by `check`."""
    if problems := check(loaded):
        raise UserError(problems)


def _check_selection(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem if the best checkpoint is to be kept and nobody, or no metric, can tell which it is."""
    if loaded.pipeline.train.keep != "best":
        return []
    found = _no_validation(loaded)
    from msr_adapter.score.validation_ranking import cannot_tell, nobody

    if found:
        return [nobody(found, loaded.where("train.keep"))]
    negatives = sum(loaded.pipeline.evaluate.protocol.negatives.kinds().values())
    if not negatives:  # the whole catalogue, whose size is not known yet
        return []
    return cannot_tell(loaded.pipeline.train.selection.metric, negatives + 1, loaded.where("train.selection.metric"))


def _check_hybrid(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem if a hybrid surely has too few validation users: by the split, and by what it asks for."""
    from msr_adapter.evaluate.hybrid.fitting import least_users, too_few

    hybrid, where = loaded.pipeline.evaluate.hybrid, loaded.where("evaluate.hybrid")
    if hybrid is None:
        return []
    if found := _no_validation(loaded):
        return [replace(too_few(0, hybrid, where), found=f"its weights are fitted on validation users, but {found}")]
    return [too_few(hybrid.users, hybrid, where)] if hybrid.users < least_users(hybrid) else []


def _no_validation(loaded: LoadedPipeline) -> str:
    """Return why there are surely no validation users; "" where there may be."""
    split = loaded.pipeline.split
    if split.kind == "user-holdout" and split.fractions[1] == 0:
        return "split.fractions leaves no validation users"
    if split.kind == "temporal" and split.validation_from is None:
        return "split.validation_from is not set, so that there is no validation"
    return ""


def _check_slices(loaded: LoadedPipeline) -> list[Problem]:
    tables = loaded.pipeline.evaluate.tables
    if tables.items is None and tables.users is None:
        return []
    from msr_adapter.evaluate.slice_tables import check_tables

    return check_tables(tables, loaded.where("evaluate.tables"))


def _check_model(loaded: LoadedPipeline, role: str, model: ModelConfig) -> list[Problem]:
    from msr_adapter.llamafactory.model_files import folder_faults

    folder = bundled_model(model.path) or Path(model.path)
    looks_local = folder.is_absolute() or model.path.startswith((".", "~"))
    if not model.backend_row.local or not looks_local:
        return []
    faults = folder_faults(folder) if folder.is_dir() else [absent(folder, "folder")]
    allowed = "a Hugging Face model folder, a hub id, or `tiny`"
    command = "" if folder.exists() else how_to_get(folder)
    step = f"Run `{command}`" if command else "Save the model there with save_pretrained, or correct the path"
    found = f"{model.path}: {'; '.join(faults)}"
    return [Problem(loaded.where(f"{role}.path"), f"{role}.path", found, allowed, step)] if faults else []


def _check_servers(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for a server that is to be trained, and for keys that are not in the environment."""
    summarize, train = loaded.pipeline.summarize, loaded.pipeline.train
    problems = []
    if not train.model.backend_row.trainable:
        step = "Name a local model here, to be trained; a server that serves the result is evaluate.scorer"
        problems.append(Problem(loaded.where("train.model.backend"), "train.model.backend", train.model.backend,
                                "the recommender is trained on this machine", step))  # fmt: skip
    asked = {
        f"summarize.{role}.model": part.model
        for role, part in (("items", summarize.items), ("users", summarize.users))
        if part.mode != "none"
    }
    if loaded.pipeline.evaluate.scorer:
        asked["evaluate.scorer"] = loaded.pipeline.evaluate.scorer
    for role, model in asked.items():
        name = model.server.key_variable if model.backend_row.remote and model.server else None
        if name and not os.environ.get(name):
            setting = f"{role}.server.key_variable"
            found = f"the environment variable {name} is not set"
            problems.append(Problem(loaded.where(setting), setting, found, "", f"export {name}=... in this shell"))
    return problems


def _check_run_dir(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for a run folder that cannot be written, is somebody else's, or has little room on its disk."""
    run_dir = loaded.run_dir
    existing = next(parent for parent in (run_dir, *run_dir.parents) if parent.exists())
    if not existing.is_dir():
        found = f"cannot be written ({existing} is a file)"
        return [Problem(str(run_dir), "run_dir", found, "a folder", "Choose another with --run-dir")]
    stages = [stage.name for stage in STAGES if stage.needed(loaded.pipeline)]
    if problems := folder_problems(run_dir, stages):
        return problems
    free = shutil.disk_usage(existing).free
    if free >= _LEAST_FREE:
        return []
    found = f"{free / 2**20:.0f} MB free on its disk"
    return [Problem(str(run_dir), "run_dir", found, "at least 1 GB", "Free some space or choose another --run-dir")]
