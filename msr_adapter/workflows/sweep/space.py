"""The space of a sweep: dotted keys of the pipeline, each with the values among which is chosen.

::

    train.learning_rate: {low: 1e-5, high: 1e-3, log: true}     # a range of numbers
    train.epochs: {low: 1, high: 4}                             # whole numbers, since both ends are
    train.lora_rank: [4, 8, 16]                                 # a list
    templates: [demo, small]
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msr_adapter.config.yaml_tree import YamlNode, YamlSource, parse
from msr_adapter.errors import Problem, UserError, raise_if_any
from msr_adapter.filesystem import read_bytes

if TYPE_CHECKING:
    from optuna import Trial

Value = str | int | float | bool | None
Settings = Mapping[str, Value]
"""Dotted key -> what a trial sets it to."""

_SEARCHED = ("train", "summarize", "templates")
_FIXED = {
    "train.keep": "the best checkpoint of each trial is what trials are compared by",
    "train.selection": "trials are compared by it",
    "train.launch": "it says where a training runs, not what comes of it",
    "train.start": "each trial starts from the same weights",
}
_ENDS = {"low", "high", "log", "step"}


@dataclass(frozen=True)
class ListedValues:
    """A list of values."""

    values: tuple[Value, ...]

    def ask(self, trial: "Trial", key: str) -> Value:
        """Let the sampler choose."""
        # Optuna tells choices apart by ==, for which 1 and true are one: their text is what it is given.
        return self.told(trial.suggest_categorical(key, [json.dumps(value) for value in self.values]))

    def told(self, parameter: Any) -> Value:
        """Return the value of what Optuna keeps as a parameter."""
        value: Value = json.loads(parameter)
        return value

    def examples(self) -> tuple[Value, ...]:
        """Every value: what is tried before the first trial."""
        return self.values


@dataclass(frozen=True)
class NumberRange:
    """Numbers from ``low`` to ``high``, both included; whole ones where both ends are."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers alone."""
        ends = (self.low, self.high) if self.step is None else (self.low, self.high, self.step)
        return all(isinstance(each, int) for each in ends)

    def ask(self, trial: "Trial", key: str) -> Value:
        """Let the sampler choose."""
        if self.whole:
            return trial.suggest_int(key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    def told(self, parameter: Any) -> Value:
        """Return the value of what Optuna keeps as a parameter."""
        return int(parameter) if self.whole else float(parameter)

    def examples(self) -> tuple[Value, ...]:
        """Both ends: what is tried before the first trial."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Space:
    """What a sweep searches."""

    path: Path
    dimensions: Mapping[str, ListedValues | NumberRange]
    where: Mapping[str, str]
    """Key -> file and line."""

    @cached_property
    def size(self) -> int | None:
        """How many sets of values there are; None where a range has no countable number of them."""
        lists = [each.values for each in self.dimensions.values() if isinstance(each, ListedValues)]
        return prod(map(len, lists)) if len(lists) == len(self.dimensions) else None

    def corners(self) -> Iterator[tuple[str, Settings]]:
        """Yield a set of values for each value that a list has and each end of a range, with the key that it is for."""
        first = {key: each.examples()[0] for key, each in self.dimensions.items()}
        for key, each in self.dimensions.items():
            for value in each.examples():
                yield key, first | {key: value}

    def all(self) -> Iterator[Settings]:
        """Yield every set of values of a space of lists."""
        for values in product(*(each.examples() for each in self.dimensions.values())):
            yield dict(zip(self.dimensions, values, strict=True))


def read_space(path: Path) -> Space:
    """Read the file of a space. Raises `UserError` with every problem in it."""
    problems: list[Problem] = []
    try:
        text = read_bytes(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "not text in UTF-8"
        raise UserError(Problem(str(path), "--space", found, "a YAML file")) from error
    tree = parse(text, YamlSource(str(path), path.parent), problems)
    raise_if_any(problems)
    entries = tree.value if tree is not None else None
    if not isinstance(entries, dict) or not entries:
        step = "Write e.g. `train.learning_rate: {low: 1e-5, high: 1e-3, log: true}`"
        raise UserError(Problem(str(path), "", "no settings to search", "dotted keys and their values", step))
    dimensions: dict[str, ListedValues | NumberRange] = {}
    for key, node in entries.items():
        dimension = _dimension(key, node, problems)
        if dimension is not None:
            dimensions[key] = dimension
    raise_if_any(problems)
    return Space(path, dimensions, {key: node.where for key, node in entries.items()})


def _dimension(key: str, node: YamlNode, problems: list[Problem]) -> ListedValues | NumberRange | None:
    """Return one dimension; None where it is none, which is added to ``problems``."""
    reason = next((why for fixed, why in _FIXED.items() if key == fixed or key.startswith(f"{fixed}.")), None)
    if reason or key.split(".")[0] not in _SEARCHED:
        found = reason or "it decides what is asked of the validation users, or nothing that they could tell"
        problems.append(Problem(node.where, key, f"cannot be searched: {found}", f"keys of {', '.join(_SEARCHED)}"))
        return None
    if isinstance(node.value, list):
        return _choices(key, node, problems)
    if isinstance(node.value, dict):
        return _range(key, node, problems)
    step = f"Set one value with --set {key}=VALUE, or list several"
    problems.append(Problem(node.where, key, "one value", "a list, or {low: .., high: ..}", step))
    return None


def _choices(key: str, node: YamlNode, problems: list[Problem]) -> ListedValues | None:
    values = [child.value for child in node.value] if isinstance(node.value, list) else []
    if not values or any(isinstance(value, list | dict) for value in values):
        problems.append(Problem(node.where, key, "not a list of plain values", "texts, numbers, true, false or null"))
        return None
    texts = [json.dumps(value) for value in values]
    if len(set(texts)) < len(texts):
        problems.append(Problem(node.where, key, "a value stands there twice", "each once"))
        return None
    return ListedValues(tuple(values))


def _range(key: str, node: YamlNode, problems: list[Problem]) -> NumberRange | None:
    given: dict[str, Any] = (
        {name: child.value for name, child in node.value.items()} if isinstance(node.value, dict) else {}
    )
    fault = ""
    numbers = [given.get(name) for name in ("low", "high", "step") if given.get(name) is not None]
    if unknown := sorted(given.keys() - _ENDS):
        fault = f"the unknown key `{unknown[0]}`"
    elif "low" not in given or "high" not in given:
        fault = "no low or no high"
    elif not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        fault = "an end that is not a number"
    elif not isinstance(given.get("log", False), bool):
        fault = "log is neither true nor false"
    elif not given["low"] < given["high"]:
        fault = f"low {given['low']} is not below high {given['high']}"
    elif given.get("log") and (given["low"] <= 0 or given.get("step") is not None):
        fault = "a logarithmic range from zero or below, or with a step"
    elif given.get("step") is not None and given["step"] <= 0:
        fault = f"step {given['step']}"
    if fault:
        allowed = "{low: NUMBER, high: a larger one, log: true | false, step: a positive number}"
        problems.append(Problem(node.where, key, fault, allowed))
        return None
    return NumberRange(given["low"], given["high"], given.get("log", False), given.get("step"))
