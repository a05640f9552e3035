"""Runs LLaMA-Factory on every YAML of a folder, all in one process: its imports cost more than tiny trainings.

Called as ``python train_yamls.py FOLDER``. A training that fails leaves its traceback in `NAME.error`. With
``--tokens``, each leaves `NAME.json`: the tokens and labels that were trained, row by row in the data set's order.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any


def run(path: Path, tokens: bool) -> None:
    """Train as `llamafactory-cli train` does with the file."""
    from llamafactory.train.tuner import run_exp
    from omegaconf import OmegaConf
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        def on_train_begin(self, *_: Any, train_dataloader: Any = None, **__: Any) -> None:
            rows = train_dataloader.dataset
            seen = {"input_ids": rows["input_ids"][:], "labels": rows["labels"][:]}
            path.with_suffix(".json").write_text(json.dumps(seen), encoding="utf-8")

    try:
        run_exp(OmegaConf.to_container(OmegaConf.load(path)), callbacks=[Recorder()] if tokens else None)
    except Exception:
        path.with_suffix(".error").write_text(traceback.format_exc(), encoding="utf-8")


if __name__ == "__main__":
    for each in sorted(Path(sys.argv[1]).glob("*.yaml")):
        run(each, "--tokens" in sys.argv)
