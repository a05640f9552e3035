"""Damaged model folders: `msr check` names what is wrong, and loading them ends in an error with a next step.

Folders are a tiny model's, with one file cut, overwritten, emptied, replaced or removed by a seeded generator.
"""

import json
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msr_adapter.backends import make_backend
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import MsrError, StageError
from msr_adapter.generation import Request
from msr_adapter.llamafactory.family_recognition import family_of, limits_of, resolve_template, template_problems
from msr_adapter.llamafactory.memory_estimate import model_shape
from msr_adapter.llamafactory.model_files import folder_faults
from tests.support.tiny_models import tiny_model

ODD: list[Any] = [
    None,
    True,
    -1,
    10**30,
    "",
    "x",
    [],
    [1],
    {},
    {"a": 1},
    [[]],
    1e308,
    "\x00",
    {"model_type": 3},
    [None],
]
SIZES = [10**30, 10**12, 10**7, 10**5, -1, 0]
SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "processor_config.json")
WEIGHTS = "model.safetensors"


def damage(folder: Path, chance: random.Random) -> str:
    """Damage a file of a model folder in some way; return which."""
    name = chance.choice([*SMALL, "config.json", WEIGHTS, WEIGHTS])
    path = folder / name
    data = path.read_bytes()
    place = chance.randrange(len(data))
    how = chance.choice(["cut", "noise", "empty", "other", "gone", "value", "value"])
    if how == "value" and name.endswith(".json"):
        found = within = json.loads(data)
        while (inner := [one for one in within.values() if isinstance(one, dict)]) and chance.random() < 0.4:
            within = chance.choice(inner)
        within[chance.choice(list(within) or ["x"])] = chance.choice(ODD + SIZES if name == "config.json" else ODD)
        new = json.dumps(found).encode()
    elif name == WEIGHTS and how == "value":
        length = chance.choice([0, 1, 2**63, len(data), 200])
        new = struct.pack("<Q", length) + data[8:]
    else:
        new = {
            "cut": data[:place],
            "noise": data[:place] + chance.randbytes(20) + data[place + 20 :],
            "empty": b"",
        }.get(
            how,
            chance.choice(
                [b"[]", b"3", b"null", b"\xff\xfe", b'{"a":' * 5000 + b"1" + b"}" * 5000, chance.randbytes(99)]
            ),
        )
    path.unlink()
    if how != "gone":
        path.write_bytes(new)
    return f"{name} {how}"


def look(folder: Path) -> str:
    """All that `msr check` asks of a model folder."""
    model = ModelConfig(path=str(folder))
    faults = folder_faults(folder)
    for ask in (template_problems, family_of, limits_of, model_shape, resolve_template):
        try:
            ask(model)  # type: ignore[operator]
        except MsrError:
            faults.append(ask.__name__)
    return "refused" if faults else "accepted"


def load(folder: Path, *, refuse: bool = True) -> str:
    """Load the tokenizer, the template and the weights, and ask for a token; a refusal is a word unless raised."""
    try:
        backend = make_backend(ModelConfig(path=str(folder), template="qwen2_vl"))
        backend.complete([Request(backend.identity, "prompt", max_new_tokens=1)])
    except MsrError:
        if not refuse:
            raise
        return "refused"
    return "accepted"


def run(act: Callable[[Path], str], seeds: range, tmp_path: Path) -> Counter[str]:
    """Return how many folders ended how; exceptions outside the contract are shown with their seed."""
    source, ends, broken = tiny_model("qwen2_vl"), Counter[str](), []
    for seed in seeds:
        folder = tmp_path / str(seed)
        shutil.copytree(source, folder)
        done = damage(folder, random.Random(seed))
        try:
            ends[act(folder)] += 1
        except Exception as error:  # these are what is looked for
            broken.append(f"seed {seed} ({done}): {type(error).__name__}: {str(error)[:200]}")
        shutil.rmtree(folder)
    print(f"{act.__name__}: {len(seeds)} inputs, {dict(ends)}, {len(broken)} outside the contract")
    assert broken == []
    return ends


def test_some_damaged_folders_are_looked_at(tmp_path: Path) -> None:
    assert run(look, range(200), tmp_path)["refused"] > 50


@pytest.mark.slow
def test_two_thousand_damaged_folders_are_looked_at(tmp_path: Path) -> None:
    assert sum(run(look, range(1_000, 3_000), tmp_path).values()) == 2_000


@pytest.mark.slow
def test_damaged_folders_are_loaded(tmp_path: Path) -> None:
    """A second each: fewer of them."""
    assert run(load, range(150), tmp_path)["refused"] > 40


def replaced(name: str, data: bytes | None) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink() if data is None else (folder / name).write_bytes(data) and None


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        (WEIGHTS, None, "no weights in this folder"),
        (WEIGHTS, b"", "model.safetensors is cut or not a safetensors file"),
        (WEIGHTS, bytes(range(256)) * 9, "model.safetensors is cut or not a safetensors file"),
        ("tokenizer.json", b'{"version": "1', "tokenizer.json is not a JSON object"),
        ("config.json", b"{nope", "config.json is not a JSON object"),
        ("config.json", b"[]", "config.json is not a JSON object"),
        ("config.json", b'{"model_type": ["x"]}', "model_type in config.json is not text"),
        ("config.json", b'{"model_type": "qwen2_vl", "architectures": 3}', "architectures in config.json is not"),
        ("config.json", None, "no config.json in this folder"),
    ],
)
def test_a_damaged_folder_is_told_by_check_and_by_loading(
    name: str, data: bytes | None, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("qwen2_vl"), folder)
    replaced(name, data)(folder)
    assert any(fault.startswith(said) for fault in folder_faults(folder))
    backend = make_backend(ModelConfig(path=str(folder), template="qwen2_vl"))
    with pytest.raises(StageError) as caught:
        backend.complete([Request(backend.identity, "prompt", max_new_tokens=1)])
    assert f"{folder} cannot be loaded" in caught.value.what
    assert said in caught.value.cause
    assert "check model.path" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("processor_config.json", None, "Tokenizer or processor of .* cannot be loaded: there is no image processor"),
        (
            "processor_config.json",
            lambda config: config["image_processor"]["size"].update(shortest_edge=[1]),
            "cannot answer a prompt: '<' not supported",
        ),
        (
            "config.json",
            lambda config: config["text_config"]["rope_parameters"].update(mrope_section={"a": 1}),
            "cannot answer a prompt: unsupported operand",
        ),
    ],
)
def test_what_shows_only_when_a_model_is_asked_is_told(
    name: str, change: Callable[[Any], None] | None, said: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("qwen2_vl"), folder)
    if change is None:
        (folder / name).unlink()
    else:
        config = json.loads((folder / name).read_text())
        change(config)
        (folder / name).write_text(json.dumps(config))
    with pytest.raises(StageError, match=said) as caught:
        load(folder, refuse=False)
    assert "check model.path" in caught.value.next_step


def test_cut_weights_are_told_by_their_size(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model("qwen2_vl"), folder)
    assert folder_faults(folder) == []
    weights = folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "but its header asks for" in folder_faults(folder)[0]
