"""What a training took, by the trainer's log and results; peak memory, which it does not log, by the kernel."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msr_adapter.files import read_json_object
from msr_adapter.llamafactory.checkpoints import TRAINER_LOG, log_row, read_state

_PARAMETERS = re.compile(r"trainable params: ([\d,]+) \|\| all params: ([\d,]+)")
_HEAD_BYTES = 2**20
_KIB, _GIB = 1024, 2**30


@dataclass
class MemoryWatch:
    """The peak resident memory of a process and its descendants; each look costs a few small files of `/proc`."""

    peak: int | None = None
    """Of the largest of them, in bytes; None where the kernel does not tell."""

    def look(self, pids: Iterable[int]) -> None:
        """Take note of what ``pids`` have used at most until now."""
        for pid in pids:
            try:
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
            except OSError:  # gone, or no Linux
                continue
            if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
                self.peak = max(self.peak or 0, int(found[1]) * _KIB)


def descendants(pid: int) -> list[int]:
    """Return ``pid`` and the processes below it; itself alone where the kernel does not tell."""
    found = [pid]
    for parent in found:
        for path in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, path.read_text(encoding="utf-8").split())
            except OSError:
                continue
    return found


def measures(
    output_dir: Path, log: Path, start: int, tokens_before: int, step_rows: int, waited: float
) -> dict[str, float | None]:
    """Return what the training that ended in ``output_dir`` took, since it last went on from step ``start``.

    ``log`` is what the trainer said, ``step_rows`` the rows of a step, ``waited`` the seconds it waited for a judge.
    Keys: `seconds`, `from_step`, `rows_per_second`, `tokens_per_second`, `trainable_parameters`, `parameters`,
    `peak_gpu_bytes` (of one process); what the trainer did not say is None.
    """
    results, state = read_json_object(output_dir / "train_results.json"), read_state(output_dir)
    seconds = float(results.get("train_runtime", 0)) - waited
    steps, tokens = state.get("global_step", 0) - start, state.get("num_input_tokens_seen", 0) - tokens_before
    trainable, parameters = _parameters(log)
    events = output_dir / TRAINER_LOG
    lines = events.read_text(encoding="utf-8", errors="replace").splitlines() if events.is_file() else []
    peak = max((float(log_row(line).get("vram_allocated", 0)) for line in lines), default=0.0)  # GiB, first process
    return {
        "seconds": seconds if seconds > 0 else None,
        "from_step": start,
        "rows_per_second": steps * step_rows / seconds if seconds > 0 else None,
        "tokens_per_second": tokens / seconds if seconds > 0 and tokens > 0 else None,
        "trainable_parameters": trainable,
        "parameters": parameters,
        "peak_gpu_bytes": round(peak * _GIB) or None,
    }


def _parameters(log: Path) -> tuple[int | None, int | None]:
    """Return how many parameters are trained, and how many there are; said before the first step."""
    if not log.is_file():
        return None, None
    with log.open("rb") as file:
        text = file.read(_HEAD_BYTES).decode("utf-8", errors="replace")
    found = _PARAMETERS.search(text)
    return (int(found[1].replace(",", "")), int(found[2].replace(",", ""))) if found else (None, None)
