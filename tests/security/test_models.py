"""A model folder is data: none of its code runs."""

import contextlib
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.backends import make_backend
from msr_adapter.config.schema import ModelConfig
from msr_adapter.generation import Request
from tests.support.tiny_models import tiny_model


class _Touch:
    """Unpickled, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (__import__("os").mkdir, (str(self.mark),))


def ask(folder: Path) -> None:
    backend = make_backend(ModelConfig(path=str(folder), template="qwen2_vl"))
    backend.complete([Request(backend.identity, "prompt", max_new_tokens=1)])


@pytest.mark.parametrize("files", [("config.json",), ("config.json", "tokenizer_config.json")])
def test_a_model_folder_runs_no_code(tmp_path: Path, files: tuple[str, ...]) -> None:
    folder, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(tiny_model("qwen2_vl"), folder)
    (folder / "own.py").write_text(f"import os\nos.mkdir({str(mark)!r})\nclass Own: pass\n")
    classes = ("AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoModelForCausalLM", "AutoProcessor")
    for name in files:
        written = json.loads((folder / name).read_text())
        written["auto_map"] = dict.fromkeys(classes, "own.Own") | {"AutoTokenizer": ["own.Own", None]}
        (folder / name).write_text(json.dumps(written))
    with contextlib.suppress(Exception):  # refused or read without its code: both will do
        ask(folder)
    assert not mark.exists()


def test_pickled_weights_run_no_code(tmp_path: Path) -> None:
    folder, mark = tmp_path / "model", tmp_path / "mark"
    shutil.copytree(tiny_model("qwen2_vl"), folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": _Touch(mark)}))
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the loader says
        ask(folder)
    assert not mark.exists()
