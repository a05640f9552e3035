"""Template checks that need no model: everything that can be known before the first prompt is sent."""

import difflib
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from jinja2 import meta, nodes

from msr_adapter.errors import Problem, UserError
from msr_adapter.prompts.render import TEMPLATE_NAMES, VARIABLES, HistoryItem

if TYPE_CHECKING:
    from msr_adapter.prompts.render import Prompts

_SIMILAR = 0.88  # "recomend.j2" is a slip of the pen, "recommend_old.j2" is a file kept beside


def sources(environment: jinja2.Environment, name: str) -> dict[str, str]:
    """Return file name -> source of template ``name`` and of all it refers to; `UserError` if one cannot be read."""
    found: dict[str, str] = {}
    waiting = [f"{name}.j2"]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found[file], path = _read(environment, file)
            waiting += [other for other, _ in _references(_parse(environment, found[file], path), path)]
    return found


def check(prompts: "Prompts") -> list[Problem]:
    """Check every template that msr renders; problems carry file and line."""
    if prompts.folder is not None and not prompts.folder.is_dir():
        return [Problem(str(prompts.folder), "templates", "no such folder", "a folder of .j2 files")]
    problems = list(_misnamed(prompts.folder))
    for name in TEMPLATE_NAMES:
        try:
            found = list(_unknown_variables(prompts.environment, name))
        except UserError as error:
            found = list(error.problems)
        problems += found or _render_problems(prompts, name)
    return list(dict.fromkeys(problems))


def _misnamed(folder: Path | None) -> Iterator[Problem]:
    """A file that is nearly called like a template would be passed over without a word."""
    for path in sorted(folder.glob("*.j2")) if folder else ():
        if path.stem not in VARIABLES and (near := difflib.get_close_matches(path.stem, VARIABLES, 1, _SIMILAR)):
            yield Problem(str(path), "", "is never rendered", f"did you mean {near[0]}.j2?")


def _unknown_variables(environment: jinja2.Environment, name: str) -> Iterator[Problem]:
    files = sources(environment, name)
    trees = {file: _parse(environment, source, _read(environment, file)[1]) for file, source in files.items()}
    stored = {node.name for tree in trees.values() for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    known = {*VARIABLES[name], *environment.globals}
    # An included file also sees what its includer sets; only the outermost file is held to the strict list.
    for file, tree in trees.items():
        allowed = known if file == f"{name}.j2" else known | stored
        unknown = meta.find_undeclared_variables(tree) - allowed
        for variable, line in _first_uses(tree, unknown):
            yield Problem(
                f"{_read(environment, file)[1]}:{line}", variable, "unknown variable", _allowed(variable, name)
            )


def _first_uses(tree: nodes.Template, names: set[str]) -> list[tuple[str, int]]:
    lines: dict[str, int] = {}
    for node in tree.find_all(nodes.Name):
        if node.name in names:
            lines.setdefault(node.name, node.lineno)
    return sorted(lines.items(), key=lambda use: use[1])


def _allowed(variable: str, name: str) -> str:
    known = f"{name}.j2 has {', '.join(VARIABLES[name])}"
    near = difflib.get_close_matches(variable, VARIABLES[name], 1)
    return f"did you mean {near[0]}? {known}" if near else known


def _render_problems(prompts: "Prompts", name: str) -> list[Problem]:
    """Render ``name`` in every case it meets: with and without image, title, summary, earlier summary."""
    problems: list[Problem] = []
    for case in _cases(prompts, name):
        try:
            case()
        except UserError as error:
            problems += error.problems
    return problems


def _cases(prompts: "Prompts", name: str) -> list[Callable[[], str]]:
    items = [HistoryItem("A title", "A summary"), HistoryItem("", "")]
    flags = (True, False)
    if name == "item_summary":
        return [partial(prompts.item_summary, *case) for case in product(("A title", ""), flags)]
    if name == "user_preference":
        return [partial(prompts.user_preference, previous, items) for previous in ("", "Earlier")]
    if name == "history":
        return [partial(prompts.history, items)]
    return [partial(prompts.recommend, *case) for case in product(("", "Any"), ("A title", ""), flags)]


def _read(environment: jinja2.Environment, file: str) -> tuple[str, str]:
    """Return source and path of a template file."""
    assert environment.loader is not None
    try:
        source, path, _ = environment.loader.get_source(environment, file)
    except jinja2.TemplateNotFound as error:
        near = difflib.get_close_matches(file, environment.list_templates(), 1)
        allowed = f"did you mean {near[0]}?" if near else "searched in your templates folder and the bundled one"
        raise UserError(Problem(file, "", "no such template", allowed)) from error
    except UnicodeDecodeError as error:
        raise UserError(Problem(file, "", f"not UTF-8 text ({error.reason})")) from error
    return source, path or file


def _parse(environment: jinja2.Environment, source: str, path: str) -> nodes.Template:
    try:
        return environment.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(Problem(f"{path}:{error.lineno}", "", error.message or "cannot be parsed")) from error


def _references(tree: nodes.Template, path: str) -> list[tuple[str, int]]:
    """Return (file, line) of each include, import and extends; a computed name cannot be fingerprinted: refused."""
    found = []
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        target = dict(node.iter_fields())["template"]
        if not isinstance(target, nodes.Const) or not isinstance(target.value, str):
            place = f"{path}:{node.lineno}"
            raise UserError(Problem(place, "", "includes a template by a computed name", "write the name in quotes"))
        found.append((target.value, node.lineno))
    return found
