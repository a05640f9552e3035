"""Runs LLaMA-Factory's command line in this process, and dies with the process that started it.

Called by path: ``python -P guard.py <parent's pid> train file.yaml``. Nothing of ours is imported.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Ask Linux to kill this process when ``parent`` is gone, even by ``kill -9``; elsewhere do nothing."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before we asked
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with(int(sys.argv.pop(1)))
    runpy.run_module("llamafactory.cli", run_name="__main__", alter_sys=True)
