"""`msr serve`: the trained model behind HTTP."""

import json
from typing import Annotated

import typer

from msr_adapter.cli.common import Json, PipelineArgument, Quiet, Retraining, RunDir, Sets, exit_codes, interruptible
from msr_adapter.errors import plural


def serve(
    pipeline: PipelineArgument,
    host: Annotated[
        str, typer.Option("--host", help="Where to listen; beyond this machine, set MSR_SERVE_TOKEN first.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="0: any free port.")] = 8000,
    candidates: Annotated[
        list[str] | None,
        typer.Option("--candidates", metavar="popular:N|item-knn:N|all", show_default="popular:200",
                     help="What retrieves for requests that bring no items. Repeatable; the first is the default."),
    ] = None,
    batch_ms: Annotated[
        float, typer.Option("--batch-ms", min=0, max=1000, help="How long to wait for a client that may ask again.")
    ] = 10.0,
    batch_pairs: Annotated[
        int, typer.Option("--batch-pairs", min=1, help="Pairs scored in one call to the model.")
    ] = 512,
    batch_requests: Annotated[
        int, typer.Option("--batch-requests", min=1, help="Requests answered together; 1: one at a time.")
    ] = 64,
    queue: Annotated[
        int, typer.Option("--queue", min=1, help="Requests that may wait; any more are refused (429).")
    ] = 256,
    timeout: Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds to a time-out (504).")] = 30.0,
    grace: Annotated[float, typer.Option("--grace", min=0, help="Seconds to finish in after a signal to stop.")] = 30.0,
    max_candidates: Annotated[int, typer.Option("--max-candidates", min=1, help="Pairs in one request.")] = 1_000,
    max_body: Annotated[int, typer.Option("--max-body", min=1, help="Bytes in one request (413).")] = 4 * 1024 * 1024,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="Another host name for this server. Repeatable."),
    ] = None,
    train: Retraining = False, sets: Sets = None, run_dir: RunDir = None, quiet: Quiet = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Answer HTTP requests with the trained model: recommendations, scores, reranking, and a page for people.

    Ctrl-C or SIGTERM ends it once what it took is answered.

    Example: [bold]msr serve demo --candidates popular:200 --candidates item-knn:50[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.config.loader import load_pipeline
        from msr_adapter.progress import Reporter
        from msr_adapter.workflows.serve import Batching, RequestLimits, ServeSettings
        from msr_adapter.workflows.serve.workflow import serve as carry_out

        settings = ServeSettings(
            host, port, tuple(candidates or ["popular:200"]),
            RequestLimits(queue, max_candidates, max_body, timeout, grace),
            Batching(batch_ms, batch_pairs, batch_requests), tuple(allowed_host or ()),
        )  # fmt: skip
        loaded = load_pipeline(pipeline, sets or (), run_dir)
        with interruptible(loaded.run_dir):
            result = carry_out(loaded, settings, Reporter(quiet=quiet), train=train, as_json=as_json)
        if as_json:
            typer.echo(json.dumps(result))
        elif not quiet:
            taken = plural(result["taken"], "request")
            told = f"stopped; {taken} taken, {result['answered']:,} answered, {result['refused']:,} refused"
            typer.echo(told, err=True)
