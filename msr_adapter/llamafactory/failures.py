"""Why a training failed: the known patterns in LLaMA-Factory's output, each with its cause and the next step."""

import re
import signal
from pathlib import Path
from typing import NamedTuple

from msr_adapter.errors import StageError, plural
from msr_adapter.filesystem import FULL, is_nearly_full
from msr_adapter.llamafactory.versions import INSTALL

_TAIL_BYTES = 64 * 2**10
_LAST_LINES = 12


class Known(NamedTuple):
    """A failure with a known cause."""

    pattern: str
    """A regular expression, searched for in the end of the log."""
    cause: str
    next_step: str


_ROOM = "free some space or move --run-dir"
KNOWN = (
    Known(r"not used by the HfArgumentParser", "a key under train.overrides is not a LLaMA-Factory argument",
          "correct or remove the key named above"),
    Known(r"No space left on device|Disk quota exceeded", FULL, _ROOM),
    Known(r"out of memory|OutOfMemoryError|can't allocate memory|Cannot allocate memory",
          "the batch does not fit in the memory of this device",
          "lower train.batch_size (raise gradient_accumulation instead), cutoff_len or model.image_max_pixels, "
          "or choose bfloat16"),
    Known(r"UnidentifiedImageError|cannot identify image file|image file is truncated|broken data stream",
          "an image file of the data set is damaged or is not an image",
          "rebuild the data stage (--force data), which checks every image"),
    Known(r"FileNotFoundError: .*\.(jpe?g|png|webp)", "an image of the data set has disappeared since it was built",
          "rebuild the data stage (--force data)"),
    Known(r"[Ii]mage features and image tokens do not match|shape mismatch: value tensor",
          "a row was cut at cutoff_len inside its image tokens, or model.template is not this model's",
          "raise train.cutoff_len or lower model.image_max_pixels; check model.template"),
    Known(r"number of images does not match the number of", "a text contains a literal placeholder such as <image>",
          "rebuild the dataset stage (--force dataset), which makes such texts harmless"),
    Known(r"Cannot find valid samples", "no row of the data set could be read as a conversation",
          "rebuild the dataset stage (--force dataset)"),
    Known(r"does not support image input|[Pp]rocessor was not found",
          "the model or its template has no image input, or the model folder lacks its processor files",
          "check model.template and the model folder, or set train.images: false"),
    Known(r"compiled with different CUDA versions|torchvision::nms does not exist|_torchaudio\.abi3",
          "the versions of torch, torchvision and torchaudio do not match", f"run: {INSTALL}"),
    Known(r"To fix: run `pip install|is required for a normal functioning",
          "a library has a version LLaMA-Factory refuses", "run the pip command named above"),
    Known(r"doesn't support bf16", "this device cannot compute in bfloat16", "set train.model.dtype: float32"),
    Known(r"Target modules .* not found", "train.lora.target names no module of this model", "use target: all"),
    Known(r"couldn't connect to|Max retries exceeded|not a valid model identifier|Failed to load tokenizer",
          "the model's files cannot be found or downloaded", "check train.model.path and the network"),
    Known(r"KeyboardInterrupt", "it was interrupted", "run the same command again"),
)  # fmt: skip
"""First match wins."""


def explain(returncode: int, log: Path, steps: int) -> StageError:
    """Return the error for a trainer that ended with ``returncode`` after ``steps`` steps; reads the end of ``log``."""
    tail = _tail(log)
    known = next((known for known in KNOWN if re.search(known.pattern, tail)), None)
    lines = "\n".join(f"  | {line}" for line in tail.strip().splitlines()[-_LAST_LINES:])
    ending = (f"failed with exit code {returncode}" if returncode >= 0
              else f"was ended by {signal.Signals(-returncode).name}")  # fmt: skip
    what = f"LLaMA-Factory {ending} after {plural(steps, 'step')}. The end of {log}:\n{lines}"
    if known is not None:
        return StageError(what, known.cause, known.next_step)
    if is_nearly_full(log.parent):  # the trainer could not even say so
        return StageError(what, FULL, _ROOM)
    if returncode == -signal.SIGKILL:
        cause = "the system ran out of memory and killed it, or somebody killed it"
        return StageError(what, cause, "watch the memory during the next run; lower train.batch_size")
    return StageError(what, "not a failure known to msr", "read the log from its first error on")


def _tail(log: Path) -> str:
    """Return the last 64 KiB of a log as lines; the rewritten lines of a progress bar count once."""
    if not log.is_file():
        return "(no output)"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    # A progress bar rewrites its line: keep what it said last.
    return "\n".join(line.rsplit("\r", 1)[-1] for line in text.replace("\r\n", "\n").split("\n"))
