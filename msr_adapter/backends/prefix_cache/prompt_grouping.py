"""Which prompts should share the computation of which prefix: the grouping that processes the fewest tokens.

Pure: it sees token sequences alone, in which every image's tokens are that image's own. So it needs to know nothing of
templates: whether users or items come first, whatever is common is found.

How: sorted, the rows form a prefix tree whose inner nodes are the places where rows part. Every row uses one prefix
(the keys and values of several cannot be chained without computing in between), so each node either opens a group for
the rows below it or leaves them to the group that is open above. The best choice depends on nothing but the depth of
that open group, so one pass from the leaves up, over all depths above each node, finds the optimum.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True)
class Group:
    """Rows that are computed after one shared prefix."""

    shared: int
    """Tokens of the prefix; 0 = none is shared."""
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How the rows are computed, and what that saves. Token counts are without padding."""

    groups: tuple[Group, ...]
    duplicates: dict[int, int]
    """Row -> the equal row that answers for it; such rows are in no group."""
    flat: int
    """Tokens of all rows."""
    planned: int
    """Tokens that the groups process: each prefix once, and what follows it row by row."""
    least: int
    """Tokens of the prefix tree: no way of computing each distinct prefix once can process fewer."""


@dataclass
class _Node:
    """A place where sorted rows part: all rows below it begin with the same ``depth`` tokens."""

    depth: int
    children: "list[_Node | int]" = field(default_factory=list)
    gains: dict[int, int] = field(default_factory=dict)
    """Depth of the group that is open above (0 = none) -> most tokens that the rows below can save."""
    opens: dict[int, bool] = field(default_factory=dict)
    """The same -> whether a group of its own, here, is the way to save them."""


def make_plan(rows: Sequence[Sequence[int]], least_shared: int = 8, least_saved: float = 0.0) -> Plan:
    """Return the grouping of ``rows`` (token ids, none empty) with the fewest tokens among all that share one prefix
    per row.

    A prefix of fewer than ``least_shared`` tokens is not worth a pass of its own, nor is one that saves less than
    ``least_saved`` of its rows' tokens. Every row keeps at least its last token for itself. O(total tokens + rows x
    depth of the tree).
    """
    # As bytes, rows hash and compare at the speed of memory. Byte order is not the order of the numbers, but any order
    # serves that puts rows with a common prefix side by side.
    keys = [array("i", row).tobytes() for row in rows]
    first: dict[bytes, int] = {}
    duplicates = {row: first[key] for row, key in enumerate(keys) if first.setdefault(key, row) != row}
    order = sorted(first.values(), key=keys.__getitem__)
    lengths = [len(key) // _ITEM for key in keys]
    common = [_common(keys[one], keys[other]) for one, other in pairwise(order)]
    groups = _worthwhile(_groups(order, lengths, common, max(1, least_shared)), lengths, least_saved)
    return Plan(
        tuple(groups), duplicates, flat=sum(lengths),
        planned=sum(group.shared + sum(lengths[row] - group.shared for row in group.rows) for group in groups),
        least=sum(lengths[row] for row in order) - sum(common),
    )  # fmt: skip


_ITEM = array("i").itemsize


def _common(one: bytes, other: bytes) -> int:
    """Return the number of tokens that both begin with, by bisection: slices are compared at the speed of memory."""
    low, high = 0, min(len(one), len(other)) // _ITEM
    while low < high:
        middle = (low + high + 1) // 2
        if one[low * _ITEM : middle * _ITEM] == other[low * _ITEM : middle * _ITEM]:
            low = middle
        else:
            high = middle - 1
    return low


def _groups(order: Sequence[int], lengths: Sequence[int], common: Sequence[int], least_shared: int) -> list[Group]:
    """Return the groups with the fewest tokens; rows that share nothing are one group, the last.

    ``order`` are the distinct rows, sorted; ``common`` the tokens that each has in common with the next.
    """
    # A row's last token is its own (its logits are read), so two rows share at most all but that.
    capped = [min(depth, lengths[order[at]] - 1, lengths[order[at + 1]] - 1) for at, depth in enumerate(common)]
    root, nodes = _tree(order, capped)
    for parting, above in reversed(nodes):  # children before parents: no recursion, trees may be deep
        _weigh(parting, above, least_shared)
    found: dict[tuple[int, int], list[int]] = {}
    alone: list[int] = []
    waiting: list[tuple[_Node | int, tuple[int, int]]] = [(root, (0, 0))]
    while waiting:
        node, open_group = waiting.pop()
        if isinstance(node, int):
            (found.setdefault(open_group, []) if open_group[0] else alone).append(node)
            continue
        joined = (node.depth, id(node)) if node.opens[open_group[0]] else open_group
        waiting += [(child, joined) for child in reversed(node.children)]
    # The node is part of the key, because prefixes of one length may be different prefixes.
    groups = sorted((tuple(sorted(rows)), shared) for (shared, _), rows in found.items())
    return [Group(shared, rows) for rows, shared in groups] + ([Group(0, tuple(sorted(alone)))] if alone else [])


def _worthwhile(groups: Sequence[Group], lengths: Sequence[int], least_saved: float) -> list[Group]:
    """Return ``groups``, the rows of those that save too little moved to the group that shares nothing."""

    def saves(group: Group) -> bool:
        saved = group.shared * (len(group.rows) - 1)
        return saved >= least_saved * sum(lengths[row] for row in group.rows)

    kept = [group for group in groups if group.shared and saves(group)]
    alone = sorted({row for group in groups for row in group.rows} - {row for group in kept for row in group.rows})
    return kept + ([Group(0, tuple(alone))] if alone else [])


def _tree(order: Sequence[int], common: Sequence[int]) -> tuple[_Node, list[tuple[_Node, tuple[int, ...]]]]:
    """Return the root of the tree of places where rows part, and every node with the depths above it, parents first."""
    root = _Node(0)
    path = [root]
    for at, row in enumerate(order):
        before = common[at - 1] if at else 0
        while path[-1].depth > before:
            path.pop()
        if path[-1].depth < before:  # the row before parts from this one where no node is yet
            child = path[-1].children.pop()
            path.append(_Node(before, [child]))
            path[-2].children.append(path[-1])
        path[-1].children.append(row)
    nodes: list[tuple[_Node, tuple[int, ...]]] = []
    waiting: list[tuple[_Node, tuple[int, ...]]] = [(root, (0,))]
    while waiting:
        node, above = waiting.pop()
        nodes.append((node, above))
        inner = above if node.depth in above else (*above, node.depth)  # the root's 0 is there from the start
        waiting += [(child, inner) for child in node.children if isinstance(child, _Node)]
    return root, nodes


def _weigh(node: _Node, above: Sequence[int], least_shared: int) -> None:
    """Fill ``gains``: each row below either joins the group that is open, or one that opens here or deeper."""

    def below(depth: int) -> int:
        return sum(depth if isinstance(child, int) else child.gains[depth] for child in node.children)

    # A group of its own saves `depth` tokens for each row below and costs them once.
    # -1 is less than any saving: too short a prefix opens no group.
    own = below(node.depth) - node.depth if node.depth >= least_shared else -1
    for depth in above:
        joined = below(depth)
        node.opens[depth] = own > joined
        node.gains[depth] = max(own, joined)
