"""The report: one self-contained HTML page."""

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateSyntaxError

from msr_adapter.errors import Problem, UserError
from msr_adapter.evaluate import Evaluation
from msr_adapter.files import bundled, write_text
from msr_adapter.prompts.sandbox import BoundedEnvironment, LimitError, Limits, last_template_line
from msr_adapter.report import cost, explorer, figures, sections, summaries, tables, user_sample
from msr_adapter.report.context import ReportContext
from msr_adapter.report.data_quality import shortcut_rows, worth_facts
from msr_adapter.report.plots import looks
from msr_adapter.report.static_cases import make_cases
from msr_adapter.report.thumbnails import Thumbnails, make_thumbnails
from msr_adapter.report.training import read_history, selection_table, training_findings, training_tiles
from msr_adapter.report.user_texts import read_readings

_EXPLORER_BYTES = 22_000_000
"""Base64 characters that the explorer may take of a page that stays under 25 MB."""
_COVER_BYTES = 11_000_000
"""Bytes of covers in it, at most."""
_LIMITS = Limits(work=200_000_000, value=60_000_000, seconds=30.0)
"""A page of 25 MB takes about a third of it."""

_DESCRIBED = {
    "base": "the recommender before fine-tuning.",
    "popularity": "the number of times training users took the item.",
    "recency": "how shortly before the target's time training last saw the item.",
    "title-overlap": "how much the title repeats the titles of the history.",
    "item-knn": "cosines of the item with those of the history, over training users; ids alone.",
    "mf": "matrix factorisation of the training log; the user is folded in from the history.",
    "sasrec": "a small transformer over item ids, trained on the training log.",
    "random": "a seeded coin.",
    "oracle": "the generated shop's true tastes; tastes are noisy, so even it is not perfect.",
}


def write_report(evaluation: Evaluation, path: Path, context: ReportContext) -> None:
    """Render `report.html.j2` to ``path``.

    The page makes no request; every text is escaped; its policy lets only the scripts and styles we wrote run.
    """
    environment, metrics = _environment(context), evaluation.metrics
    values = {
        **_numbers(evaluation, context),
        **_users(evaluation, context),
        "name": context.name,
        "metrics": metrics,
        "facts": sections.facts(metrics),
        "blocks": _blocks(metrics, context),
    }
    write_text(path, _render(environment, values))


def _render(environment: Environment, values: Mapping[str, Any]) -> str:
    """Return the page. A template that fails is the user's: `UserError` with its line."""
    try:
        return environment.get_template("report.html.j2").render(**values, policy=_policy(environment))
    except (TemplateError, LimitError, RecursionError, OverflowError) as error:
        line = f":{error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
        where = f"{error.filename or error.name}{line}" if isinstance(error, TemplateSyntaxError) else ""
        where = where or last_template_line(error.__traceback__) or "report.html.j2"
        step = "Correct it, or remove it to have the bundled one"
        raise UserError(Problem(where, "", f"cannot be rendered ({error})", "", step)) from error


