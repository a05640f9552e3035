"""`msr serve`: the trained model behind HTTP, from the run's folder to the last answer."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.errors import MsrError, Problem, StageError, UserError, plural
from msr_adapter.pipeline.checks import check
from msr_adapter.pipeline.resolve_templates import resolve_models
from msr_adapter.pipeline.run_folder import RunFolder
from msr_adapter.pipeline.runner import use_trained
from msr_adapter.pipeline.stage_context import Context, prompts_of
from msr_adapter.progress import Reporter
from msr_adapter.retrieval import RetrieverInputs
from msr_adapter.workflows.recommend.content import content_by_history, goes_by_content, retriever_problems
from msr_adapter.workflows.recommend.retrieval import known_log
from msr_adapter.workflows.serve.app import ServedRun, make_app
from msr_adapter.workflows.serve.engine import ServingEngine
from msr_adapter.workflows.serve.gate import Gate
from msr_adapter.workflows.serve.resolve import Resolver
from msr_adapter.workflows.serve.serve_metrics import ServeMetrics
from msr_adapter.workflows.serve.served_data import ServedItems, ServedUsers
from msr_adapter.workflows.serve.server import GracefulServer, bind
from msr_adapter.workflows.serve.settings import TOKEN_VARIABLE, ServeSettings, read_token, setting_problems
from msr_adapter.workflows.trained_run import bring_to_scoring


def serve(
    loaded: LoadedPipeline, settings: ServeSettings, reporter: Reporter, *, train: bool = False, as_json: bool = False
) -> dict[str, Any]:
    """Serve a pipeline's trained model until a signal ends it; return counts.

    Data and summaries are brought up to date first, and the trained model taken or made, as by `msr recommend`. The
    run folder is free again while the server runs: it holds what it needs in memory, but for the completion cache,
    which it shares with other commands, and the images. Prints one line on standard output when it is ready.
    """
    problems = [*setting_problems(settings), *_retriever_problems(loaded, settings), *check(loaded)]
    problems += [*_question_problems(loaded), *_event_problems(loaded), *_history_image_problems(loaded)]
    token = _token(problems)
    if problems:
        raise UserError(problems)
    loaded = resolve_models(loaded, download=True)
    with bind(settings) as bound:
        run = prepare(loaded, settings, reporter, train=train)
        gate = gated(run, token)
        server = GracefulServer(gate, gate, run.engine, settings)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{bound.getsockname()[1]}"
        _warn(settings, token, reporter)
        server.on_ready = lambda: _tell_ready(run, url, as_json=as_json)
        run.engine.start()
        server.run(sockets=[bound])
    run.engine.close(0 if server.force_exit else settings.limits.grace_s)
    if isinstance(run.engine.error, MsrError):
        raise run.engine.error
    if run.engine.error is not None:
        raise StageError("the model's thread ended", str(run.engine.error), "see the log above")
    counts = {"taken": gate.taken, "answered": gate.answered, "refused": gate.refused}
    return {"pipeline": loaded.pipeline.name, **counts}


def _question_problems(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem where scores are log-likelihood ratios: what is answered here are probabilities."""
    question = loaded.pipeline.train.question
    if not loaded.pipeline.train.asks_text:
        return []
    found = f"{question} is answered with a text; a server of msr tells p(yes)"
    step = "Use `msr recommend` or `msr score`, which tell log-likelihood ratios"
    return [Problem(loaded.where("train.question"), "train.question", found, "yes-no", step)]


def _event_problems(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem for templates that say what a user did: what is posted to a server is interactions alone."""
    pipeline = loaded.pipeline
    used = prompts_of(pipeline).fields("user_summary", "history")
    if getattr(pipeline.data.source, "events", None) is None or not used.has("event"):
        return []
    step = "Leave it out of the templates, or use `msr recommend` or `msr score`, which know it"
    found = "templates of histories say `event`, which is not served yet"
    return [Problem(loaded.where("data.source.events"), "data.source.events", found, "", step)]


def _history_image_problems(loaded: LoadedPipeline) -> list[Problem]:
    """Return a problem where prompts show the images of the history's latest items."""
    if not prompts_of(loaded.pipeline).shows_recent:
        return []
    found, step = "prompts with images of the history are not served yet", "Use `msr recommend`, which shows them"
    return [Problem(loaded.where("train.history_images"), "train.history_images", found, "0", step)]


def prepare(loaded: LoadedPipeline, settings: ServeSettings, reporter: Reporter, *, train: bool = False) -> ServedRun:
    """Bring a run up to date and read what its server needs; no model is loaded yet."""
    as_it_is = bring_to_scoring(loaded, reporter, train=train)
    folder = RunFolder(loaded.run_dir)
    pipeline = loaded.pipeline
    with folder.locked():
        if as_it_is:
            use_trained(loaded, folder, reporter)
        context = Context(pipeline, loaded.resolved, folder, prompts_of(pipeline), folder.root, reporter)
        again = pipeline.data.repeats == "keep"
        users = ServedUsers(context.dirs.data, keep_repeats=again)
        items = ServedItems(context.dirs.data, users.histories)
        by_content = any(goes_by_content(one.kind, pipeline.fusion) for one in settings.retrievals.values())
        content = content_by_history(context, items.table) if by_content else None
        inputs = RetrieverInputs(known_log(users.histories), content, pipeline.fusion, again)
        resolver = Resolver(items, users, settings, inputs)
    metrics = ServeMetrics()
    engine = ServingEngine(context, items, settings, metrics.batch)
    facts = {
        "name": pipeline.name, "items": len(items), "users": len(users.ids), "candidates": list(settings.candidates),
        "noun": pipeline.summarize.noun, "block": pipeline.summarize.users.block,
        "mode": pipeline.summarize.users.mode, "most_candidates": settings.limits.candidates,
    }  # fmt: skip
    return ServedRun(pipeline.name, items, users, resolver, engine, settings, metrics, facts)


def gated(run: ServedRun, token: str | None) -> Gate:
    """Return the application of a run with all that requests pass first."""
    app = make_app(run)
    gate = Gate(app, run.settings, token, run.metrics)
    app.state.gate = gate
    run.metrics.watch_queue(lambda: len(run.engine.queue), lambda: gate.under_way)
    return gate


def _retriever_problems(loaded: LoadedPipeline, settings: ServeSettings) -> list[Problem]:
    """Return what the retrievers need and lack; what the options say wrongly is told by `setting_problems`."""
    try:
        kinds = dict.fromkeys(one.kind for one in settings.retrievals.values())
    except UserError:
        return []
    return [each for kind in kinds for each in retriever_problems(loaded, kind)]


def _token(problems: list[Problem]) -> str | None:
    try:
        return read_token()
    except UserError as error:
        problems += error.problems
        return None


def _warn(settings: ServeSettings, token: str | None, reporter: Reporter) -> None:
    if token is None and not settings.on_loopback:
        reporter.note(
            f"WARNING: {settings.host} can be reached from other machines, and anybody there may ask this server and "
            f"read what users interacted with; set {TOKEN_VARIABLE} (openssl rand -hex 32), or serve on 127.0.0.1"
        )


def _tell_ready(run: ServedRun, url: str, *, as_json: bool) -> None:
    told: Mapping[str, Any] = {"serving": run.name, "url": url, "model": run.engine.label, **run.facts}
    text = json.dumps(told, ensure_ascii=False) if as_json else (
        f"{url} serves {run.name}: {plural(len(run.items), 'item')}, {plural(len(run.users.ids), 'user')}, "
        f"{run.engine.label}; candidates from {', '.join(run.settings.candidates)}. Ctrl-C ends it")  # fmt: skip
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
