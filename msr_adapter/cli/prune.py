"""`msr prune`: what costly stages made under other settings, and its deletion."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from msr_adapter.cli.common import Json, RunArgument, emit, exit_codes
from msr_adapter.cli.runs import run_folder
from msr_adapter.errors import Problem, UserError, did_you_mean, plural

if TYPE_CHECKING:
    from msr_adapter.pipeline.kept import KeptStage

_DAY_S = 86_400
_UNIT = 1000


def prune(
    run: RunArgument,
    stage: Annotated[list[str] | None, typer.Option("--stage", help="Only this stage's. Repeatable.")] = None,
    older_than: Annotated[
        int | None, typer.Option("--older-than", min=0, metavar="DAYS", help="Only what was made before then.")
    ] = None,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Include the checkpoints of stopped trainings, which could be resumed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Delete what is listed, not only list it.")] = False,
    as_json: Json = False,
) -> None:
    """List or delete what costly stages (trained models, summaries, scores) made under other settings and a run keeps.

    What a run uses now is never deleted. What is deleted would be made again when its settings return.

    Example: [bold]msr prune demo --stage train --older-than 30 --yes[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.pipeline.kept import prunable
        from msr_adapter.pipeline.stages import COSTLY

        expected = f"expected one of {', '.join(COSTLY)}"
        unknown = [
            Problem("--stage", "", f"the text {name!r}", expected, did_you_mean(name, COSTLY))
            for name in stage or ()
            if name not in COSTLY
        ]
        if unknown:
            raise UserError(unknown)
        root = run_folder(run)
        before = time.time() - (older_than or 0) * _DAY_S
        found = [
            one for one in prunable(root, unfinished=unfinished)
            if (not stage or one.stage in stage) and (older_than is None or one.made < before)
        ]  # fmt: skip
        rows = [_as_dict(root, one) for one in found]
        if yes:
            _delete(found)
        total = sum(row["bytes"] for row in rows)
        emit({"run": str(root), "deleted": yes, "bytes": total, "kept": rows}, _text(root, rows, total, yes), as_json)


def _delete(found: "Sequence[KeptStage]") -> None:
    """Delete them, run folder by run folder; `UserError` while a command is at work in one of these."""
    from contextlib import ExitStack

    from msr_adapter.pipeline.kept import prune as delete
    from msr_adapter.pipeline.run_folder import RunFolder

    with ExitStack() as stack:
        for folder in sorted({one.run for one in found}):
            stack.enter_context(RunFolder(folder).locked())
        for one in found:
            if one.folder.is_dir():  # not taken back since it was listed
                delete(one)


def _as_dict(root: Path, one: "KeptStage") -> dict[str, Any]:
    from msr_adapter.pipeline.kept import differs

    return {
        "stage": one.stage, "folder": str(one.folder.relative_to(root)), "bytes": one.size,
        "made": time.strftime("%Y-%m-%d %H:%M", time.localtime(one.made)),
        "days": max(0, int((time.time() - one.made) // _DAY_S)), "differs": differs(one),
    }  # fmt: skip


def _text(root: Path, rows: Sequence[dict[str, Any]], total: int, deleted: bool) -> str:
    if not rows:
        return f"{root}: nothing like that is kept"
    lines = [
        f"  {row['stage']:<10} {row['made']}, {plural(row['days'], 'day')} old, {_size(row['bytes']):>9}, "
        f"{row['folder']}: {row['differs']}"
        for row in rows
    ]
    what = f"{plural(len(rows), 'making')}, {_size(total)}"
    last = f"deleted: {what}" if deleted else f"{what}; add --yes to delete {'it' if len(rows) == 1 else 'them'}"
    return "\n".join([f"{root}:", *lines, last])


def _size(number: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < _UNIT:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:,.1f} {unit}"
        number /= _UNIT
    return f"{number:,.1f} GB"