def _environment(context: ReportContext) -> Environment:
    folders = [folder for folder in (context.templates, bundled("templates")) if folder is not None]
    return BoundedEnvironment(
        _LIMITS,
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _policy(environment: Environment) -> str:
    """Return the page's Content-Security-Policy: our style and script by their digests, pictures only as data."""
    style, script = (_source_hash(environment, f"report/{name}.j2") for name in ("style.css", "explorer.js"))
    return (
        f"default-src 'none'; img-src data:; style-src {style}; script-src {script}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source_hash(environment: Environment, name: str) -> str:
    digest = hashlib.sha256(environment.get_template(name).render().encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _numbers(evaluation: Evaluation, context: ReportContext) -> dict[str, Any]:
    """Return the template's variables about all users together."""
    metrics = evaluation.metrics
    audit = _read_audit(evaluation.data_dir / "audit.json")
    lengths = context.manifests.get("lengths", {}).get("summary") or {}
    found = [*(audit or {}).get("findings", []), *lengths.get("findings", []), *metrics["findings"]]
    found += [*training_findings(_trained(context)), *summaries.summary_findings(context.manifests)]
    cuts = metrics.get("slices") or []
    return {
        "headline": sections.headline(metrics),
        "context_line": sections.context_line(metrics),
        "run_line": sections.run_line(metrics, context.config, (audit or {}).get("counts", {})),
        "tiles": sections.tiles(metrics),
        "rows": sections.rows(metrics),
        "looks": looks(metrics["models"]),
        "level": f"{metrics['protocol']['confidence']['level']:.0%}",
        "described": [{"name": name, "text": text} for name, text in _DESCRIBED.items() if name in metrics["models"]],
        "smallest": sections.smallest_line(metrics),
        "findings": sections.findings(found),
        "shortcuts": shortcut_rows(audit or {}),
        "worth": worth_facts(audit or {}, lengths),
        "counts": sections.flatten({key: value for key, value in (audit or {}).items() if key != "findings"}),
        "audited": audit is not None,
        "plots": figures.result_figures(metrics, evaluation.models, evaluation.held_out),
        "calibration": sections.calibration_table(metrics),
        "beyond": sections.beyond_table(metrics),
        "slices": [
            tables.slice_rows(cut, tables.slice_metric(cut, metrics["primary"])) | {"plot": plot}
            for cut, plot in zip(cuts, figures.slice_figures(metrics), strict=True)
        ],
        "training": figures.training_figures(read_history(context.history), _trained(context)),
        "training_tiles": training_tiles(_trained(context)),
        "selection": selection_table(_trained(context)),
        "costs": cost.cost_rows(context.manifests),
        "summaries": summaries.summary_rows(context.manifests),
        "sharing": cost.sharing_lines(context.manifests),
    }


def _trained(context: ReportContext) -> Mapping[str, Any]:
    """Return what the train stage said of itself."""
    return context.manifests.get("train", {}).get("summary") or {}


def _read_audit(path: Path) -> dict[str, Any] | None:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _users(evaluation: Evaluation, context: ReportContext) -> dict[str, Any]:
    """Return the template's variables about single users: the explorer's data and covers, and the cases."""
    metrics, models, held_out = evaluation.metrics, evaluation.models, evaluation.held_out
    data_dir = evaluation.data_dir
    result, seed = models["trained"].result, int(metrics["seed"])
    chosen = user_sample.pick(result)
    always = [user for _, user in chosen]
    users = user_sample.choose_users(result, always, user_sample.USER_LIMIT, seed)
    ranking = user_sample.rank_candidates(users, result, held_out)
    examples = held_out.example_ids[users].tolist()
    candidates = held_out.items.take(ranking.rows).unique().to_pylist()
    readings = read_readings(examples, candidates, data_dir, context)
    fitting = user_sample.within_texts(users, always, held_out, readings, seed)
    ranking = user_sample.rank_candidates(fitting, result, held_out) if len(fitting) < len(users) else ranking
    probabilities = np.asarray(evaluation.trained["score"].to_numpy())
    results = {name: judged.result for name, judged in models.items()}
    kinds = {user: kind for kind, user in chosen}
    data, items = explorer.pack(ranking, kinds, results, held_out, probabilities, readings)
    room = min(_COVER_BYTES, 3 * (_EXPLORER_BYTES - len(data)) // 4)
    covers = make_thumbnails(explorer.image_order(ranking, always, held_out, readings), data_dir, room)
    return {
        "cases": make_cases(chosen, ranking, result, held_out, probabilities, readings),
        "cover_of": _cover_of(covers),
        "explorer": data,
        "covers": explorer.pack_covers(items, readings, covers),
        "covers_left_out": len(covers.left_out),
        "explored": len(fitting),
        "hit_at": sections.hit_depth(metrics),
    }


def _cover_of(covers: Thumbnails) -> dict[str, str]:
    """Return image path -> base64 of its cover."""
    return {path: base64.b64encode(data).decode() for path, data in covers.images.items()}


def _blocks(metrics: Mapping[str, Any], context: ReportContext) -> list[dict[str, str]]:
    blocks = {
        "Resolved configuration": context.config,
        "Protocol": metrics["protocol"],
        "Versions": metrics["versions"],
    }
    blocks |= {f"Manifest of {stage}": manifest for stage, manifest in context.manifests.items()}
    return [{"title": title, "text": _yaml(value)} for title, value in blocks.items() if value]


def _yaml(value: Any) -> str:
    plain = json.loads(json.dumps(value, default=str))
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
