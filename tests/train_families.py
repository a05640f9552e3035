"""Runs LLaMA-Factory on every YAML of a folder, all in one process: its imports cost more than the trainings.

Called as ``python train_families.py FOLDER``. Beside each `NAME.yaml` it leaves `NAME.json` with the tokens and labels
that were trained, row by row in the data set's order, or the traceback of what went wrong.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any


def run(path: Path) -> None:
    """Train as `llamafactory-cli train` does with the file, and write down what was trained on."""
    from llamafactory.train.tuner import run_exp
    from omegaconf import OmegaConf
    from transformers import TrainerCallback

    seen: dict[str, Any] = {}

    class Recorder(TrainerCallback):
        def on_train_begin(self, *_: Any, train_dataloader: Any = None, **__: Any) -> None:
            rows = train_dataloader.dataset
            seen.update(input_ids=rows["input_ids"][:], labels=rows["labels"][:])

    try:
        run_exp(OmegaConf.to_container(OmegaConf.load(path)), callbacks=[Recorder()])
    except Exception:
        seen["error"] = traceback.format_exc()
    path.with_suffix(".json").write_text(json.dumps(seen), encoding="utf-8")


if __name__ == "__main__":
    for each in sorted(Path(sys.argv[1]).glob("*.yaml")):
        run(each)
