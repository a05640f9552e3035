"""msr doctor: what is broken is a finding with its mend, never a traceback; secrets are never printed."""

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from msr_adapter import doctor as doctor_package
from msr_adapter.cli import app
from msr_adapter.doctor import diagnose, examine, gpu_libraries, hardware, libraries
from msr_adapter.doctor.diagnosis import Finding
from msr_adapter.doctor.environment import variables
from msr_adapter.doctor.libraries import LIBRARIES, optional
from msr_adapter.doctor.probes import Probes, probe, probe_all, probe_each
from msr_adapter.llamafactory import kernels
from msr_adapter.llamafactory.installed import flash_attention_needs_sinks
from msr_adapter.llamafactory.launcher import UNSET
from msr_adapter.llamafactory.versions import INSTALL, PINNED

GPU = {"name": "NVIDIA H100", "capability": [9, 0], "total_bytes": 80 * 10**9, "free_bytes": 79 * 10**9,
       "bfloat16": True}  # fmt: skip
OLD_GPU = {**GPU, "name": "Tesla V100", "capability": [7, 0], "bfloat16": False}
TORCH = {"version": "2.11.0", "cuda": "13.0", "hip": None, "threads": 2, "mps": False, "devices": [],
         "torchvision": {"version": "0.26.0"}, "torchaudio": {"version": "2.11.0"}}  # fmt: skip


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Replace the imports by what the test says of them: all is well at first, and no optional library is there."""
    probed: dict[str, dict[str, Any]] = {"torch": dict(TORCH), "llamafactory": {"version": PINNED["llamafactory"]}}
    monkeypatch.setattr(doctor_package, "probe_all", lambda names: {name: probed[name] for name in names})
    monkeypatch.setattr(doctor_package, "present", lambda: [name for name in probed if name not in PROBED_ALWAYS])
    return probed


PROBED_ALWAYS = ("torch", "llamafactory")


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def library(folder: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("__version__ = '7'; print('chatter')", {"version": "7"}),
        ("raise OSError('libfoo.so: undefined symbol\\nmore')", {"error": "OSError: libfoo.so: undefined symbol"}),
        ("raise SystemExit(3)", {"error": "SystemExit: 3"}),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", {"error": "the import was ended by SIGSEGV"}),
        ("import os; os._exit(5)", {"error": "the import ended with exit code 5"}),
    ],
)
def test_an_import_breaks_alone(
    code: str, expected: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(tmp_path, "odd_library", code, monkeypatch)
    assert probe("odd_library") == expected


def test_an_import_that_hangs_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(tmp_path, "odd_library", "import time; time.sleep(600)", monkeypatch)
    assert probe("odd_library", timeout=0.5) == {"error": "the import did not finish within 0 s"}


def test_libraries_share_a_process_until_one_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known is told at once, and what comes after a crash or a hang is probed all the same."""
    code = {"first": "import os; __version__ = str(os.getpid())", "second": "import os; __version__ = str(os.getpid())",
            "crash": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "hang": "import time; time.sleep(600)",
            "fault": "raise ImportError('no CUDA')", "last": "__version__ = '9'"}  # fmt: skip
    for name, text in code.items():
        library(tmp_path, f"odd_{name}", text, monkeypatch)
    told: dict[str, dict[str, Any]] = {}
    probe_each([f"odd_{name}" for name in code], told.__setitem__, timeout=5)
    found = {name.removeprefix("odd_"): one for name, one in told.items()}
    assert list(found) == list(code)
    assert found["first"] == found["second"] != {}
    assert found["crash"] == {"error": "the import was ended by SIGSEGV"}
    assert found["hang"] == {"error": "the import did not finish within 5 s"}
    assert found["fault"] == {"error": "ImportError: no CUDA"}
    assert found["last"] == {"version": "9"}


def test_to_look_one_up_waits_for_that_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(tmp_path, "odd_quick", "__version__ = '1'", monkeypatch)
    gate = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.01)"
    library(tmp_path, "odd_slow", gate, monkeypatch)
    probed = Probes(["odd_quick", "odd_slow"])
    assert "odd_slow" in probed
    assert "other" not in probed
    assert probed["odd_quick"] == {"version": "1"}
    (tmp_path / "go").touch()
    assert probed["odd_slow"] == {"version": ""}


