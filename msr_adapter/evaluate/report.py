"""The report: one self-contained HTML page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from msr_adapter.evaluate import plots, sections
from msr_adapter.evaluate.candidates import HeldOut
from msr_adapter.evaluate.cases import Case, make_cases
from msr_adapter.evaluate.context import ReportContext
from msr_adapter.evaluate.history import read_history
from msr_adapter.evaluate.judging import Judged, label
from msr_adapter.files import bundled, write_text

_DESCRIBED = {
    "base": "the recommender before fine-tuning.",
    "popularity": "the number of times training users took the item.",
    "random": "a seeded coin.",
    "oracle": "the generated shop's true tastes; tastes are noisy, so even it is not perfect.",
}


def write_report(
    metrics: Mapping[str, Any],
    models: Mapping[str, Judged],
    held_out: HeldOut,
    scores: pa.Table,
    data_dir: Path,
    path: Path,
    context: ReportContext,
) -> None:
    """Render `report.html.j2` to ``path``. ``metrics`` is `metrics.json`'s content, ``scores`` the trained SCORES.

    The page makes no request and runs no script; every text is escaped.
    """
    audit = _read_audit(data_dir / "audit.json")
    trained = models["trained"].result
    cases = make_cases(trained, held_out, scores, data_dir, context.items_dir, context.users_dir)
    page = _environment(context).get_template("report.html.j2").render(
        name=context.name,
        metrics=metrics,
        headline=sections.headline(metrics),
        context_line=sections.context_line(metrics),
        tiles=sections.tiles(metrics),
        rows=sections.rows(metrics),
        level=f"{metrics['protocol']['confidence']['level']:.0%}",
        described=[{"name": name, "text": text} for name, text in _DESCRIBED.items() if name in metrics["models"]],
        findings=sections.findings([*metrics["findings"], *(audit or {}).get("findings", [])]),
        counts=sections.flatten((audit or {}).get("counts", {})),
        audited=audit is not None,
        plots=_plots(metrics, models, held_out, context),
        cases=[_case(case) for case in cases],
        facts=sections.facts(metrics),
        blocks=_blocks(metrics, context),
    )  # fmt: skip
    write_text(path, page)


def _environment(context: ReportContext) -> Environment:
    folders = [folder for folder in (context.templates, bundled("templates")) if folder is not None]
    return Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read_audit(path: Path) -> dict[str, Any] | None:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def _plots(
    metrics: Mapping[str, Any], models: Mapping[str, Judged], held_out: HeldOut, context: ReportContext
) -> list[dict[str, Any]]:
    primary, trained = metrics["primary"], models["trained"].result
    level = f"{metrics['protocol']['confidence']['level']:.0%}"
    history = read_history(context.history)
    drawn = [
        (f"{label(primary)} by model", f"Mean and {level} interval; the dashed line is chance.",
         plots.intervals(models, primary, metrics["chance"][primary])),
        ("HR@k by k", "Share of users whose true item is among the first k.", plots.hit_rate_curve(models)),
        ("Scores of the trained model", "True items against negatives, each with area one.",
         plots.score_distribution(trained.groups.scores.astype(np.float64), held_out.labels)),
    ]  # fmt: skip
    if history.loss or history.validation:
        drawn.append(
            ("Training loss", "As LLaMA-Factory logged it; the strong line is smoothed.", plots.loss_curve(history))
        )
    return [
        {"title": title, "caption": caption, "svg": Markup(plots.draw_svg(f"plot{number}", draw))}  # our own markup
        for number, (title, caption, draw) in enumerate(drawn)
    ]


def _case(case: Case) -> dict[str, Any]:
    place = f"{case.rank:.0f}" if case.rank == int(case.rank) else f"{case.rank:.1f}"
    return {**vars(case), "place": place, "described": [item for item in case.history if item.summary]}


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
