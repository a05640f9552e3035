"""The fine-tuning itself: check, write the YAML, let LLaMA-Factory train or go on, keep the wanted checkpoint."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import StageError
from msr_adapter.files import write_json
from msr_adapter.filesystem import holds_pattern
from msr_adapter.integrity import digests_of
from msr_adapter.llamafactory.answer_logits import said
from msr_adapter.llamafactory.checkpoints import checkpoints, read_state, strip, whole
from msr_adapter.llamafactory.device_defaults import describe, trainer_environment, with_device_defaults
from msr_adapter.llamafactory.finetuning_methods import method_of
from msr_adapter.llamafactory.fitting_weights import require_fitting_adapters
from msr_adapter.llamafactory.launcher import Trained, TrainerRun, TrainerWatch, launch, trained_of
from msr_adapter.llamafactory.model_weights import (
    MODEL,
    VALUE_HEAD,
    Weights,
    is_small,
    model_stamp,
    own_adapters,
    starting_weights,
    write_origin,
)
from msr_adapter.llamafactory.nodes import Node, by_hand, find_place
from msr_adapter.llamafactory.objectives import objective_of
from msr_adapter.llamafactory.rendezvous import RENDEZVOUS, announced, join
from msr_adapter.llamafactory.trainer_callbacks import FOLDER, StopQuestions
from msr_adapter.llamafactory.training_measurements import MemoryWatch, descendants, measures
from msr_adapter.llamafactory.training_yaml import training_config, write_yaml
from msr_adapter.llamafactory.versions import require_versions
from msr_adapter.progress import Reporter
from msr_adapter.schema import listed_digest
from msr_adapter.stage_arguments import Job, StageDirs
from msr_adapter.train.checkpoint_selection import Chooser, Judge
from msr_adapter.train.preflight import preflight
from msr_adapter.train.working_dir import WorkingDir, working_dir

YAML = "train.yaml"

_COMMENT = """\
Written by msr. The same training by hand: llamafactory-cli train {path}
Its result goes to output_dir, which must not hold a model yet."""
_ONLY_BY_MSR = """\
Written by msr. llamafactory-cli expands [, *, ? and $ in a path, so it would not find dataset_dir: train with msr, or
move the run to a folder without them and correct the paths."""
_CONTINUABLE = 2
"""Checkpoints that keep what a continued training needs: the last one, and one to fall back on."""
_MEMORY_EVERY = 5
"""Looks at the trainer between two at its memory, whose peak the kernel keeps."""


def train(
    train: TrainConfig, dirs: StageDirs, job: Job, unfinished: Path | None = None, judge: Judge | None = None
) -> dict[str, Any]:
    """Train the recommender into `model` and return counts and losses; `train.log` and `train.yaml` beside it.

    ``unfinished`` is a folder on the same disk that outlives a kill: the same training called again goes on from its
    last checkpoint there; it may go when the job's folder is where it belongs. With ``judge``, the checkpoint that it
    values most is kept, and `selection.json` says why. ``working_dir`` in the counts is the name of the folder below
    ``unfinished`` that has become the model. Raises `UserError` before anything is trained, `StageError` when
    LLaMA-Factory fails or trains nothing; the checkpoints stay for the next attempt then.
    """
    out, reporter = job.out, job.reporter
    require_versions()
    write_origin(out, origin := starting_weights(train))
    # The trainer is another process, whose libraries load what fits and warn of the rest.
    require_fitting_adapters(train.model, origin.full, (*own_adapters(train.model), *origin.adapters))
    place = training_place(train)
    checked = preflight(train, dirs, reporter)
    settled = with_device_defaults(train, checked["longest_row"], cuda=place.gpus > 0)
    reporter.note(f"  trains in {describe(settled, cuda=place.gpus > 0)}")
    config = training_config(settled, dirs.data, dirs.dataset, out / MODEL, job.seed, place)
    work = working_dir(unfinished or out / ".unfinished", config, place.world, content_stamps(train, dirs, origin))
    chooser = Chooser(train.selection, judge, reporter) if judge else None
    work.require_unaltered()
    if chooser:  # first of all: a judge that fails, fails before hours of training
        chooser.look_at({0: None})
    trained = work.done()
    if trained is None:
        _write(work.yaml, config | {"output_dir": str(work.model.resolve())})
        trained = train_to_end(train, place, work, out.parent, chooser, reporter)
        work.finish(trained)
    selected = _select(chooser, work, trained, out)
    chosen = work.candidates(trained.steps)[selected.get("chosen", trained.steps)]
    if objective_of(train).value_head and not (chosen / VALUE_HEAD).is_file():
        raise StageError(f"LLaMA-Factory ended without an error, but saved no {VALUE_HEAD} ({chosen})")
    freed = work.hand_over(out, chosen)
    if unfinished is None:
        shutil.rmtree(work.folder.parent)
    # The job's folder gets another name when the stage is done: the YAML that stays must not point into it.
    _write(out / YAML, config | {"output_dir": str(out.resolve().parent / "trained-by-hand")})
    return {
        **checked, "steps": trained.steps, "first_loss": trained.first_loss, "last_loss": trained.last_loss,
        "mean_loss": trained.mean_loss, "validation_loss": selected.get("loss", trained.eval_loss),
        "planned_steps": trained.planned, "pruned_bytes": freed, "measured": dict(trained.measured),
        **({"selection": selected} if selected else {}), **({"working_dir": work.folder.name} if unfinished else {}),
    }  # fmt: skip


def content_stamps(train: TrainConfig, dirs: StageDirs, origin: Weights) -> list[object]:
    """Identify the rows, the images and the weights that a training starts from, wherever they lie."""
    rows, images = digests_of(dirs.dataset), listed_digest(dirs.data / "items.parquet")
    return [rows, images, model_stamp(train.model), *origin.stamps()]


def train_to_end(
    train: TrainConfig, place: Node, work: WorkingDir, run_dir: Path, chooser: Chooser | None, reporter: Reporter
) -> Trained:
    """Train, from the last checkpoint in ``work`` if there is one, and return what was trained.

    With a patient ``chooser``, checkpoints are judged as they come and training may end before its last step. Raises
    `StageError` when LLaMA-Factory fails or trains nothing; the checkpoints stay.
    """
    # LLaMA-Factory cannot go on with a reward model: its value head is saved apart.
    start = work.settle(place.world, anew=objective_of(train).value_head)
    if start:
        reporter.note(f"  goes on from the checkpoint of step {start}")
    patient = chooser if chooser and chooser.selection.patience else None
    if patient:
        patient.look_at(whole(work.model))
        if patient.exhausted():  # it was killed after its last step
            return trained_of(read_state(checkpoints(work.model)[start]))
    before = read_state(checkpoints(work.model)[start]).get("num_input_tokens_seen", 0) if start else 0
    gpu = place.gpus > 0
    variables = trainer_environment(train, cuda=gpu) | (
        {"RECORD_VRAM": "1"} if gpu else {}
    )  # the log tells what it held
    watch = _Watch(work, patient, chooser is not None, variables, set(whole(work.model)))
    run = TrainerRun(work.yaml, work.model, method_of(train).saved, is_small(train.model), place, start)
    with announced(run_dir / RENDEZVOUS, work.yaml, place):
        trained = launch(run, reporter, watch.prepared())
    if of_logits := said(work.log):
        reporter.note(f"  {of_logits}")
    rows = train.batch_size * train.gradient_accumulation * place.world
    waited = patient.waited if patient else 0.0
    took = measures(work.model, work.log, start, before, rows, waited) | {"peak_bytes": watch.memory.peak}
    return replace(trained, measured=took)


@dataclass
class _Watch:
    """What is done beside a running trainer: old checkpoints are stripped, new ones judged, its memory looked at."""

    work: WorkingDir
    chooser: Chooser | None
    """Judges each checkpoint while the trainer waits."""
    keep_weights: bool
    """The trainer keeps all checkpoints; old ones lose what only a continued training needs."""
    variables: Mapping[str, str]
    """Of the trainer's environment."""
    seen: set[int] = field(default_factory=set)
    stopped: int | None = None
    questions: StopQuestions | None = None
    memory: MemoryWatch = field(default_factory=MemoryWatch)
    looks: int = 0

    def prepared(self) -> TrainerWatch:
        """Return what `launch` takes; without a chooser, the trainer must find nothing to ask."""
        folder = self.work.yaml.with_name(FOLDER)
        shutil.rmtree(folder, ignore_errors=True)  # the trainer asks wherever it finds the folder
        self.questions = StopQuestions(folder) if self.chooser else None
        return TrainerWatch(self.variables, self._look, lambda: self.stopped)

    def _look(self, trainer: int) -> None:
        """Look at memory and checkpoints; answer the trainer if it waits. ``trainer`` is its process id."""
        if self.looks % _MEMORY_EVERY == 0:
            self.memory.look(descendants(trainer))
        self.looks += 1
        if set(checkpoints(self.work.model)) - self.seen:
            there = whole(self.work.model)
            for new in there.keys() - self.seen:
                self.work.note(there[new])
            self.seen |= there.keys()
            for checkpoint in list(there.values())[:-_CONTINUABLE] if self.keep_weights else ():
                strip(checkpoint)
        if self.questions and self.chooser and (step := self.questions.asked()):
            self.chooser.look_at({step: checkpoints(self.work.model)[step]}, aside=True)
            stop = self.chooser.exhausted()
            self.stopped = step if stop else None
            self.questions.answer(step, stop=stop)


def _select(chooser: Chooser | None, work: WorkingDir, trained: Trained, out: Path) -> dict[str, Any]:
    """Judge what is not judged yet and write `selection.json`; {} without a chooser."""
    if chooser is None:
        return {}
    chooser.look_at(work.candidates(trained.steps))
    selected = chooser.outcome(trained.steps, trained.planned)
    chooser.reporter.note(f"  kept: checkpoint {selected['chosen']}, the {selected['reason']}")
    write_json(out / "selection.json", selected)
    return selected


# Training by hand, and on several machines.


def write_training_yaml(train: TrainConfig, dirs: StageDirs, job: Job) -> Path:
    """Check the rows as `train` does, write `train.yaml` and return its path; trains nothing.

    `commands_by_hand` has the commands that take the file as it is and write `model` beside it.
    """
    require_versions()
    place = first_place(train)
    checked = preflight(train, dirs, job.reporter)
    settled = with_device_defaults(train, checked["longest_row"], cuda=place.gpus > 0)
    _write(job.out / YAML, training_config(settled, dirs.data, dirs.dataset, job.out / MODEL, job.seed, place))
    return job.out / YAML


def commands_by_hand(train: TrainConfig, yaml: Path) -> list[str]:
    """Return the shell commands that train ``yaml`` without msr: one for each machine, in their order."""
    return by_hand(first_place(train), yaml)


def first_place(train: TrainConfig) -> Node:
    """Return the first machine's place, on a machine that is like it; where none is known, it is called FIRST_HOST."""
    import torch

    environment = {**os.environ, "NODE_RANK": "0"}
    # Of all that may name the first machine, `find_place` asks this last.
    environment.setdefault("SLURM_JOB_NODELIST", "FIRST_HOST")
    return find_place(train.launch, environment, torch.cuda.device_count())


def training_place(train: TrainConfig) -> Node:
    """Return this machine's part in the training; imports torch. Raises `UserError` where it has none."""
    import torch

    return find_place(train.launch, os.environ, torch.cuda.device_count())


def join_training(train: TrainConfig, run_dir: Path, reporter: Reporter) -> bool:
    """Train beside the first machine in ``run_dir`` and return True; False on the first one, which does all else."""
    if train.launch.nodes == 1 or (place := training_place(train)).rank == 0:
        return False
    join(run_dir, place, train.launch.wait, small=is_small(train.model), reporter=reporter)
    return True


def _write(yaml: Path, config: Mapping[str, object]) -> None:
    comment = _ONLY_BY_MSR if holds_pattern(config["dataset_dir"]) else _COMMENT.format(path=yaml.name)
    write_yaml(yaml, config, comment)
