"""A pretrained model, SmolLM2-135M-Instruct, where the package that carries it is installed."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import pytest

from msr_adapter.doctor.libraries import is_there
from msr_adapter.llamafactory.packaged_models import MODELS
from msr_adapter.progress import Reporter
from msr_adapter.workflows.get_model import get_model

SMOLLM2 = MODELS[0]
needs_smollm2 = pytest.mark.skipif(
    not (is_there(SMOLLM2.module) and is_there("gguf")), reason=f"needs a pretrained model: {SMOLLM2.install}"
)


@functools.cache
def smollm2() -> Path:
    """Return a folder with the model, written once."""
    folder = Path(tempfile.mkdtemp(prefix="smollm2-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    get_model(SMOLLM2.name, folder, Reporter(quiet=True))
    return folder
