"""Whatever a pipeline's YAML or a setting holds loads, or is a `UserError` that can be printed: a seeded generator."""

import random
from collections import Counter
from pathlib import Path

import pytest

from msr_adapter.config.loader import load_pipeline
from msr_adapter.errors import UserError
from tests.support.pipelines import MINIMAL

ODD = [
    "9" * 5000,
    "1e999",
    "-1e999",
    ".nan",
    "!!float .inf",
    "!!int x",
    "!!binary abc=",
    "!!set {a}",
    "!!timestamp x",
    "[" * 60,
    '"\\ud800"',
    '"\\U00110000"',
    '"a\\0b"',
    "~nobody-here",
    "a" * 5000,
    "*x",
    "&x [*x]",
    "{<<: 3}",
    "!!python/name:os x",
    "4294967296",
    "-1",
    "1e22",
    "null",
    "true",
    "[]",
    "{}",
    "? [a]",
    "%",
    "- - x",
    "'",
    "http://[::1",
]
KEYS = [
    "seed",
    "name",
    "run_dir",
    "templates",
    "extends",
    "cache",
    "data.images.max_file_mb",
    "split.fractions",
    "split.until",
    "train.lora.alpha",
    "train.learning_rate",
    "train.overrides.x",
    "train.start",
    "evaluate.protocol",
    "evaluate.protocol.k",
    "train.model.path",
    "train.negatives",
    "summarize.items.model",
    "x.y",
    "\udc80",
]


def run(seeds: range) -> None:
    ends, broken = Counter[str](), []
    for seed in seeds:
        chance = random.Random(seed)
        value, key = chance.choice(ODD), chance.choice(KEYS)
        text = MINIMAL + (f"{key}: {value}\n" if chance.random() < 0.5 and "." not in key else "")
        data = bytearray(text.encode("utf-8", "replace"))
        if chance.random() < 0.4:
            data[chance.randrange(len(data))] = chance.randrange(256)
        Path("p.yaml").write_bytes(data)
        try:
            load_pipeline("p.yaml", [f"{key}={value}"] if chance.random() < 0.5 else [])
            ends["accepted"] += 1
        except UserError as error:
            str(error).encode()
            ends["refused"] += 1
        except Exception as error:  # these are what is looked for
            broken.append(f"seed {seed} ({key!r}: {value[:20]!r}): {type(error).__name__}: {str(error)[:99]}")
    print(f"yaml: {len(seeds)} inputs, {dict(ends)}, {len(broken)} outside the contract")
    assert broken == []


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_some_odd_pipelines() -> None:
    run(range(200))


@pytest.mark.slow
def test_two_thousand_odd_pipelines() -> None:
    run(range(1_000, 3_000))
