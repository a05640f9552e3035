"""Load a pipeline: a file or a bundled name, what it extends, ``--set`` on top; every problem at once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msr_adapter.config.assemble import PROTOCOL, Assembler, shown
from msr_adapter.config.bundled import find_yaml, not_found, template_folders
from msr_adapter.config.fields import field_at, is_path
from msr_adapter.config.models import Pipeline
from msr_adapter.config.problems import explain
from msr_adapter.config.yamltree import Node
from msr_adapter.errors import Problem, UserError, did_you_mean
from msr_adapter.files import bundled


@dataclass(frozen=True)
class LoadedPipeline:
    """A valid pipeline, where it came from and where it runs."""

    pipeline: Pipeline
    origin: Path
    """The YAML file."""
    run_dir: Path
    """Absolute."""
    resolved: dict[str, Any]
    """The whole config with every default, JSON-able."""
    tree: Node = field(repr=False, compare=False)
    files: tuple[Path, ...] = ()
    """The YAML file, what it extends, and the protocol's."""

    def where(self, key: str) -> str:
        """Return the place (``file:line`` or ``--set``) that set a dotted ``key``, or the nearest key above it."""
        return self.tree.nearest(tuple(key.split("."))).where


def load_pipeline(argument: str, sets: Sequence[str] = (), run_dir: Path | None = None) -> LoadedPipeline:
    """Load the pipeline that ``argument`` names: an existing file, else a bundled name.

    Precedence: defaults < `extends:` parents < the file < ``sets`` (``a.b=value``). Raises `UserError` with every
    problem found.
    """
    origin = find_yaml(argument, "pipelines", Path.cwd())
    if origin is None:
        raise UserError(not_found(argument, "pipelines", Path.cwd()))
    assembler = Assembler()
    tree, problems = _assemble(assembler, origin, sets)
    data = _with_absolute_paths(tree, problems)
    pipeline = _validate(data, tree, problems)
    root = run_dir or pipeline.run_dir or Path("runs") / pipeline.name
    resolved = pipeline.model_dump(mode="json")
    files = tuple(dict.fromkeys(assembler.files))
    return LoadedPipeline(pipeline, origin, root.expanduser().resolve(), resolved, tree, files)


def _assemble(assembler: Assembler, origin: Path, sets: Sequence[str]) -> tuple[Node, list[Problem]]:
    settings = assembler.read_sets(sets)
    tree = assembler.read(origin, "pipelines")
    if tree is None:
        raise UserError(assembler.problems)
    tree = assembler.merge(tree, settings)
    protocol = tree.nearest(PROTOCOL)
    named = assembler.named_protocol(protocol)
    if named is not None:
        tree = tree.replaced(PROTOCOL, named)
    return tree, assembler.problems


def _validate(data: Any, tree: Node, problems: list[Problem]) -> Pipeline:
    """Validate strictly; an error at a key that already has a problem would only repeat it."""
    try:
        pipeline = Pipeline.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        known = {problem.field for problem in problems}
        found = [problem for problem in explain(error.errors(), tree) if problem.field not in known]
        raise UserError(sorted([*problems, *found], key=_place)) from None
    if problems:
        raise UserError(problems)
    return pipeline


def _place(problem: Problem) -> tuple[str, int]:
    label, _, line = problem.where.rpartition(":")
    return (label, int(line)) if line.isdigit() else (problem.where, 0)


def _with_absolute_paths(tree: Node, problems: list[Problem]) -> Any:
    """Return the plain config with every path absolute: relative ones start from the YAML that names them."""
    data = tree.plain()
    for loc, node in list(tree.leaves()):
        known = field_at(Pipeline, loc, data)
        if known is None or not isinstance(node.value, str):
            continue
        if "\0" in node.value and is_path(known):
            problems.append(Problem(node.where, ".".join(map(str, loc)), "a NUL character", "a path"))
            continue
        if not node.value.strip() and is_path(known):  # else it would mean the YAML's own folder
            problems.append(Problem(node.where, ".".join(map(str, loc)), "an empty text", "a path"))
            continue
        if loc == ("train", "start"):
            tree = tree.replaced(loc, Node(str(_run(node)), node.where, node.base))
        elif loc == ("templates",):
            tree = tree.replaced(loc, Node(_templates(node, problems), node.where, node.base))
        elif is_path(known) or (loc[-1:] == ("path",) and node.value.startswith(("./", "../", "/", "~"))):
            tree = tree.replaced(loc, Node(str(_absolute(node)), node.where, node.base))
    return tree.plain()


def _absolute(node: Node) -> Path:
    return (node.base / Path(node.value).expanduser()).resolve()


def _run(node: Node) -> Path:
    """Find a run: a folder beside the YAML, else the place where a pipeline of that name leaves its run."""
    folder = _absolute(node)
    return folder if folder.is_dir() else (Path("runs") / node.value).expanduser().resolve()


def _templates(node: Node, problems: list[Problem]) -> str:
    """Find a folder of templates: beside the YAML, else a bundled sub-folder."""
    for folder in (_absolute(node), bundled("templates") / node.value):
        if folder.is_dir():
            return str(folder)
    names = template_folders()
    found = f"no folder `{shown(_absolute(node))}`"
    expected = f"expected a folder of templates or a bundled one: {', '.join(names)}"
    problems.append(Problem(node.where, "templates", found, expected, did_you_mean(node.value, names)))
    return str(node.value)
