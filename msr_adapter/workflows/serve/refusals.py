"""What a server refuses, in one shape: `{"error": {"status", "message", "problems": [{"field", "found", ...}]}}`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from msr_adapter.config.error_messages import describe
from msr_adapter.errors import Problem, did_you_mean
from msr_adapter.filesystem import printable
from msr_adapter.redaction import redact

_LISTED = 20
_ALLOWED = {
    "missing": "a value", "string_type": "a text", "int_type": "a whole number", "bool_type": "true or false",
    "list_type": "a list", "float_type": "a number", "int_parsing": "a whole number",
    "bool_parsing": "true or false", "int_from_float": "a whole number", "model_attributes_type": "an object",
    "model_type": "an object", "dict_type": "an object", "string_unicode": "a text in valid Unicode",
    "finite_number": "a finite number",
}  # fmt: skip
_REASONS = {
    404: "no such address", 405: "the address does not take this method", 408: "the request did not come whole in time",
    413: "the request is too large", 415: "the body is not JSON", 421: "called by a name that is not the server's",
}  # fmt: skip


class RefusalError(HTTPException):
    """A request that is not carried out, and why."""

    def __init__(
        self, status: int, problems: Problem | Sequence[Problem], headers: Mapping[str, str] | None = None,
        reason: str = "",
    ) -> None:  # fmt: skip
        """``reason`` is what metrics count it as; else the status."""
        super().__init__(status, headers=dict(headers or {}))
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        self.reason = reason or str(status)


def busy(status: int, found: str, retry_s: float, reason: str) -> RefusalError:
    """Return the refusal of a request that may be sent again, unchanged, after ``retry_s`` seconds."""
    seconds = max(1, math.ceil(retry_s))
    step = f"Send it again after {seconds} s"
    return RefusalError(status, Problem("", "", found, "", step), {"Retry-After": str(seconds)}, reason)


def response_of(refusal: RefusalError) -> JSONResponse:
    """Return the response that says it."""
    return error_response(refusal.status_code, refusal.problems, refusal.headers)


def error_response(status: int, problems: Sequence[Problem], headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return a response in the shape of all errors; its message is the first problem's sentence."""
    told = [
        {"field": _clean(one.field), "found": _clean(one.found), "allowed": _clean(one.allowed),
         "next_step": _clean(one.next_step)}
        for one in problems[:_LISTED]
    ]  # fmt: skip
    more = f" (and {len(problems) - 1} more: see problems)" if len(problems) > 1 else ""
    body = {"status": status, "message": f"{_clean(str(problems[0]))}{more}", "problems": told}
    return JSONResponse({"error": body}, status, headers=dict(headers or {}))


def of_http(error: HTTPException) -> RefusalError:
    """Return what the framework refuses, in our shape."""
    if isinstance(error, RefusalError):
        return error
    if error.status_code == 400:
        found = "the body cannot be read as JSON"
        return RefusalError(400, Problem("", "", found, "one JSON object in UTF-8"), error.headers)
    return RefusalError(error.status_code, Problem("", "", _REASONS.get(error.status_code, str(error.detail))),
                        error.headers)  # fmt: skip


def of_validation(error: RequestValidationError, fields: Mapping[str, Iterable[str]]) -> RefusalError:
    """Return what is wrong with a body or a query; ``fields`` are the known ones of each model, by name."""
    errors = list(error.errors())
    broken = next((one for one in errors if one["type"] == "json_invalid"), None)
    if broken is not None:
        found = f"the body is not JSON ({broken.get('ctx', {}).get('error', 'it ends early')})"
        return RefusalError(400, Problem("", "", found, "one JSON object in UTF-8"), reason="400")
    return RefusalError(422, _problems(errors, fields))


def _problems(errors: list[Any], fields: Mapping[str, Iterable[str]]) -> list[Problem]:
    """Return a problem for each place at fault; of a value that may be of several kinds, they say all of them."""
    places = [_place(one) for one in errors]
    found: dict[tuple[object, ...], Problem] = {}
    for error, place in zip(errors, places, strict=True):
        # An object that is wrong inside is meant to be one: that it is no text either, helps nobody.
        if any(len(other) > len(place) and other[: len(place)] == place for other in places):
            continue
        problem = _problem(error, place, fields)
        if place not in found:
            found[place] = problem
        elif problem.allowed not in found[place].allowed.split(" or "):
            found[place] = replace(found[place], allowed=f"{found[place].allowed} or {problem.allowed}")
    return list(found.values())


def _problem(error: Any, place: tuple[object, ...], fields: Mapping[str, Iterable[str]]) -> Problem:
    field = ".".join(map(str, place))
    kind, context, given = error["type"], error.get("ctx") or {}, error.get("input")
    if kind == "extra_forbidden":
        known = sorted({name for names in fields.values() for name in names})
        return Problem("", field, "unknown field", "see /openapi.json", did_you_mean(str(place[-1]), known))
    if kind == "missing":
        return Problem("", field, "missing", "it has to be there") if place else Problem(
            "", "body", "there is none", "one JSON object")  # fmt: skip
    if kind == "value_error":
        return Problem("", field or "body", str(context.get("error", error["msg"])))
    return Problem("", field or "body", _describe(given), _allowed(kind, context, error["msg"]))


def _allowed(kind: str, context: Mapping[str, Any], message: str) -> str:
    limits = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le"),
              "greater_than": ("more than", "gt"), "less_than": ("less than", "lt")}  # fmt: skip
    if kind in limits:
        words, name = limits[kind]
        return f"{words} {context[name]}"
    if kind in ("too_long", "string_too_long"):
        return f"at most {context['max_length']} {'characters' if kind.startswith('string') else 'elements'}"
    if kind in ("too_short", "string_too_short"):
        return f"at least {context['min_length']} {'character' if kind.startswith('string') else 'element'}"
    if kind in ("literal_error", "enum"):
        return f"one of {context['expected']}"
    return _ALLOWED.get(kind, message[:1].lower() + message[1:])


def _place(error: Any) -> tuple[object, ...]:
    """Return where a value stands in the request, without the names that the framework adds."""
    loc = list(error["loc"])
    # The last name of an unknown field is the client's, whatever it looks like.
    own = loc[-1:] if error["type"] == "extra_forbidden" else []
    kept = [part for part in loc[: len(loc) - len(own)] if not (isinstance(part, str) and _is_added(part))]
    return (*(kept[1:] if kept[:1] in (["body"], ["query"], ["path"]) else kept), *own)


def _is_added(part: str) -> bool:
    """Say whether a part of a place is the name of an alternative: a type, a model, a validator."""
    return part in ("str", "int", "constrained-str") or part.endswith("Message") or "[" in part


def _describe(value: object) -> str:
    return "an object" if isinstance(value, dict) else describe(value)


def _clean(text: str) -> str:
    """Return a text that any JSON reader takes, on one line, without what looks like a key."""
    return redact(printable(" ".join(text.split())))
