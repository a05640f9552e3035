"""What `msr summarize --preview` and `--dry-run` print."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msr_adapter.cli.common import emit

if TYPE_CHECKING:
    from rich.console import RenderableType

    from msr_adapter.config.loader import LoadedPipeline
    from msr_adapter.progress import Reporter

_NOUNS = {"items": "item", "users": "user"}


def print_cost(loaded: "LoadedPipeline", stages: Sequence[str], reporter: "Reporter", as_json: bool) -> None:
    """Say what is left to ask in each of ``stages``."""
    from msr_adapter.workflows.preview import estimate_summaries

    costs = estimate_summaries(loaded, stages, reporter)
    emit(costs, "\n".join(cost["line"] for cost in costs.values()), as_json)


def print_preview(
    loaded: "LoadedPipeline", stages: Sequence[str], number: int, ask: bool, reporter: "Reporter", as_json: bool
) -> None:
    """Print the requests of ``number`` items and users in boxes, tokens below, and with ``ask`` the answers."""
    from msr_adapter.workflows.preview import preview_summaries

    shown = preview_summaries(loaded, stages, number, ask, reporter)
    if as_json:
        emit(shown, "", as_json)
    else:
        _print_boxes(shown)


def _print_boxes(shown: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console(highlight=False)
    for stage, owners in shown.items():
        if not owners:
            console.print(f"{stage}: no model is asked")
        for owner in owners:
            number = len(owner["requests"])
            for place, request in enumerate(owner["requests"], 1):
                which = f", request {place} of {number}" if number > 1 else ""
                title, tokens = Text(f"{_NOUNS[stage]} {owner['id']}{which}"), Text(_tokens(request))
                console.print(Panel(_body(request), title=title, subtitle=tokens, title_align="left",
                                    subtitle_align="left"))  # fmt: skip
    counted = {request["counted"] for owners in shown.values() for owner in owners for request in owner["requests"]}
    if counted:
        console.print(f"Tokens: {'; '.join(sorted(counted))}.", markup=False)


def _body(request: Mapping[str, Any]) -> "RenderableType":
    from rich.text import Text

    body = Text(request["prompt"])
    if request["image"]:
        body.append(f"\n<image> is {request['image']}", style="dim")
    if "answer" in request:
        body.append(f"\n\n{request['answer'] or '(empty)'}", style="bold")
    if "failed" in request:
        body.append(f"\n\nfailed: {request['failed']}", style="red")
    return body


def _tokens(request: Mapping[str, Any]) -> str:
    picture = request["image_tokens"]
    parts = [f"{request['text_tokens']:,} text tokens"]
    if request["image"]:
        parts.append("picture not counted" if picture is None else f"{picture:,} of the picture")
    if request["tokens_to_come"]:
        parts.append(f"at most {request['tokens_to_come']:,} for what ‹…› stands for")
    if "answer" in request:
        parts.append(f"answer {request['answer_tokens']:,}{', cut by the budget' if request['cut'] else ''}")
    return ", ".join(parts)
