"""`msr compare`: finished runs, paired on the same users."""

from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from msr_adapter.cli.common import Json, LatexFlag, MarkdownFlag, emit, exit_codes, render
from msr_adapter.cli.completion import complete_run
from msr_adapter.cli.runs import TRAINED, read_run, split_model
from msr_adapter.errors import Problem, UserError

if TYPE_CHECKING:
    from msr_adapter.evaluate.comparison import Comparison
    from msr_adapter.evaluate.model_metrics import Judged
    from msr_adapter.evaluate.results import FinishedRun


class Reference(StrEnum):
    """What `msr compare --to` takes."""

    FIRST = "first"
    BEST = "best"


def compare(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN ...", show_default=False, autocompletion=complete_run,
            help="Two or more run folders, names of runs or pipelines; RUN:base, ... means another of its models.",
        ),
    ],
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Compare in this metric, e.g. hr@5. Repeatable; default: all of them."),
    ] = None,
    to: Annotated[
        Reference, typer.Option("--to", help="Differences to the first run, or to the best one.")
    ] = Reference.FIRST,
    markdown: MarkdownFlag = False, latex: LatexFlag = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Compare finished runs on the same users: intervals, paired differences, permutation tests for all at once.

    The protocol's primary metric is tested first. Against the best run, p-values are adjusted for all pairs of runs:
    choosing it has a price. Runs under different protocols or candidates are refused.

    Example: [bold]msr compare runs/demo runs/demo-blind demo:popularity --metric auc[/bold]
    """
    with exit_codes(as_json):
        from msr_adapter.evaluate.comparison import ComparisonPlan, chosen_metrics
        from msr_adapter.evaluate.comparison import compare as test
        from msr_adapter.evaluate.text_tables import difference_table, metric_table, shown_metrics

        chosen = _read(run)
        base = next(iter(chosen.values()))[0]
        names = chosen_metrics(metric or (), list(base.metrics["chance"]), shown_metrics(base.metrics))
        protocol, held_out, seed = base.protocol, base.held_out, base.metrics["seed"]
        models = {label: run.judge(model, protocol, held_out) for label, (run, model) in chosen.items()}
        plan = ComparisonPlan.of(protocol, names, seed)
        reference = next(iter(models))
        if to is Reference.BEST:
            leading = plan.primary or names[0]
            reference = max(models, key=lambda name: models[name].summary[leading]["mean"])
        comparison = test(models, reference, plan, chosen=to is Reference.BEST)
        result = _as_dict(chosen, models, names, reference, comparison)
        compared = {name: judged.summary for name, judged in models.items()}
        tables = [metric_table(base.metrics, names, compared), difference_table(comparison, reference)]
        emit(result, "" if as_json else render(tables, markdown, latex), as_json)


def _read(arguments: Sequence[str]) -> dict[str, tuple["FinishedRun", str]]:
    """Return label -> (run, model); every problem with the arguments at once."""
    from msr_adapter.evaluate.comparison import require_comparable

    problems: list[Problem] = []
    found: list[tuple[str, FinishedRun, str]] = []
    for argument in arguments:
        name, model = split_model(argument)
        try:
            run = read_run(name)
            run.scores(model)
            found.append((argument, run, model))
        except UserError as error:
            problems += error.problems
    if len(arguments) < 2:
        problems.append(Problem("", "RUN", f"{len(arguments)} run", "at least two", "Name another run, or RUN:base"))
    if len({(run.folder, model) for _, run, model in found}) < len(found):
        problems.append(Problem("", "RUN", "the same run twice", "each model of a run once", "Name different runs"))
    if problems:
        raise UserError(problems)
    require_comparable({argument: run for argument, run, _ in found})
    return dict(zip(_labels(found), [(run, model) for _, run, model in found], strict=True))


def _labels(found: Sequence[tuple[str, "FinishedRun", str]]) -> list[str]:
    """Call a run by its folder's name, with the model unless it is the trained one; unclear names stay as given."""
    short = [run.folder.name + (f":{model}" if model != TRAINED else "") for _, run, model in found]
    return [name if short.count(name) == 1 else given for name, (given, _, _) in zip(short, found, strict=True)]


def _as_dict(
    chosen: dict[str, tuple["FinishedRun", str]], models: dict[str, "Judged"], names: list[str], reference: str,
    comparison: "Comparison",
) -> dict[str, object]:  # fmt: skip
    base = next(iter(chosen.values()))[0]
    shared = {
        key: base.metrics[key] for key in ("users", "seed", "protocol", "protocol_digest", "candidates", "sampling")
    }
    shown = {
        label: {"run": str(run.folder), "model": model,
                "metrics": {name: models[label].summary[name] for name in names}}
        for label, (run, model) in chosen.items()
    }  # fmt: skip
    tests = {"primary": comparison.primary, "first": comparison.first, "then": comparison.then}
    differences = [asdict(row) for row in comparison.differences]
    return {**shared, "reference": reference, "models": shown, "tests": tests, "differences": differences}
