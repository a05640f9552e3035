"""`msr track`: sends to the experiment tracker what a run could not."""

from typing import Annotated

import typer

from msr_adapter.cli.common import Json, Quiet, RunArgument, emit, exit_codes
from msr_adapter.cli.runs import run_folder
from msr_adapter.errors import Problem, StageError, UserError, plural


def track(
    run: RunArgument,
    wait: Annotated[
        float, typer.Option("--wait", min=1, max=86_400, metavar="SECONDS", help="For each run, at most.")
    ] = 600,
    again: Annotated[
        bool, typer.Option("--again", help="Send everything anew, to new runs: for a tracker that has lost them.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Send to the experiment tracker what it lacks of a run, its ablation's variants and its sweeps' trials.

    A run that has `tracking:` sends by itself; this is for a tracker that was down. Nothing is computed.

    Example: [bold]msr track runs/demo[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.progress import Reporter
        from msr_adapter.tracking.courier import send_now
        from msr_adapter.tracking.outbox import outboxes

        root, reporter = run_folder(run), Reporter(quiet=quiet)
        found = outboxes(root)
        if not found:
            step = (
                "Run it again with --set 'tracking={kind: mlflow, server: ...}': what is up to date is not made again"
            )
            raise UserError(Problem(str(root), "", "nothing was ever tracked here", "a run with `tracking:`", step))
        rows = []
        for number, folder in enumerate(found, start=1):
            if again:
                folder.forget()
            outbox = folder.read()
            name, kind = (outbox.name, outbox.tracker["kind"]) if outbox else (str(folder.root), "?")
            with reporter.waiting(f"{name} ({number} of {len(found)})"):
                told = send_now(folder, wait)
            state = told.error or (f"sent {told.sent:,}" if told.sent else "nothing was missing")
            reporter.note(f"{name:<24} {kind:<11} {state}{f': {told.url}' if told.url else ''}")
            rows.append({"run": name, "tracker": kind, "sent": told.sent, "url": told.url, "error": told.error})
        if failed := [row for row in rows if row["error"]]:
            what = f"{len(failed)} of {plural(len(rows), 'run')} could not be sent: {failed[0]['error']}"
            raise StageError(what, next_step="Send it later with the same command; what was sent is not sent again")
        emit({"runs": rows}, f"{plural(len(rows), 'run')} up to date in the tracker", as_json)
