"""`msr summarize`: item and user summaries, their prompts as a preview, or what is left to ask."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msr_adapter.cli.common import Force, Json, PipelineArgument, Quiet, RunDir, Sets, emit, exit_codes, interruptible
from msr_adapter.cli.runs import StageOptions, run_stages
from msr_adapter.errors import Problem, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

_NOUNS = {"items": "item", "users": "user"}


class Summaries(StrEnum):
    """What `msr summarize --only` takes."""

    ITEMS = "items"
    USERS = "users"


def summarize(
    pipeline: PipelineArgument,
    only: Annotated[Summaries | None, typer.Option("--only", help="Stop after this summariser.")] = None,
    preview: Annotated[
        int | None, typer.Option("--preview", min=1, metavar="N", help="Print the prompts for N items and N users.")
    ] = None,
    ask: Annotated[bool, typer.Option("--run", help="With --preview: also the answers, which are kept.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many calls and tokens remain.")] = False,
    sets: Sets = None, run_dir: RunDir = None, force: Force = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Write item summaries (image and title to text) and user summaries (history to text).

    Example: [bold]msr summarize demo --preview 3[/bold]
    """
    stages = (only.value,) if only else ("items", "users")
    options = StageOptions(pipeline, sets, run_dir, force, quiet, as_json)
    if preview is None and not dry_run and not ask:
        run_stages(stages, options)
        return
    with exit_codes(as_json):
        from msr_adapter.workflows.summary_preview import estimate_summaries, preview_summaries

        if ask and preview is None:
            raise UserError(Problem("--run", "", "works only with --preview N", "", "Add --preview N"))
        loaded = options.load()
        with interruptible(loaded.run_dir):
            if preview is None:
                costs = estimate_summaries(loaded, stages, options.reporter())
                emit(costs, "\n".join(cost["line"] for cost in costs.values()), as_json)
                return
            shown = preview_summaries(loaded, stages, preview, ask, options.reporter())
        if as_json:
            emit(shown, "", as_json)
        else:
            _print_boxes(shown)


def _print_boxes(shown: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print the requests of items and users in boxes, their tokens below."""
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

    # As `Text`, because Rich reads brackets in a plain string as markup.
    body = Text(request["prompt"])
    for path in request["images"]:
        body.append(f"\n<image> is {path}", style="dim")
    if "answer" in request:
        body.append(f"\n\n{request['answer'] or '(empty)'}", style="bold")
    if "failed" in request:
        body.append(f"\n\nfailed: {request['failed']}", style="red")
    return body


def _tokens(request: Mapping[str, Any]) -> str:
    of_image = request["image_tokens"]
    parts = [f"{request['text_tokens']:,} text tokens"]
    if request["image"]:
        what = "image" if len(request["images"]) == 1 else "images"
        parts.append(f"{what} not counted" if of_image is None else f"{of_image:,} of the {what}")
    if request["tokens_to_come"]:
        parts.append(f"at most {request['tokens_to_come']:,} for what ‹…› stands for")
    if "answer" in request:
        parts.append(f"answer {request['answer_tokens']:,}{', cut by the budget' if request['cut'] else ''}")
    return ", ".join(parts)
