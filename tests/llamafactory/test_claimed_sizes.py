"""A config that claims more than the weights beside it hold is refused before anything of that size is made."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from msr_adapter.backends import make_backend
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import MsrError, StageError, UserError
from msr_adapter.generation import Request
from msr_adapter.llamafactory.claimed_sizes import held, rank_fault, size_fault
from msr_adapter.llamafactory.fitting_weights import require_fitting_adapters
from msr_adapter.llamafactory.model_files import folder_faults
from msr_adapter.llamafactory.prompt_encoder import require_in_memory
from tests.support.tiny_models import BUILDERS, tiny_model

Config = dict[str, Any]


@pytest.fixture
def _bounded_memory() -> Iterator[None]:
    """Let what would take the machine's memory fail here instead."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**31, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def damaged(out: Path, change: Callable[[Config], object], name: str = "qwen2_vl") -> ModelConfig:
    shutil.copytree(tiny_model(name), out)
    config = json.loads((out / "config.json").read_text())
    change(config)
    (out / "config.json").write_text(json.dumps(config))
    return ModelConfig(path=str(out), template="qwen2_vl")


def load(model: ModelConfig) -> None:
    backend = make_backend(model)
    backend.complete([Request(backend.identity, "prompt", max_new_tokens=1)])


def lose(section: str) -> Callable[[Config], object]:
    return lambda config: config.update({section: {}})


def claim(section: str, key: str, value: int) -> Callable[[Config], object]:
    return lambda config: config[section].update({key: value})


@pytest.mark.usefixtures("_bounded_memory")
@pytest.mark.parametrize("change", [
    lose("text_config"), lose("vision_config"), claim("text_config", "intermediate_size", 10**9),
    claim("text_config", "vocab_size", 10**8), claim("vision_config", "embed_dim", 2**20),
    claim("text_config", "hidden_size", 2**20),
])  # fmt: skip
def test_a_config_of_a_far_larger_model_is_refused_before_it_takes_memory(
    change: Callable[[Config], object], tmp_path: Path
) -> None:
    model = damaged(tmp_path / "model", change)
    for use in (load, lambda model: require_fitting_adapters(model, None, ())):
        with pytest.raises(UserError, match=r"config.json: describes a model of over [\d,]+ parameters; its weights"):
            use(model)


@pytest.mark.usefixtures("_bounded_memory")
@pytest.mark.parametrize(("section", "key"), [("text_config", "num_hidden_layers"), ("vision_config", "depth")])
def test_layers_that_nobody_can_count_through_are_refused_by_check_and_before_loading(
    section: str, key: str, tmp_path: Path
) -> None:
    for number, shown in ((10**30, "over 10^18"), (10**9, "1,000,000,000")):
        model = damaged(tmp_path / str(number), claim(section, key, number))
        [fault] = folder_faults(Path(model.path))
        assert fault.startswith(f"{key} in config.json is {shown}, but the weights have only ")
        for use in (load, lambda model: require_fitting_adapters(model, None, ())):
            with pytest.raises(StageError, match=f"cannot be loaded: {key} in config.json"):
                use(model)


@pytest.mark.parametrize("key", ["min_pixels", "shortest_edge", "height"])
def test_images_of_no_size_are_refused_by_check_and_before_loading(key: str, tmp_path: Path) -> None:
    model = damaged(tmp_path / "model", lambda config: None)
    path = Path(model.path) / "processor_config.json"
    config = json.loads(path.read_text())
    config["image_processor"]["size"] = {key: 10**12}
    path.write_text(json.dumps(config))
    assert folder_faults(path.parent) == [
        f"{key} in processor_config.json is 1,000,000,000,000: every image would be enlarged to that"
    ]
    with pytest.raises(StageError, match=f"cannot be loaded: {key} in processor_config.json is 1,000"):
        load(model)


@pytest.mark.parametrize("number", [3, 10])
def test_a_few_layers_too_many_are_missing_tensors(number: int, tmp_path: Path) -> None:
    def more(config: Config) -> None:
        config["text_config"].update(num_hidden_layers=number, layer_types=["full_attention"] * number)

    with pytest.raises(MsrError, match="tensors missing"):
        load(damaged(tmp_path / "model", more))


@pytest.mark.parametrize("name", BUILDERS)
def test_no_whole_model_is_refused(name: str) -> None:
    model = ModelConfig(path=str(tiny_model(name)))
    assert size_fault(Path(model.path)) == ""
    require_fitting_adapters(model, None, ())
    assert held(Path(model.path)) is not None


def test_a_rank_that_the_weights_of_an_adapter_have_not_is_refused(tmp_path: Path) -> None:
    save_file({"a.lora_A.weight": torch.zeros(2, 32), "a.lora_B.weight": torch.zeros(64, 2)},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    for changes, said in (({}, ""), ({"r": 10**9}, "the rank r "), ({"rank_pattern": {"a": 10**30}}, "the rank a ")):
        (tmp_path / "adapter_config.json").write_text(json.dumps({**config, **changes}))
        assert rank_fault(tmp_path).startswith(said)
        assert bool(rank_fault(tmp_path)) == bool(said)
    with pytest.raises(UserError, match="no dimension of its weights exceeds 64"):
        require_fitting_adapters(ModelConfig(path="tiny"), None, (tmp_path,))


def test_a_model_that_would_stay_on_the_disk_in_part_is_refused() -> None:
    for places, well in (({"": "cpu"}, True), ({"a": 0, "b": 1}, True), ({}, True), ({"a": "cpu", "b": "disk"}, False)):
        network = SimpleNamespace(hf_device_map=places)
        if well:
            require_in_memory(network, "large")
        else:
            with pytest.raises(StageError, match=r"do not fit in memory: .* on cpu and disk"):
                require_in_memory(network, "large")


def test_headers_that_cannot_be_read_say_nothing(tmp_path: Path) -> None:
    assert held(tmp_path) is None
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    assert held(tmp_path) is None
    assert size_fault(tmp_path) == ""
