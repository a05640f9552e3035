"""Which part of a template depends on what: cut at its top level, it can be rendered part by part, each value once.

Why: `vectorized` renders what depends on the user once per user, and what depends on the item once per item, instead of
everything once per pair. The invariant: the parts' texts, joined, are the whole template's text. So a cut is only made
where it provably changes nothing: parts share no state but `{% set %}`, macros and plain imports, which every part that
needs them repeats. The fallback: a template that does anything else is one part that depends on all its variables.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jinja2 import nodes

_STATE = (nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.Import, nodes.FromImport)
_SCOPES = (nodes.For, nodes.With, nodes.Macro, nodes.CallBlock, nodes.FilterBlock)
# Blocks and includes render elsewhere, namespaces and contexts carry state past a cut: none of it can be followed here.
_UNCUTTABLE = (
    nodes.Include,
    nodes.Extends,
    nodes.Block,
    nodes.NSRef,
    nodes.EvalContextModifier,
    nodes.ContextReference,
)
_STATEFUL = {"cycler", "joiner", "namespace", "lipsum", "random", "self"}
"""Globals and filters whose result depends on what was rendered before, or on chance."""


@dataclass(frozen=True)
class Part:
    """Consecutive output of a template that depends on the variables ``names``."""

    names: frozenset[str]
    places: tuple[int, ...]
    """Which of the `pieces` of the template render it, in order."""
    plain: bool
    """Whether the texts among ``names`` are only printed as they are, or tested for being empty."""


def pieces(tree: nodes.Template) -> list[nodes.Node]:
    """Return the top-level nodes of a template, with outputs one by one."""
    found: list[nodes.Node] = []
    for node in tree.body:
        if isinstance(node, nodes.Output):
            found += [nodes.Output([child], lineno=node.lineno) for child in node.nodes]
        else:
            found.append(node)
    return found


def cut(tree: nodes.Template, groups: Sequence[frozenset[str]], texts: frozenset[str]) -> list[Part]:
    """Cut a template into parts, each as far as one of the ``groups`` of variables (or all of them) is enough.

    ``texts`` are the variables that are text, as opposed to flags.
    """
    variables = frozenset().union(*groups)
    found = pieces(tree)
    parts = _cut(found, groups, texts) if _is_cuttable(tree, found, variables) else []
    if {place for part in parts for place in part.places} == set(range(len(found))):
        return parts
    return [Part(variables, tuple(range(len(found))), False)]


def _cut(found: list[nodes.Node], groups: Sequence[frozenset[str]], texts: frozenset[str]) -> list[Part]:
    variables = frozenset().union(*groups)
    depends = _dependencies(found, variables)
    spans: list[tuple[frozenset[str], list[int]]] = []
    for place, node in enumerate(found):
        if isinstance(node, _STATE):
            continue
        names = _resolve(node, depends)
        group = next((group for group in (frozenset[str](), *groups) if names <= group), variables)
        # Constant text joins its neighbour, so that parts are as few, and columns as long, as can be.
        if spans and (not group or not spans[-1][0] or spans[-1][0] == group):
            spans[-1] = (spans[-1][0] | group, [*spans[-1][1], place])
        else:
            spans.append((group, [place]))
    return [_part(names, places, found, depends, texts) for names, places in spans]


def _part(
    names: frozenset[str],
    places: list[int],
    found: list[nodes.Node],
    depends: dict[str, frozenset[str]],
    texts: frozenset[str],
) -> Part:
    state = [place for place, node in enumerate(found) if isinstance(node, _STATE) and place < places[-1]
             and _resolve(node, depends) <= names]  # fmt: skip
    plain = not state and all(is_plain(found[place], texts) for place in places)
    return Part(names, tuple(sorted([*places, *state])), plain)


def _is_cuttable(tree: nodes.Template, found: list[nodes.Node], variables: frozenset[str]) -> bool:
    set_again = {name for node in found if isinstance(node, _STATE) for name in _set_names(node)} & variables
    named = {node.name for node in tree.find_all((nodes.Name, nodes.Filter))}  # type: ignore[attr-defined]
    with_context = any(node.with_context for node in tree.find_all((nodes.Import, nodes.FromImport)))  # type: ignore[attr-defined]
    leaks = any(_leaks(node) for node in found if not isinstance(node, _STATE))
    return not (set_again or named & _STATEFUL or with_context or leaks or any(tree.find_all(_UNCUTTABLE)))


def _leaks(node: nodes.Node) -> bool:
    """Tell whether a node sets something that stays set after it: `{% if %}` is no scope of its own."""
    if isinstance(node, _STATE):
        return True
    return not isinstance(node, _SCOPES) and any(map(_leaks, node.iter_child_nodes()))


def _dependencies(found: list[nodes.Node], variables: frozenset[str]) -> dict[str, frozenset[str]]:
    """Return name -> variables behind it, whenever and wherever it is set."""
    depends = {name: frozenset([name]) for name in variables}
    # A macro may use a name that is set below it: one pass is not enough. Each passes dependencies on by one name more.
    for _ in range(len(found) + 1):
        for node in found:
            if isinstance(node, _STATE):
                behind = _resolve(node, depends)
                for name in _set_names(node):
                    depends[name] = depends.get(name, frozenset()) | behind
    return depends


def _set_names(node: nodes.Node) -> Iterator[str]:
    if isinstance(node, nodes.Macro):
        yield node.name
    elif isinstance(node, nodes.Import):
        yield node.target
    elif isinstance(node, nodes.FromImport):
        yield from (name if isinstance(name, str) else name[1] for name in node.names)
    else:
        yield from (name.name for name in node.find_all(nodes.Name) if name.ctx == "store")


def _resolve(node: nodes.Node, depends: dict[str, frozenset[str]]) -> frozenset[str]:
    own = {node.name} if isinstance(node, nodes.Name) else set()
    names = own | {name.name for name in node.find_all(nodes.Name)}
    return frozenset().union(*(depends.get(name, frozenset()) for name in names))


def is_plain(node: nodes.Node | None, texts: frozenset[str], value: type[nodes.Node] = nodes.Name) -> bool:
    """Tell whether texts are only printed whole, or tested for being empty: then one rendering stands for all.

    ``texts`` are the names behind them, ``value`` the kind of node that stands for one.
    """
    if isinstance(node, value):
        return bool(dict(node.iter_fields())["ctx"] == "load")
    if isinstance(node, nodes.Output | nodes.If | nodes.CondExpr | nodes.Or | nodes.And | nodes.Not | nodes.Concat):
        return all(is_plain(child, texts, value) for child in node.iter_child_nodes())
    return node is not None and not any(name.name in texts for name in node.find_all(nodes.Name))
