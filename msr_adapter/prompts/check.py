"""Checks of templates that need no model: everything that can be known before the first prompt is sent."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
from jinja2 import meta, nodes

from msr_adapter.errors import Problem, UserError
from msr_adapter.prompts.sandbox import LimitError
from msr_adapter.prompts.template_files import parse, read_source, sources
from msr_adapter.prompts.variables import RENAMED, VARIABLES

_SIMILAR = 0.88  # "recomend.j2" is a slip of the pen, "recommend_old.j2" is a file kept beside


def check(
    environment: jinja2.Environment, folder: Path | None, cases: Mapping[str, Sequence[Callable[[], str]]]
) -> list[Problem]:
    """Check every template that msr renders; ``cases`` render each one in all the ways that occur."""
    if folder is not None and not folder.is_dir():
        return [Problem(str(folder), "templates", "no such folder", "a folder of .j2 files")]
    problems = list(_misnamed(folder))
    for name, renders in cases.items():
        try:
            found = list(_unknown_variables(environment, name))
        except UserError as error:
            found = list(error.problems)
        problems += found or _render_problems(renders)
    return list(dict.fromkeys(problems))


def _misnamed(folder: Path | None) -> Iterator[Problem]:
    """A file that is nearly called like a template, or as one was called, would be passed over without a word."""
    for path in sorted(folder.glob("*.j2")) if folder else ():
        if (new := RENAMED.get(path.stem)) in VARIABLES:
            step = f"Rename the file to {new}.j2"
            yield Problem(str(path), "", "is never rendered: this template has a new name", f"{new}.j2", step)
        elif path.stem not in VARIABLES and (near := difflib.get_close_matches(path.stem, VARIABLES, 1, _SIMILAR)):
            yield Problem(str(path), "", "is never rendered", f"did you mean {near[0]}.j2?")


def _unknown_variables(environment: jinja2.Environment, name: str) -> Iterator[Problem]:
    read = {file: read_source(environment, file) for file in sources(environment, name)}
    trees = {file: parse(environment, source, path) for file, (source, path) in read.items()}
    stored = {node.name for tree in trees.values() for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    known = {*VARIABLES[name], *environment.globals}
    for file, tree in trees.items():
        # An included file also sees what its includer sets; the outermost file is held to the strict list.
        allowed = known if file == f"{name}.j2" else known | stored
        path = read[file][1]
        for variable, line in _first_uses(tree, _undeclared(tree, path) - allowed):
            yield Problem(f"{path}:{line}", variable, "unknown variable", _allowed(variable, name))


def _undeclared(tree: nodes.Template, path: str) -> set[str]:
    """Return the variables that must come from outside; unknown filters and tests are found on the way."""
    try:
        return meta.find_undeclared_variables(tree)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(Problem(f"{path}:{error.lineno}", "", error.message or "cannot be compiled")) from error


def _first_uses(tree: nodes.Template, names: set[str]) -> list[tuple[str, int]]:
    lines: dict[str, int] = {}
    for node in tree.find_all(nodes.Name):
        if node.name in names:
            lines.setdefault(node.name, node.lineno)
    return sorted(lines.items(), key=lambda use: use[1])


def _allowed(variable: str, name: str) -> str:
    known = f"{name}.j2 has {', '.join(VARIABLES[name])}"
    if (new := RENAMED.get(variable)) in VARIABLES[name]:
        return f"it is called {new} now; {known}"
    near = difflib.get_close_matches(variable, VARIABLES[name], 1)
    return f"did you mean {near[0]}? {known}" if near else known


def _render_problems(cases: Sequence[Callable[[], str]]) -> list[Problem]:
    problems: list[Problem] = []
    for case in cases:
        try:
            case()
        except UserError as error:
            problems += error.problems
            if isinstance(error.__cause__, LimitError):
                break  # the other cases would take as long
    return problems
