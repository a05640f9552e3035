"""The report: one self-contained HTML page, rendered from `report.html.j2` in the sandbox for templates."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError, meta

from msr_adapter.errors import Problem, UserError
from msr_adapter.evaluate.baselines.catalogue import BASELINES
from msr_adapter.evaluate.evaluation import Evaluation
from msr_adapter.evaluate.metrics_file import MetricsFile
from msr_adapter.evaluate.sampling import sampling_line
from msr_adapter.evaluate.text_tables import full_models, full_notes, hybrid_table, trainings_table
from msr_adapter.files import bundled, write_text
from msr_adapter.filesystem import read_object
from msr_adapter.model_scores import shown_scores
from msr_adapter.prompts.sandbox import BoundedEnvironment, last_template_line
from msr_adapter.prompts.sandbox_budget import LimitError, Limits
from msr_adapter.report import cost, figures, sections, tables, training, user_explorer
from msr_adapter.report.data_quality import Audit, data_facts, heuristic_rows, summary_findings, summary_rows
from msr_adapter.report.example_users import make_cases
from msr_adapter.report.report_context import ReportContext, summary_of
from msr_adapter.report.svg import looks
from msr_adapter.report.thumbnails import make_thumbnails
from msr_adapter.report.user_sample import PROBABILITY, RATIO, Scored, sample_users
from msr_adapter.report.verdict import verdict

_LIMITS = Limits(work=200_000_000, value=60_000_000, seconds=30.0)
"""A page of 25 MB takes about a third of it."""

_DESCRIBED = [(row.name, row.description) for row in BASELINES]
_HYBRID = "a logistic regression over the scores of several models, fitted on validation users."


def write_report(evaluation: Evaluation, path: Path, context: ReportContext) -> None:
    """Render `report.html.j2` to ``path``.

    The page makes no request; every text is escaped; its policy lets only the scripts and styles of this project run.
    Raises `UserError` for a template of the user's that cannot be rendered.
    """
    audit_path = evaluation.data_dir / "audit.json"
    audit = read_object(audit_path) if audit_path.exists() else {}
    values = {
        **_inputs(evaluation, audit, context),
        **_results(evaluation),
        **_training(context),
        **_users(evaluation, context),
        **_run(evaluation.metrics, audit.get("counts", {}), context),
    }
    write_text(path, _render(_environment(context.templates), values))


def _render(environment: Environment, values: Mapping[str, object]) -> str:
    """Return the page. A template that fails is the user's: `UserError` with its line."""
    try:
        page = environment.get_template("report.html.j2").render(**values, policy=_policy(environment))
    except (TemplateError, LimitError, RecursionError, OverflowError) as error:
        where = ""
        if isinstance(error, TemplateSyntaxError):
            where = f"{error.filename or error.name}:{error.lineno}"
        where = where or last_template_line(error.__traceback__) or "report.html.j2"
        step = "Correct it, or remove it to use the bundled one"
        raise UserError(Problem(where, "", f"cannot be rendered ({error})", "", step)) from error
    if not page.strip():
        step = "Write it, or remove it to use the bundled one"
        raise UserError(Problem("report.html.j2", "", "prints nothing", "a page", step))
    return page


def template_faults(templates: Path | None) -> list[Problem]:
    """Return what is wrong with the report's template and its parts in a folder of the user's, short of its values."""
    if templates is None or not templates.is_dir():
        return []
    environment, problems = _environment(templates), []
    mine = sorted(path.relative_to(templates).as_posix() for path in templates.rglob("*.j2") if path.is_file())
    for name in [name for name in mine if name == "report.html.j2" or name.startswith("report/")]:
        where = str(templates / name)
        try:
            tree = environment.parse((templates / name).read_text(encoding="utf-8"), name, where)
            environment.compile(tree, name, where)
        except TemplateSyntaxError as error:
            problems.append(Problem(f"{where}:{error.lineno}", "", error.message or "cannot be parsed"))
        except (TemplateError, LimitError, RecursionError, OverflowError, ValueError, OSError) as error:
            problems.append(Problem(where, "", f"cannot be read ({error})"))
        else:
            known = {*environment.list_templates()}
            asked = {one for one in meta.find_referenced_templates(tree) if one is not None}
            problems += [Problem(where, one, "no such template", "one of yours or a bundled one")
                         for one in sorted(asked - known)]  # fmt: skip
    return problems


def _environment(templates: Path | None) -> Environment:
    folders = [folder for folder in (templates, bundled("templates")) if folder is not None]
    return BoundedEnvironment(
        _LIMITS,
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _policy(environment: Environment) -> str:
    """Return the page's Content-Security-Policy: our style and script by their digests, images only as data."""

    def digest(name: str) -> str:
        source = environment.get_template(f"report/{name}.j2").render()
        return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; img-src data:; style-src {digest('style.css')}; script-src {digest('explorer.js')}; "
        "base-uri 'none'; form-action 'none'"
    )


