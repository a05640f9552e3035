"""One training from where it stands to its end: started or continued, watched, stopped early when there is no use."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from msr_adapter.config.models import Train
from msr_adapter.llamafactory.checkpoints import checkpoints, read_state, strip, whole
from msr_adapter.llamafactory.handshake import FOLDER, Desk
from msr_adapter.llamafactory.joining import MEETING, announced
from msr_adapter.llamafactory.launch import Beside, Trained, launch, told
from msr_adapter.llamafactory.measured import MemoryWatch, descendants, measures
from msr_adapter.llamafactory.models import is_small
from msr_adapter.llamafactory.nodes import Place
from msr_adapter.progress import Reporter
from msr_adapter.train.selection import Chooser
from msr_adapter.train.working import Working

_CONTINUABLE = 2
"""Checkpoints that keep what a continued training needs: the last one, and one to fall back on."""
_MEMORY_EVERY = 5
"""Looks at the trainer between two at its memory, whose peak the kernel keeps."""


def bring_to_end(
    train: Train, place: Place, work: Working, run_dir: Path, chooser: Chooser | None, reporter: Reporter
) -> Trained:
    """Train, from the last checkpoint in ``work`` if there is one, and return what was trained.

    With a patient ``chooser``, checkpoints are judged as they come and training may end before its last step. Raises
    `StageError` when LLaMA-Factory fails or trains nothing; the checkpoints stay.
    """
    # LLaMA-Factory cannot go on with a reward model: its value head is saved apart.
    start = work.settle(place.world, anew=train.objective == "reward")
    if start:
        reporter.note(f"  goes on from the checkpoint of step {start}")
    patient = chooser if chooser and chooser.selection.patience else None
    if patient:
        patient.look_at(whole(work.model))
        if patient.exhausted():  # it was killed after its last step
            return told(read_state(checkpoints(work.model)[start]))
    before = read_state(checkpoints(work.model)[start]).get("num_input_tokens_seen", 0) if start else 0
    watch = _Watch(work, patient, keep_weights=chooser is not None, gpu=place.gpus > 0)
    with announced(run_dir / MEETING, work.yaml, place):
        trained = launch(
            work.yaml, work.model, method=train.method, small=is_small(train.model), place=place, reporter=reporter,
            start=start, beside=watch.beside(),
        )  # fmt: skip
    rows = train.batch_size * train.gradient_accumulation * place.world
    waited = patient.waited if patient else 0.0
    took = measures(work.model, work.log, start, before, rows, waited) | {"peak_bytes": watch.memory.peak}
    return replace(trained, measured=took)


@dataclass
class _Watch:
    """Looks after a running trainer's checkpoints."""

    work: Working
    chooser: Chooser | None
    """Judges each checkpoint while the trainer waits."""
    keep_weights: bool
    """The trainer removes no checkpoint; we take from old ones what they need no more."""
    seen: set[int] = field(default_factory=set)
    gpu: bool = False
    stopped: int | None = None
    desk: Desk | None = None
    memory: MemoryWatch = field(default_factory=MemoryWatch)
    looks: int = 0

    def beside(self) -> Beside:
        environment = {"RECORD_VRAM": "1"} if self.gpu else {}  # the log then says what the GPU held
        folder = self.work.yaml.with_name(FOLDER)
        shutil.rmtree(folder, ignore_errors=True)
        self.desk = Desk(folder) if self.chooser else None
        return Beside(environment, self._look, lambda: self.stopped)

    def _look(self, trainer: int) -> None:
        if self.looks % _MEMORY_EVERY == 0:
            self.memory.look(descendants(trainer))
        self.looks += 1
        if self.keep_weights and (there := set(checkpoints(self.work.model))) != self.seen:
            self.seen = there
            for checkpoint in list(whole(self.work.model).values())[:-_CONTINUABLE]:
                strip(checkpoint)
        if self.desk and self.chooser and (step := self.desk.asked()):
            self.chooser.look_at({step: checkpoints(self.work.model)[step]}, aside=True)
            stop = self.chooser.exhausted()
            self.stopped = step if stop else None
            self.desk.answer(step, stop=stop)
