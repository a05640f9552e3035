"""Checks of templates that need no model: everything that can be known before the first prompt is sent."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jinja2
from jinja2 import meta, nodes

from msr_adapter.errors import Problem, UserError, closest
from msr_adapter.filesystem import absent
from msr_adapter.prompts.sandbox_budget import LimitError
from msr_adapter.prompts.template_files import parse, read_source, sources
from msr_adapter.prompts.variables import RENAMED, VARIABLES

_REPORT = "report.html.j2"
_FILES = {*(f"{name}.j2" for name in VARIABLES), _REPORT}
"""What is looked for in a templates folder."""
_SUFFIXES = {"", "j2", "txt", "text", "md", "jinja", "jinja2", "html", "tpl", "tmpl", "template",
             "j2.txt", "txt.j2", "jinja.j2", "jinja2.j2"}  # fmt: skip
"""How a template is called by mistake; other files may lie beside."""
_SIMILAR = 0.88  # "recomend.j2" is a slip of the pen, "recommend_old.j2" is a file kept beside


def check(
    environment: jinja2.Environment, folder: Path | None, cases: Mapping[str, Sequence[Callable[[], str]]]
) -> list[Problem]:
    """Return the problems of every template that msr renders; ``cases`` render each one in all the ways that occur."""
    if folder is not None and not folder.is_dir():
        return [Problem(str(folder), "templates", absent(folder, "folder"), "a folder of .j2 files")]
    problems = [*_misnamed(folder), *(_passed_over(environment, folder) if folder else ())]
    for name, renders in cases.items():
        try:
            found = list(_unknown_variables(environment, name))
        except UserError as error:
            found = list(error.problems)
        if renders and not found:
            found = _render_problems(renders, read_source(environment, f"{name}.j2")[1])
        problems += found
    return list(dict.fromkeys(problems))


def _misnamed(folder: Path | None) -> Iterator[Problem]:
    """Yield a problem for each file that is nearly called like a template, or as one was called before.

    Without it, such a file would be passed over without a word.
    """
    for path in sorted(folder.glob("*.j2")) if folder else ():
        if (new := RENAMED.get(path.stem)) in VARIABLES:
            step = f"Rename the file to {new}.j2"
            yield Problem(str(path), "", "is never rendered: this template has a new name", f"{new}.j2", step)
        elif path.stem not in VARIABLES and (near := difflib.get_close_matches(path.stem, VARIABLES, 1, _SIMILAR)):
            yield Problem(str(path), "", "is never rendered", f"did you mean {near[0]}.j2?")


def _passed_over(environment: jinja2.Environment, folder: Path) -> Iterator[Problem]:
    """What was to be a template and cannot be read as one would leave its place to the bundled one."""
    entries = sorted(folder.iterdir())
    own = {path.name for path in entries if path.is_file()}
    for path in entries:
        stem, suffix = _split(path.name)
        if f"{stem}.j2" in own or f"{stem}.j2" not in _FILES:
            continue
        if path.name == f"{stem}.j2":
            dangling = path.is_symlink() and not path.exists()
            yield Problem(str(path), "", "a link to nothing" if dangling else "no file", "a text file of UTF-8")
        elif not path.is_dir() and suffix in _SUFFIXES:
            yield Problem(str(path), "", "is never rendered", f"{stem}.j2", f"Rename the file to {stem}.j2")
    used = {file for name in VARIABLES for file in _readable_sources(environment, name)}
    for path in sorted(folder.glob("*/**/*.j2")):
        if path.name in _FILES - own and path.relative_to(folder).as_posix() not in used:
            step = f"Move it to {folder / path.name}, or name its folder as `templates`"
            yield Problem(str(path), "", "is never rendered: it lies in a folder below", "", step)
    try:
        if _REPORT in own:
            (folder / _REPORT).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        yield Problem(str(folder / _REPORT), "", f"cannot be read ({error})", "a text file of UTF-8")


def _split(name: str) -> tuple[str, str]:
    """Return the name of the template that a file was meant to be, and what follows it, in small letters."""
    stem, _, suffix = name.lower().removeprefix("report.").partition(".")
    return ("report.html" if name.lower().startswith("report.html") else stem), suffix.removeprefix("html.")


def _readable_sources(environment: jinja2.Environment, name: str) -> set[str]:
    try:
        return set(sources(environment, name))
    except UserError:  # told where the template is checked
        return set()


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
    near = closest(variable, VARIABLES[name])
    return f"did you mean {near[0]}? {known}" if near else known


def _render_problems(cases: Sequence[Callable[[], str]], path: str) -> list[Problem]:
    problems: list[Problem] = []
    printed = 0
    for case in cases:
        try:
            printed += bool(case().strip())
        except UserError as error:
            problems += error.problems
            if isinstance(error.__cause__, LimitError):
                break  # the other cases would take as long
    if not problems and printed < len(cases):
        found = "prints nothing" if not printed else "prints nothing for some inputs"
        problems.append(Problem(path, "", found, "a text", "Write it, or remove the file to use the bundled one"))
    return problems