def test_what_is_known_is_shown_while_the_rest_is_awaited(
    machine: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Slowly(dict[str, dict[str, Any]]):
        def __getitem__(self, name: str) -> dict[str, Any]:
            asked.append(name)
            return super().__getitem__(name)

    monkeypatch.setattr(doctor_package, "probe_all", lambda _: Slowly(machine))
    parts = examine(tmp_path)
    waiting, findings, _ = next(parts)
    assert (waiting, asked) == ("importing torch", [])
    assert {one.section for one in findings} == {"Environment", "Processor, memory, disk"}
    next(parts)
    assert asked == ["torch"]
    assert [waiting for waiting, _, _ in parts] == ["importing the optional libraries", ""]
    assert len(diagnose(tmp_path).findings) > 20


def test_the_trainers_environment_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(tmp_path, "odd_library", "import os; __version__ = os.environ.get('USE_V1', 'unset')", monkeypatch)
    monkeypatch.setenv("USE_V1", "1")
    assert probe_all(["odd_library"]) == {"odd_library": {"version": "unset"}}


def test_a_mismatched_torchaudio_is_a_finding_with_the_command_that_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library(tmp_path, "torchaudio", "raise OSError('Could not load _torchaudio.abi3.so')", monkeypatch)
    torch = probe("torch")  # the real one
    assert torch["version"].startswith(PINNED["torch"])
    assert torch["torchaudio"] == {"error": "OSError: Could not load _torchaudio.abi3.so"}
    found = {one.name: one for one in libraries.needed({"torch": torch, "llamafactory": {"error": "the same"}})}
    assert [name for name, one in found.items() if one.state == "error"] == ["torchaudio", "llamafactory"]
    assert found["torchaudio"].mend == INSTALL
    assert "torch==2.11.0" in INSTALL


def test_a_broken_torch_is_said_and_ends_with_1(machine: dict[str, dict[str, Any]]) -> None:
    machine["torch"] = {"error": "ImportError: libcudart.so.13"}
    machine["llamafactory"] = {"error": "ImportError: libcudart.so.13"}
    result = doctor("--json")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["ok"]) == (1, False)
    bad = [finding["name"] for finding in answer["findings"] if finding["state"] == "error"]
    assert bad == ["torch", "torchvision", "torchaudio", "llamafactory"]
    assert answer["verdict"] == f"Training cannot work here: {', '.join(bad)}."
    assert "ImportError: libcudart.so.13" in doctor().stdout


def test_another_version_is_held_against_the_pin(
    machine: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"llamafactory": "0.9.4", "torch": "2.10.0+cu128", "transformers": "5.9.0", "peft": None}
    installed = libraries.installed_version
    monkeypatch.setattr(libraries, "installed_version", lambda name: versions.get(name, installed(name)))
    found = {one.name: one for one in libraries.needed(machine)}
    assert (found["llamafactory"].state, found["llamafactory"].found) == ("error", "0.9.4")
    assert (found["torch"].state, found["torch"].found) == ("warning", "2.10.0+cu128 for CUDA 13.0")
    assert found["transformers"].state == "warning"
    assert {"<=5.6.0", ">=4.55.0"} <= set(found["transformers"].mend.split('"')[1][len("transformers") :].split(","))
    assert found["peft"].state == "error"
    assert found["torchvision"].state == found["accelerate"].state == "ok"


def test_devices_and_what_they_cannot() -> None:
    (good, old) = hardware.devices({**TORCH, "devices": [GPU, OLD_GPU]})
    assert good.state == "ok"
    assert good.found == "NVIDIA H100, 79.0 of 80.0 GB free, capability 9.0, bfloat16 yes"
    assert (old.state, old.mend) == ("warning", "set train.model.dtype: float16")
    (none,) = hardware.devices(TORCH)
    assert none.state in {"absent", "warning"}
    (unknown,) = hardware.devices({"error": "x"})
    assert unknown.state == "warning"
    (sick,) = hardware.devices({**TORCH, "device_error": "RuntimeError: CUDA error"})
    assert sick.state == "error"


def test_a_full_disk_is_an_error_a_small_cache_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**10, 0, 10**8))
    found = {one.name: one for one in hardware.host(tmp_path / "not" / "there")}
    assert (found["run folder"].state, found["model cache"].state) == ("error", "warning")
    assert "0.1 GB free" in found["run folder"].found


