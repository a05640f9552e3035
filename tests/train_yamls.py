"""Runs LLaMA-Factory on every YAML of a folder, all in one process: its imports cost more than tiny trainings.

Called as ``python train_yamls.py FOLDER``. A training that fails leaves its traceback in `NAME.error`.
"""

import sys
import traceback
from pathlib import Path


def run(path: Path) -> None:
    """Train as `llamafactory-cli train` does with the file."""
    from llamafactory.train.tuner import run_exp
    from omegaconf import OmegaConf

    try:
        run_exp(OmegaConf.to_container(OmegaConf.load(path)))
    except Exception:
        path.with_suffix(".error").write_text(traceback.format_exc(), encoding="utf-8")


if __name__ == "__main__":
    for each in sorted(Path(sys.argv[1]).glob("*.yaml")):
        run(each)
