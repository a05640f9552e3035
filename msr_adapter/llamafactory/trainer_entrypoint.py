"""Runs LLaMA-Factory in this process or under torchrun, and dies with the process that started it.

Called by path, one of:
    python -P trainer_entrypoint.py <parent's pid> train file.yaml
    python -P trainer_entrypoint.py <parent's pid> torchrun <torchrun's options> file.yaml
    python -P trainer_entrypoint.py <parent's pid> ray <arguments of ray_launch.main>
torchrun's processes run this file again and die with torchrun's own. Nothing of ours is imported but for Ray.
"""

import ctypes
import os
import pathlib
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1
_AGENT = "MSR_TORCHRUN_PID"
"""Tells torchrun's processes whose children they are."""


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when ``parent`` is gone, even by ``kill -9``; elsewhere do nothing."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def _prepare() -> None:
    # By path, as this file is run: the trainer's processes import none of our packages.
    here = pathlib.Path(__file__)
    runpy.run_path(str(here.with_name("literal_paths.py")))["install"]()
    runpy.run_path(str(here.with_name("trainer_callbacks.py")))["install"](pathlib.Path(sys.argv[-1]).parent)
    answer_logits = runpy.run_path(str(here.with_name("answer_logits.py")))
    if answer_logits["VARIABLE"] in os.environ:
        answer_logits["install"]()


if __name__ == "__main__":
    if _AGENT in os.environ:
        die_with(int(os.environ[_AGENT]))
        _prepare()
        runpy.run_module("llamafactory.launcher", run_name="__main__", alter_sys=True)
    else:
        die_with(int(sys.argv.pop(1)))
        if sys.argv[1] == "torchrun":
            from torch.distributed.run import main

            os.environ[_AGENT] = str(os.getpid())
            # By a list: LLaMA-Factory's own launcher splits a string, and paths with blanks with it.
            main([*sys.argv[2:-1], __file__, sys.argv[-1]])
        elif sys.argv[1] == "ray":
            del sys.argv[1]
            runpy.run_module("msr_adapter.llamafactory.ray_launch", run_name="__main__", alter_sys=True)
        else:
            _prepare()
            runpy.run_module("llamafactory.cli", run_name="__main__", alter_sys=True)