def test_optional_libraries_say_what_their_absence_disables() -> None:
    probed = {"bitsandbytes": {"error": "RuntimeError: no CUDA"}, "ray": {"version": "2.60.0"}}
    found = {one.name: one for one in optional(probed, cuda=True)}
    assert len(found) == len(LIBRARIES) + 1
    assert found["ray"].state == "ok"
    assert found["bitsandbytes"].state == "warning"
    assert "no QLoRA" in found["bitsandbytes"].means
    unmended = {name for name, one in found.items() if one.state == "absent" and not (one.means and one.mend)}
    assert unmended == ({"flash-attn"} if flash_attention_needs_sinks() else set())
    without_gpu = {one.name: one for one in optional({}, cuda=False)}
    assert without_gpu["flash-attn"].mend == ""
    assert "only useful with an NVIDIA GPU" in without_gpu["flash-attn"].means
    assert without_gpu["implicit"].mend


def test_libraries_of_a_gpu_are_told_by_their_version(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"0.26.0": ["torch==2.11.0", "torchvision==0.26.0", "numpy"], "0.23.0": ["torch==2.11.0"],
             "0.33.0": ["torch==2.14.0", "transformers<5.21,>=5.16.1", "torchcodec; extra == 'audio'"]}  # fmt: skip

    def told(name: str, version: str) -> Finding:
        monkeypatch.setattr(libraries, "installed_version", lambda _: version)
        monkeypatch.setattr(gpu_libraries.metadata, "requires", lambda _: asked.get(version))
        module = next(library.module for library in LIBRARIES if library.name == name)
        return next(one for one in optional({module: {"version": ""}}, cuda=True) if one.name == name)

    assert told("vllm", "0.26.0").means == "it uses msr's torch; log-odds over HTTP are exact"
    assert "are bounds (exact from 0.26 on)" in told("vllm", "0.23.0").means
    newest = told("vllm", "0.33.0")
    assert newest.state == "warning"
    assert "torch==2.14.0 (installed: 2.11.0)" in newest.means
    assert "transformers<5.21,>=5.16.1 (installed: 5.6.0)" in newest.means
    assert (told("liger-kernel", "0.7.0").state, told("liger-kernel", "0.8.5").state) == ("warning", "ok")
    assert (told("bitsandbytes", "0.45.5").state, told("bitsandbytes", "0.50.2").state) == ("warning", "ok")
    monkeypatch.setattr(kernels, "flash_attention_needs_sinks", lambda: True)
    flash = told("flash-attn", "2.8.3")
    assert (flash.state, flash.mend) == ("warning", "")
    assert "attention sinks" in flash.means
    monkeypatch.setattr(kernels, "flash_attention_needs_sinks", lambda: False)
    assert told("flash-attn", "2.8.3").state == "ok"


def test_nothing_is_advised_that_is_not_what_it_is_called() -> None:
    """The registry's mcore-adapter is not the library that LLaMA-Factory means."""
    for one in [*optional({}, cuda=True), *optional({}, cuda=False)]:
        assert "mcore" not in f"{one.name} {one.means} {one.mend}"
        assert "another torch" not in one.mend


def test_secrets_are_never_printed(machine: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "hf_very-secret"
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{secret}@proxy:3128")
    for result in (doctor(), doctor("--json")):
        assert result.exit_code == 0
        assert secret not in result.output
        assert "proxy:3128" in result.output
    assert "not set" in {one.name: one.found for one in variables({})}["HF_TOKEN"]


def test_variables_that_change_a_run_are_named() -> None:
    found = {one.name: one for one in variables({"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "3", "USE_V1": "1",
                                                 "IMAGE_PLACEHOLDER": "<x>", "HOME": "/h"})}  # fmt: skip
    assert found.keys() == {"HF_TOKEN", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "USE_V1", "IMAGE_PLACEHOLDER"}
    assert found["CUDA_VISIBLE_DEVICES"].means == "hides every GPU"
    assert (found["OMP_NUM_THREADS"].state, found["OMP_NUM_THREADS"].found) == ("ok", "3")
    assert found["USE_V1"].mend == "unset USE_V1"
    assert {one.name for one in variables(dict.fromkeys(UNSET, "1"))} == {"HF_TOKEN", *UNSET}


def test_a_good_machine_ends_with_0_and_its_verdict(machine: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    machine["torch"]["devices"] = [GPU]
    result = doctor("--run-dir", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout.rstrip().endswith("This machine can train and score on its GPU.")
    assert "capability 9.0" in result.stdout
    answer = json.loads(doctor("--run-dir", str(tmp_path), "--json").stdout)
    assert answer["ok"]
    assert answer["devices"] == [GPU]
    assert {"section", "name", "state", "found", "means", "mend"} == set(answer["findings"][0])


@pytest.mark.slow
def test_this_very_machine(tmp_path: Path) -> None:
    examined = diagnose(tmp_path)
    assert examined.errors == ()
    assert len({one.section for one in examined.findings}) == 5
