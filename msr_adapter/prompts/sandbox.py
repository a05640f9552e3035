"""Templates of others: they can call nothing but text, and they end, in bounded time and memory.

A template comes with somebody else's pipeline, and is code: Jinja's sandbox keeps it from the machine, but lets it loop
for ever. Prompts come out as from plain Jinja, letter by letter; only what exceeds the `Limits` is refused.

Everything is counted while a template renders, on whatever thread: each pass of a loop, each call of a macro and each
inclusion by the size of its body, each value that is made by its length. No value may be larger than `Limits.value`,
so that no single step takes long; the clock is read every few dozen steps besides.
"""

import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import TracebackType
from typing import Any

import jinja2
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, LoopContext, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from msr_adapter.prompts.attributes import is_none
from msr_adapter.prompts.sandbox_budget import Budget, LimitError, Limits
from msr_adapter.prompts.sandbox_compiler import NODE, CountingCode

_OTHER = 20
"""Characters of what is neither text nor a container: numbers, dates."""
_LARGEST_BITS = 4096
"""Larger integers are refused: their arithmetic takes more than a moment."""
_PLAIN = frozenset({str, bool, int, float, type(None)})
"""Types, not their subclasses, of which a value holds no other and is no iterator: nearly all that a prompt has."""
_TEXT = frozenset({str})
_TEXT_LIKE = (str, bytes, int, float, complex, list, tuple, dict, set, frozenset)
_CONTAINERS: tuple[Any, ...] = (
    list,
    tuple,
    set,
    frozenset,
    range,
    type({}.keys()),
    type({}.values()),
    type({}.items()),
)
_GROWING = {
    "batch", "center", "expandtabs", "hex", "indent", "join", "ljust", "pprint", "replace", "rjust", "slice",
    "to_bytes", "tojson", "translate", "urlize", "wordwrap", "zfill",
}  # fmt: skip
"""Filters and methods whose result may be as large as the product of what they are given."""
_TAKING = {"default", "d", "first", "last", "random", "min", "max", "length", "count"}
"""Filters that return what was there before, or a number."""
_WIDE = re.compile(r"[:%.][^{}a-zA-Z]*\d{5}|\{[^{}]*:[^{}]*\{|%[^a-zA-Z%]*\*")
"""In a format: a width of five digits, or one that is given as a value."""
_USUAL = Limits()
_TOO_LARGE = "a value becomes too large"
_NOT_YET = "nothing is computed before a template is rendered"


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which rendering ends: `LimitError` where it would not within the `Limits`."""

    # Jinja asks `call_binop` for these operators alone, and by default for none.
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%", "**"])

    def __init__(self, limits: Limits = _USUAL, **options: Any) -> None:
        super().__init__(finalize=self._print, **options)
        self.limits = limits
        self._local = threading.local()
        del self.globals["lipsum"]  # random text of any length
        self.filters = {name: self._guard(name, function) for name, function in self.filters.items()}
        tests: dict[str, Any] = {**self.tests, "none": is_none}
        self.tests = {name: self._guard(name, function, test=True) for name, function in tests.items()}

    def begin(self) -> "Budget | None":
        """Count what is rendered from now on, from nothing; return what counted so far, for `end`."""
        outer: Budget | None = getattr(self._local, "budget", None)
        self._local.budget = Budget(self.limits)
        return outer

    def end(self, outer: "Budget | None") -> None:
        """Count as before `begin`."""
        self._local.budget = outer

    def step(self, units: int) -> bool:
        """Count work and return True; the code of every template calls it. Raises `LimitError`."""
        try:
            budget: Budget = self._local.budget
            budget.left -= units
        except AttributeError:  # Jinja folds constants: not here
            raise LimitError(_NOT_YET) from None
        if budget.left < budget.look_at:
            budget.look()
        return True

    def made(self, value: Any) -> Any:
        """Count a value that was made, and return it. Raises `LimitError`."""
        if type(value) is str:  # nearly all there is, hence without another call
            size = len(value)
            if size > self.limits.value:
                raise LimitError(_TOO_LARGE)
            budget: Budget | None = getattr(self._local, "budget", None)
            if budget is None:
                raise LimitError(_NOT_YET)
            budget.left -= size
            if budget.left < budget.look_at:
                budget.look()
        elif isinstance(value, str | bytes):
            self._fits(len(value))
            self.step(len(value))
        elif isinstance(value, int):
            _require_small(value)
        elif value is not None and not isinstance(value, float | LoopContext):
            self.step(self._weigh(value))
        return value

    def joined(self, context: EvalContext, values: tuple[Any, ...]) -> str:
        """Return what `~` makes."""
        self._fits(self._weigh(values))
        return str(self.made((markup_join if context.autoescape else str_join)(values)))

    def concat(self, pieces: Iterable[str]) -> str:
        """Return the pieces as one text: values were counted when they were printed, literal text with its body."""
        return "".join(pieces)

    # Named as in Jinja, so that a template may call with a keyword `self` or `obj`.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call what templates may call."""
        __self.step(NODE)
        owner = _owner(__obj)
        if not isinstance(owner, _TEXT_LIKE):
            result = super().call(__context, __obj, *args, **kwargs)
            return __self.made(result) if isinstance(result, dict) else result
        if not _PLAIN.issuperset(map(type, args)):
            args = tuple(map(__self._whole, args))
        name = getattr(__obj, "__name__", "")
        if name in ("format", "format_map"):
            __self._require_narrow(owner, (args, kwargs))
        elif name in _GROWING:
            __self._require_product(owner, *args, *kwargs.values())
        return __self.made(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator whose result is not too large."""
        self.step(NODE)
        for side in (left, right):
            if isinstance(side, int):
                _require_small(side)
        if operator == "**" and isinstance(left, int) and isinstance(right, int):
            if abs(right) * left.bit_length() > _LARGEST_BITS:
                raise LimitError("a number becomes too large")
        elif operator == "*" and not (isinstance(left, int | float) and isinstance(right, int | float)):
            number, other = (left, right) if isinstance(left, int) else (right, left)
            self._fits(max(int(number), 0) * self._weigh(other) if isinstance(number, int) else 0)
        elif operator == "%" and isinstance(left, str | bytes):
            self._require_narrow(left, right)
        return self.made(super().call_binop(context, operator, left, right))

    def is_safe_callable(self, obj: Any) -> bool:
        """Allow Jinja's own (macros, blocks, loops, globals) and the methods of texts, numbers and containers."""
        if not super().is_safe_callable(obj):
            return False
        owner = _owner(obj)
        if isinstance(owner, _TEXT_LIKE):
            return True
        own = any(type(one).__module__.startswith("jinja2.") for one in (obj, owner))
        return own or any(obj is one for one in self.globals.values())

    def get_template(self, *args: Any, **kwargs: Any) -> jinja2.Template:
        """Load a template."""
        try:
            return super().get_template(*args, **kwargs)
        except RecursionError:
            raise LimitError("it is nested too deeply") from None

    def _print(self, value: Any) -> Any:
        budget: Budget | None = getattr(self._local, "budget", None)
        if budget is None:  # Jinja tries what it could compute beforehand
            return value
        if type(value) is not str or len(value) > self.limits.value:
            return self.made(value)
        budget.left -= len(value)  # as `made` counts
        if budget.left < budget.look_at:
            budget.look()
        return value

    def _guard(self, name: str, function: Callable[..., Any], *, test: bool = False) -> Callable[..., Any]:
        # Some filters are handed Jinja's context or environment before the template's own arguments.
        passed = 0 if getattr(function, "jinja_pass_arg", None) is None else 1
        taking = test or name in _TAKING
        local, most = self._local, self.limits.value
        bounded = not test and (name in _GROWING or name in ("format", "string", "sum"))

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            budget: Budget | None = getattr(local, "budget", None)
            if budget is None:  # Jinja folds constants: not here
                raise LimitError(_NOT_YET)
            given = args[passed:] if passed else args
            if not _PLAIN.issuperset(map(type, given)):
                given = tuple(map(self._whole, given))
                args = (*args[:passed], *given)
            if bounded:
                self._require_bounded(name, given, kwargs)
            result = function(*args, **kwargs)
            # As `step` and `made` count, in one: they are called for every value of every prompt.
            is_text = type(result) is str and not taking
            budget.left -= NODE + len(result) if is_text else NODE
            if budget.left < budget.look_at:
                budget.look()
            if is_text:
                if len(result) > most:
                    raise LimitError(_TOO_LARGE)
                return result
            return result if taking else self.made(result)

        return guarded

    def _require_bounded(self, name: str, given: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Refuse what a filter would make far larger than what it is given."""
        if name in _GROWING:
            self._require_product(*given, *kwargs.values())
        elif name == "format" and given:
            self._require_narrow(given[0], (given[1:], kwargs))
        elif name in ("string", "sum"):
            self.made(given)
            adds_lists = name == "sum" and not isinstance(kwargs.get("start", given[2:] or 0), int | float)
            self._fits(len(given[0]) ** 2 if adds_lists else 0)  # each sum copies the last one

    def _whole(self, value: Any) -> Any:
        """Return an iterator as a list, so that its size is known before anything is made of it."""
        if isinstance(value, Iterator) and not isinstance(value, LoopContext):
            value = list(self._counted(value))
        return value

    def _counted(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            self.step(NODE)
            yield value

    def _require_narrow(self, text: Any, values: Any) -> None:
        """Refuse a format whose result may be far larger than format and values."""
        if isinstance(text, bytes):
            text = text.decode("latin-1")
        if isinstance(text, str) and _WIDE.search(text):
            raise LimitError("a format asks for too wide a text")
        self._fits(max(1, len(text) // 2 if isinstance(text, str) else 1) * self._weigh(values))

    def _require_product(self, first: Any, *others: Any) -> None:
        most = self.limits.value
        product = len(first) or 1 if type(first) is str and len(first) <= most else self._weigh(first) or 1
        for other in others:
            if type(other) is str and len(other) <= most:  # as the rest counts it, without a call
                product *= len(other) or 1
            elif other is not None:
                product *= (abs(other) if isinstance(other, int) else self._weigh(other)) or 1
        if product > 20 * most:
            raise LimitError(_TOO_LARGE)

    def _fits(self, size: int) -> None:
        if size > self.limits.value:
            raise LimitError(_TOO_LARGE)

    def _weigh(self, value: Any) -> int:
        """Return about how many characters a value has when it is printed. Raises `LimitError`."""
        # Texts and lists of texts first: nearly all there is, and the loop below is ten times slower.
        kind = type(value)
        if kind is str or (kind in (list, tuple) and _TEXT.issuperset(map(type, value))):
            total = len(value) if kind is str else _OTHER + sum(map(len, value))
            self._fits(total)
            return total
        total, waiting = 0, [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str | bytes):
                total += len(one)
            elif isinstance(one, Mapping):
                total += _OTHER
                waiting += [*one.keys(), *one.values()]
            elif isinstance(one, _CONTAINERS):
                total += _OTHER
                self._fits(total + len(one))
                waiting += one
            elif isinstance(one, Namespace):
                # The namespace's own lookup finds what a template has set, whatever it is called.
                waiting += object.__getattribute__(one, "_Namespace__attrs").values()
            elif is_dataclass(one) and not isinstance(one, type):
                waiting += [getattr(one, field.name) for field in fields(one)]
            else:
                total += _OTHER
            self._fits(total + len(waiting))
        return total


class _Template(jinja2.Template):
    """A template that is rendered within the limits of its environment."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """Return the text."""
        environment = self.environment
        assert isinstance(environment, BoundedEnvironment)
        outer = environment.begin()
        try:
            return super().render(*args, **kwargs)
        finally:
            environment.end(outer)


# Set here because the template's class refers to the environment's.
BoundedEnvironment.code_generator_class = CountingCode
BoundedEnvironment.template_class = _Template


def last_template_line(traceback: TracebackType | None) -> str:
    """Find the innermost frame that lies in a template: Jinja maps its frames back to template lines."""
    place = ""
    while traceback is not None:
        path = traceback.tb_frame.f_code.co_filename
        place = f"{path}:{traceback.tb_lineno}" if path.endswith(".j2") else place
        traceback = traceback.tb_next
    return place


def _owner(method: Any) -> Any:
    """Return what a method belongs to; Jinja wraps those that format."""
    return getattr(getattr(method, "__wrapped__", method), "__self__", None)


def _require_small(number: int) -> None:
    if number.bit_length() > _LARGEST_BITS:
        raise LimitError("a number becomes too large")
