"""Files and folders that are not what they should be, over inputs and run folders: no traceback, no hang."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.hostile_files import HangError, cases, harm, msr, write_inputs

NUMBER = int(os.environ.get("MSR_TORTURE_FILES", "60"))


@pytest.mark.slow
def test_no_file_or_folder_ends_a_command_in_a_traceback_or_keeps_it_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, work = tmp_path / "base", tmp_path / "work"
    write_inputs(base)
    monkeypatch.chdir(base)
    assert msr("run p.yaml --run-dir run")[0] == 0
    wrong = []
    for case in cases(base)[:NUMBER]:
        monkeypatch.chdir(tmp_path)
        shutil.copytree(base, work, symlinks=True)
        monkeypatch.chdir(work)
        harm(work / case.name, case.fault, random.Random(case.seed))
        try:
            code, _, bug = msr(case.command)
        except HangError:
            code, bug = -1, None
        if bug is not None or code not in (0, 1, 2):
            wrong.append(f"{case} -> {code} {bug!r}")
        monkeypatch.chdir(tmp_path)
        subprocess.run(["rm", "-rf", str(work)], check=True)  # deeper than Python removes
    assert wrong == []
