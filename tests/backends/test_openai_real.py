"""The server backend against LLaMA-Factory's own API server, which serves the bundled tiny model on loopback."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from msr_adapter.backends.huggingface import HuggingFaceBackend
from msr_adapter.backends.openai import ServerBackend
from msr_adapter.config.schema import ModelConfig, ServerConfig
from msr_adapter.errors import StageError
from msr_adapter.files import bundled, bundled_model, file_digest
from msr_adapter.generation import Completion, Image, Request
from msr_adapter.prompts import HistoryItem, Prompts
from msr_adapter.synthetic import generate
from tests.support.server_process import free_port, serving

KEY = "canary-4711"
PROMPTS = Prompts(bundled("templates") / "demo")
STARTING_S = 240


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the API server, wait until it answers, stop it by its process group."""
    folder = tmp_path_factory.mktemp("api")
    config = {"model_name_or_path": str(bundled_model("tiny")), "template": "qwen2_vl", "infer_dtype": "float32",
              "infer_backend": "huggingface", "image_max_pixels": 3136, "image_min_pixels": 1024,
              "default_system": ""}  # fmt: skip
    (folder / "api.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    environment = os.environ | {"API_HOST": "127.0.0.1", "API_PORT": str(port), "API_KEY": KEY, "API_VERBOSE": "0",
                                "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # fmt: skip
    command = [Path(sys.executable).parent / "llamafactory-cli", "api", folder / "api.yaml"]
    with serving(command, environment, folder / "api.log") as process:
        address = f"http://127.0.0.1:{port}/v1"
        wait_for(address, process, folder / "api.log")
        yield address


def wait_for(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    ends = time.monotonic() + STARTING_S
    while time.monotonic() < ends:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            if httpx.get(f"{address}/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(f"no answer after {STARTING_S} s: {log.read_text(errors='replace')[-2000:]}")


def served(url: str, key_variable: str | None = "MSR_TEST_KEY") -> ServerBackend:
    server = ServerConfig(url=url, key_variable=key_variable, concurrency=3, retries=1, first_wait=0.1)
    return ServerBackend(ModelConfig(path="tiny", backend="server", server=server))


def local() -> HuggingFaceBackend:
    return HuggingFaceBackend(ModelConfig(path="tiny", default_system="", image_max_pixels=3136))


def test_a_real_server_gives_the_texts_of_the_model_loaded_here(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSR_TEST_KEY", KEY)
    histories = [["a red car on it", "a blue dog on it"], ["a green tree on it"], ["a white ship on it"] * 3]
    texts = [PROMPTS.user_summary("", [HistoryItem(summary, summary) for summary in history]) for history in histories]
    remote, here = served(url), local()
    answers = remote.complete([Request(remote.identity, text, max_new_tokens=24) for text in texts])
    wanted = here.complete([Request(here.identity, text, max_new_tokens=24) for text in texts])
    assert [summary_of(answer) for answer in answers] == [summary_of(answer) for answer in wanted]
    assert all(isinstance(answer, Completion) and answer.tokens_in > 10 and answer.tokens_out > 0 for answer in answers)


def test_a_real_server_is_shown_the_cover(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSR_TEST_KEY", KEY)
    shop = generate(users=4, items=40, interactions_per_user=5, noise=0.5, seed=3)
    requests = []
    for item in shop.items["item_id"].to_pylist()[:6]:
        path = tmp_path / f"{item}.png"
        shop.draw(item).save(path)
        requests.append((PROMPTS.item_summary("", image=True), Image(path, file_digest(path))))
    remote = served(url)
    answers = remote.complete([Request(remote.identity, text, (image,), max_new_tokens=12) for text, image in requests])
    described = {answer.text for answer in answers if isinstance(answer, Completion)}
    assert len(described) > 1, "unlike covers get unlike descriptions"


def test_a_real_server_refuses_a_wrong_key_without_showing_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSR_TEST_KEY", "wrong-canary")
    remote = served(url)
    with pytest.raises(StageError, match="status 401") as caught:
        remote.complete([Request(remote.identity, "hello", max_new_tokens=2)])
    assert "wrong-canary" not in str(caught.value)


def summary_of(answer: object) -> str:
    assert isinstance(answer, Completion)
    return answer.text