def _inputs(evaluation: Evaluation, audit: Audit, context: ReportContext) -> dict[str, object]:
    """Return the template's variables about findings, the data and the summaries."""
    lengths = summary_of(context.manifests, "lengths")
    found = [
        *audit.get("findings", []),
        *lengths.get("findings", []),
        *evaluation.metrics["findings"],
        *training.checkpoint_findings(summary_of(context.manifests, "train")),
        *summary_findings(context.manifests),
    ]
    return {
        "findings": sections.findings(found),
        "audited": bool(audit),
        "heuristics": heuristic_rows(audit),
        "data_facts": data_facts(audit, lengths),
        "counts": sections.flatten({key: value for key, value in audit.items() if key != "findings"}),
        "summaries": summary_rows(context.manifests),
    }


def _results(evaluation: Evaluation) -> dict[str, object]:
    """Return the template's variables about the metrics."""
    metrics, depth = evaluation.metrics, sections.hit_depth(evaluation.metrics)
    slices = [tables.slice_table(cut, tables.slice_metric(cut, metrics["primary"])) for cut in metrics["slices"]]
    return {
        "metrics": metrics,
        "verdict": verdict(metrics),
        "headline": sections.headline(metrics),
        "context_line": sections.context_line(metrics),
        "tiles": sections.tiles(metrics),
        "rows": tables.metric_rows(metrics),
        "full_rows": tables.full_rows(metrics),
        "full_models": list(full_models(metrics)),
        "full_notes": full_notes(metrics),
        "looks": looks(metrics["models"]),
        "level": f"{metrics['protocol']['confidence']['level']:.0%}",
        "described": [(name, text) for name, text in (*_DESCRIBED, ("hybrid", _HYBRID)) if name in metrics["models"]],
        "also": [table for table in (trainings_table(metrics), hybrid_table(metrics)) if table],
        "smallest_difference": sections.smallest_line(metrics),
        "sampling": sampling_line(metrics["sampling"]),
        "plots": figures.result_figures(metrics, evaluation.models, evaluation.held_out),
        "calibration": tables.calibration_table(metrics),
        "beyond_accuracy": tables.beyond_accuracy_table(metrics, depth),
        "slices": list(zip(slices, figures.slice_figures(metrics), strict=True)),
        "hit_at": depth,
    }


def _training(context: ReportContext) -> dict[str, object]:
    """Return the template's variables about the training."""
    summary, log = summary_of(context.manifests, "train"), training.read_training_log(context.training_log)
    return {
        "training_plots": figures.training_figures(log, summary),
        "training_tiles": training.training_tiles(summary),
        "checkpoints": training.checkpoint_table(summary.get("selection")),
    }


def _run(metrics: MetricsFile, counts: Mapping[str, int], context: ReportContext) -> dict[str, object]:
    """Return the template's variables about what was run and what it cost."""
    blocks = {
        "Resolved configuration": context.config,
        "Protocol": metrics["protocol"],
        "Versions": metrics["versions"],
        **{f"Manifest of {stage}": manifest for stage, manifest in context.manifests.items()},
    }
    return {
        "name": context.name,
        "date": sections.date_line(context.manifests),
        "run_line": sections.run_line(metrics, context.config, counts),
        "facts": sections.facts(metrics),
        "blocks": [{"title": title, "text": _yaml(value)} for title, value in blocks.items() if value],
        "costs": cost.cost_rows(context.manifests, context.labels),
        "prefix_sharing": [*cost.engine_lines(context.manifests, context.labels),
                           *cost.prefix_sharing_lines(context.manifests, context.labels)],
    }  # fmt: skip


def _users(evaluation: Evaluation, context: ReportContext) -> dict[str, object]:
    """Return the template's variables about single users: the explorer's data and images, and the cases."""
    results = {name: judged.result for name, judged in evaluation.models.items()}
    measure = PROBABILITY if "score" in evaluation.trained.column_names else RATIO
    scored = Scored(evaluation.held_out, results["trained"], shown_scores(evaluation.trained)[0], measure)
    limits = context.limits
    shown = sample_users(scored, int(evaluation.metrics["seed"]), evaluation.data_dir, context)
    data, items = user_explorer.pack_users(shown, results)
    # Base64 makes four characters of three bytes.
    budget = min(limits.image_bytes, 3 * (limits.explorer_bytes - len(data)) // 4)
    thumbnails = make_thumbnails(user_explorer.image_order(shown), evaluation.data_dir, budget)
    return {
        "cases": make_cases(shown),
        "measure": measure,
        "image_of": {path: base64.b64encode(image).decode() for path, image in thumbnails.images.items()},
        "explorer": data,
        "explorer_images": user_explorer.pack_images(items, shown.texts, thumbnails),
        "images_left_out": len(thumbnails.left_out),
        "explored": len(shown.ranking.users),
    }


def _yaml(value: object) -> str:
    # As JSON first: `safe_dump` refuses what JSON turns into lists and texts, such as tuples and paths.
    plain = json.loads(json.dumps(value, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
