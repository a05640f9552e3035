"""The Python that Jinja makes of a template, with calls in it that count what the template does.

Why: neither a time limit nor a limit on the finished text stops a template that loops over nothing, or builds one huge
value and drops it. Signals reach only the main thread, and prompts are rendered on others. So the code itself counts:
it calls `step`, `made` and `joined` of its environment, the `BoundedEnvironment` of `sandbox`.
"""

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame

NODE = 16
"""Units of work that a node of a template's tree counts for; a character that is made counts for one."""
_BODIES = (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)


class CountingCode(CodeGenerator):
    """Writes the counting into a template's code."""

    def visit_Template(self, node: nodes.Template, frame: Frame | None = None) -> None:  # noqa: N802
        """Count each body by its size: its nodes, and the literal text that it prints."""
        bodies: list[Any] = [node, *node.find_all(_BODIES)]
        sizes = [
            NODE * (1 + sum(1 for _ in body.find_all(nodes.Node)))
            + sum(len(text.data) for text in body.find_all(nodes.TemplateData))
            for body in bodies
        ]
        for body, size in zip(bodies, sizes, strict=True):
            count = nodes.Call(nodes.EnvironmentAttribute("step"), [nodes.Const(size)], [], None, None)
            body.body.insert(0, nodes.ExprStmt(count).set_lineno(body.lineno))
            # A loop whose `if` lets nothing pass never enters its body: its test counts too.
            if isinstance(body, nodes.For) and body.test is not None:
                body.test = nodes.And(count, body.test).set_lineno(body.lineno)
        super().visit_Template(node, frame)

    def visit_Call(self, node: nodes.Call, frame: Frame, **options: Any) -> None:  # type: ignore[override] # noqa: N802
        """Write a call; our own is not the template's."""
        if isinstance(node.node, nodes.EnvironmentAttribute):
            self.write(f"environment.{node.node.name}({node.args[0].as_const()})")
        else:
            super().visit_Call(node, frame, **options)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        """Write `~`."""
        self.write("environment.joined(context.eval_ctx, (")
        for one in node.nodes:
            self.visit(one, frame)
            self.write(", ")
        self.write("))")

    def _made(self, write: Callable[[Any, Frame], None], node: nodes.Node, frame: Frame) -> None:
        self.write("environment.made(")
        write(node, frame)
        self.write(")")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        """Write a list."""
        self._made(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        """Write a mapping."""
        self._made(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        """Write a tuple; that of an assignment's names is none."""
        if node.ctx == "load":
            self._made(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        """Write a part of a value; a slice is a value of its own."""
        if isinstance(node.arg, nodes.Slice):
            self._made(super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)
