"""Template files: what is read for a template, itself and all that it refers to."""

import jinja2
from jinja2 import nodes

from msr_adapter.errors import Problem, UserError, closest


def sources(environment: jinja2.Environment, name: str) -> dict[str, str]:
    """Return file name -> source of template ``name`` and of all it refers to; `UserError` if one cannot be read."""
    found: dict[str, str] = {}
    waiting = [(f"{name}.j2", "")]
    while waiting:
        file, place = waiting.pop()
        if file not in found:
            found[file], path = read_source(environment, file, place)
            waiting += _references(parse(environment, found[file], path), path)
    return found


def read_source(environment: jinja2.Environment, file: str, place: str = "") -> tuple[str, str]:
    """Return source and path of a template file that is named at ``place``; `UserError` if there is none."""
    assert environment.loader is not None
    try:
        source, path, _ = environment.loader.get_source(environment, file)
    except jinja2.TemplateNotFound as error:
        near = closest(file, environment.list_templates())
        allowed = f"did you mean {near[0]}?" if near else "searched in your templates folder and the bundled one"
        raise UserError(Problem(place, file, "no such template", allowed)) from error
    except UnicodeDecodeError as error:
        raise UserError(Problem(file, "", f"not UTF-8 text ({error.reason})")) from error
    return source, path or file


def parse(environment: jinja2.Environment, source: str, path: str) -> nodes.Template:
    """Parse a template; a syntax error is a `UserError` with its line."""
    try:
        return environment.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise UserError(Problem(f"{path}:{error.lineno}", "", error.message or "cannot be parsed")) from error
    except RecursionError:
        raise UserError(Problem(path, "", "is nested too deeply", "", "Write it in smaller steps.")) from None


def _references(tree: nodes.Template, path: str) -> list[tuple[str, str]]:
    """Return (file, place) of each include, import and extends; a computed name has no digest and is refused."""
    found = []
    for node in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        target, place = dict(node.iter_fields())["template"], f"{path}:{node.lineno}"
        if not isinstance(target, nodes.Const) or not isinstance(target.value, str):
            raise UserError(Problem(place, "", "includes a template by a computed name", "write the name in quotes"))
        found.append((target.value, place))
    return found
