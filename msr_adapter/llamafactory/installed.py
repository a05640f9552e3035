"""What the installed LLaMA-Factory knows: its templates and arguments, read from its source. Nothing is imported.

Importing it takes many seconds and torch; a check before a run has no need of either.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_PARTS = ("ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments", "GeneratingArguments")
"""The classes that a training YAML is parsed into."""
_RENAMED = {"BaseTrainingArguments": "Seq2SeqTrainingArguments"}
"""Classes that LLaMA-Factory gives another name where it imports them."""


@dataclass(frozen=True)
class InstalledTemplate:
    """One template of the library."""

    name: str
    takes_images: bool
    thinks: bool
    """Puts a thought before every answer."""


@cache
def installed_templates() -> Mapping[str, InstalledTemplate]:
    """Return every template by its name; none where the library is absent or its source is not as expected."""
    found = {}
    for call in _calls(_parse("llamafactory", "data/template.py"), "register_template"):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        name = given.get("name")
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            kind = given.get("template_class")
            thinks = isinstance(kind, ast.Name) and kind.id.endswith("ReasoningTemplate")
            found[name.value] = InstalledTemplate(name.value, _takes_images(given.get("mm_plugin")), thinks)
    return found


@cache
def training_arguments() -> frozenset[str]:
    """Return the names of all arguments of a training; none where the library's source is not as expected."""
    # Both packages have a class of the name `TrainingArguments`: one of them is the other's base.
    ours, theirs = _classes("llamafactory", _OURS), _classes("transformers", _THEIRS)
    if not (ours.keys() >= set(_PARTS) and theirs.keys() >= set(_RENAMED.values())):
        return frozenset()
    return frozenset(name for part in _PARTS for name in _fields(part, [ours, theirs]))


@cache
def flash_attention_needs_sinks() -> bool:
    """Return whether transformers' flash attention uses attention sinks without asking whether there are any."""
    tree = _parse("transformers", "integrations/flash_attention.py")
    given = [keyword.value for node in ast.walk(tree) if isinstance(node, ast.Call) for keyword in node.keywords
             if keyword.arg == "s_aux"]  # fmt: skip
    return any(isinstance(value, ast.Call) for value in given)


@cache
def liger_types() -> frozenset[str]:
    """Return the model types that LLaMA-Factory applies Liger to; none where its source is not as expected."""
    tree = _parse("llamafactory", "model/model_utils/liger_kernel.py")
    compared = [node for node in ast.walk(tree) if isinstance(node, ast.Compare) and isinstance(node.left, ast.Name)
                and node.left.id == "model_type"]  # fmt: skip
    constants = [one for node in compared for one in ast.walk(node) if isinstance(one, ast.Constant)]
    return frozenset(one.value for one in constants if isinstance(one.value, str))


_OURS = tuple(f"hparams/{part}_args.py" for part in ("model", "data", "training", "finetuning", "generating"))
_THEIRS = ("training_args.py", "training_args_seq2seq.py")
_Classes = Mapping[str, ast.ClassDef]


def _classes(package: str, files: Sequence[str]) -> _Classes:
    trees = [_parse(package, file) for file in files]
    return {node.name: node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _fields(name: str, packages: Sequence[_Classes]) -> Iterator[str]:
    """Yield the fields of a class and its bases, looked for in ``packages``: the class's own first."""
    place = next((place for place, classes in enumerate(packages) if _RENAMED.get(name, name) in classes), None)
    if place is None:
        return
    node = packages[place][_RENAMED.get(name, name)]
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            yield line.target.id
    for base in node.bases:
        if isinstance(base, ast.Name):
            yield from _fields(base.id, packages[place:])


def _parse(package: str, file: str) -> ast.AST:
    try:
        spec = find_spec(package)
        origin = spec.origin if spec else None
        return ast.parse((Path(origin).parent / file).read_text(encoding="utf-8")) if origin else ast.Module([], [])
    except (OSError, ImportError, ValueError, SyntaxError):
        return ast.Module([], [])


def _calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            yield node


def _takes_images(plugin: ast.expr | None) -> bool:
    """Say whether a template's plug-in is made with an image token."""
    given = plugin.keywords if isinstance(plugin, ast.Call) else []
    return any(one.arg == "image_token" and not _is_none(one.value) for one in given)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None
