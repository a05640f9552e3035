"""Which functions of the package refuse something, and which of them a function reaches; read from the source."""

import ast
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from tests.support.paths import ROOT

PACKAGE = ROOT / "msr_adapter"


class Place(NamedTuple):
    """A function: its module without the package's name, and its name, a method's with its class."""

    module: str
    name: str


class _Module(NamedTuple):
    functions: dict[str, ast.AST]
    names: dict[str, Place]
    """What a name of the module stands for: a function here, or one that is imported anywhere in it."""


@cache
def modules() -> dict[str, _Module]:
    """Return every module by its name without the package's."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = dict(_functions(tree))
        names = {one: Place(name, one) for one in functions}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("msr_adapter"):
                source = (node.module or "").removeprefix("msr_adapter").removeprefix(".")
                names |= {one.asname or one.name: Place(source, one.name) for one in node.names}
        found[name] = _Module(functions, names)
    return found


def _functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{inside}{node.name}", node
        elif isinstance(node, ast.ClassDef):
            yield node.name, node  # what is made when the class is called is not looked into
            yield from _functions(node, f"{node.name}.")


def reached(*roots: Place) -> set[Place]:
    """Return the functions that ``roots`` name, themselves or through others: called, handed on, or in a table."""
    seen, waiting = set[Place](), list(roots)
    while waiting:
        place = _resolved(waiting.pop())
        if place is None or place in seen:
            continue
        seen.add(place)
        module = modules()[place.module]
        for node in ast.walk(module.functions[place.name]):
            if isinstance(node, ast.Name) and node.id in module.names:
                waiting.append(module.names[node.id])
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                base = module.names.get(node.value.id)
                if node.value.id == "self":
                    waiting.append(Place(place.module, f"{place.name.partition('.')[0]}.{node.attr}"))
                elif base is not None and f"{base.module}.{base.name}".strip(".") in modules():
                    waiting.append(Place(f"{base.module}.{base.name}".strip("."), node.attr))
    return seen


def _resolved(place: Place) -> Place | None:
    """Follow imports to where a function is written; None for what is no function of ours."""
    for _ in range(5):
        module = modules().get(place.module)
        if module is None:
            return None
        if place.name in module.functions:
            return place
        if place.name not in module.names:
            return None
        place = module.names[place.name]
    return None


def refusing(packages: tuple[str, ...]) -> set[Place]:
    """Return the functions of ``packages`` that make a `Problem`: something that the user is refused."""
    return {
        Place(name, function)
        for name, module in modules().items()
        if name.partition(".")[0] in packages
        for function, node in module.functions.items()
        if not isinstance(node, ast.ClassDef) and any(_makes_a_problem(one) for one in ast.walk(node))
    }


def _makes_a_problem(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Problem"
