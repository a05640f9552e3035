"""Tables of numbers for a terminal, Markdown and LaTeX."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from msr_adapter.errors import plural
from msr_adapter.evaluate.comparison import Comparison, comparison_line
from msr_adapter.evaluate.metrics_file import Interval, MetricsFile
from msr_adapter.evaluate.sampling import sampling_line
from msr_adapter.metrics import RankingMetric, label, metric_row

_ESCAPED = {character: f"\\{character}" for character in "&%$#_{}"}
_ESCAPED |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--"}
POOLED = "AUC is pooled over users: unlike GAUC, it also asks whether scores mean the same for every user."
_ALONE = (
    "Interval and p are of each difference alone; smallest: the true difference that the adjusted 5% test finds 80% of "
    "the time."
)
_UNBRACKETED = str.maketrans("", "", "()")


@dataclass(frozen=True)
class TextTable:
    """Cells as text; the first column names the row."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    """Sentences under the table."""


def shown_metrics(metrics: MetricsFile) -> list[str]:
    """Return the metrics worth a row, the primary one and GAUC first.

    One that equals another of them where users have one target is left out.
    """
    return _told_once(metrics, [metrics["primary"], "gauc"], metrics["chance"])


def _told_once(metrics: MetricsFile, leading: Sequence[str], known: Mapping[str, float]) -> list[str]:
    names = list(dict.fromkeys([*(name for name in leading if name in known), *known]))
    if metrics.get("candidates", {}).get("targets", metrics["users"]) > metrics["users"]:
        return names
    shown = []
    for name in names:
        row = metric_row(name)
        same = row.same_with_one_positive if isinstance(row, RankingMetric) else None
        if row is None or same is None or name.replace(row.name, same, 1) not in names:
            shown.append(name)
    return shown


def short(value: float) -> str:
    """Format a bound of an interval without its leading zero: 0.9513 -> ``.951``."""
    return f"{value:.3f}".removeprefix("0") if 0 <= value < 1 else f"{value:.3f}"


def value_cell(value: Interval) -> str:
    """Return a mean with its interval: ``0.912 (.900–.923)``."""
    return f"{value['mean']:.3f} ({short(value['low'])}–{short(value['high'])})"


def metric_table(
    metrics: MetricsFile,
    names: Sequence[str] | None = None,
    models: Mapping[str, Mapping[str, Interval]] | None = None,
    cell: Callable[[Interval], str] = value_cell,
) -> TextTable:
    """Return metric x model with intervals, and chance, from `metrics.json`'s content.

    ``models`` (metric -> value) stand for the run's own; ``cell`` writes one value.
    """
    shown = models or {model: entry["metrics"] for model, entry in metrics["models"].items()}
    level = metrics["protocol"]["confidence"]["level"]
    rows = []
    for name in names or shown_metrics(metrics):
        cells = [cell(values[name]) for values in shown.values()]
        rows.append([label(name), *cells, f"{metrics['chance'][name]:.3f}"])
    over = "users and, of trained, trainings" if "trainings" in metrics and models is None else "users"
    title = f"{plural(metrics['users'], 'test user')}, {level:.0%} intervals over {over}"
    notes = [sampling_line(metrics["sampling"]), *([POOLED] if any(row[0] == label("auc") for row in rows) else [])]
    return TextTable(title, ["metric", *shown, "chance"], rows, notes)


def full_table(metrics: MetricsFile, cell: Callable[[Interval], str] = value_cell) -> TextTable | None:
    """Return metric x model over the whole catalogue, the reranked models first; None where it was not ranked."""
    full = metrics.get("full")  # older runs have none
    if full is None:
        return None
    models = full_models(metrics)
    rows = [
        [label(name), *(cell(values[name]) for values in models.values()), f"{full['chance'][name]:.3f}"]
        for name in full_metrics(metrics)
    ]
    title = f"The whole catalogue, {plural(metrics['users'], 'test user')}"
    return TextTable(title, ["metric", *models, "chance"], rows, full_notes(metrics))


def hybrid_table(metrics: MetricsFile) -> TextTable | None:
    """Return the hybrid minus every other model, and minus itself without its parts; None where there is none."""
    entry = metrics.get("hybrid")
    if entry is None:
        return None
    primary, models = metrics["primary"], metrics["models"]
    reached = {name: model["metrics"][primary] for name, model in models.items()}
    reached |= {name: ablation["metrics"][primary] for name, ablation in entry["ablations"].items()}
    shown = {name: value_cell(value) for name, value in reached.items()}
    first = []
    if "trainings" in metrics:  # what it weighs is the first of them
        shown["trained"] = f"{reached['hybrid']['mean'] - entry['differences']['trained']['mean']:.3f}"
        first = ["Trained: its first training, which the hybrid weighs."]
    rows = [
        [name, shown[name], f"{gap['mean']:+.3f}", f"{gap['low']:+.3f} to {gap['high']:+.3f}",
         p_text(gap["p"]), p_text(gap["p_adjusted"])]
        for name, gap in entry["differences"].items()
    ]  # fmt: skip
    fits = {"hybrid": entry["fit"]} | {name: ablation["fit"] for name, ablation in entry["ablations"].items()}
    told = [f"{name}: {weights_text(fit['weights'])}." for name, fit in fits.items()]
    users = plural(entry["users"], "validation user")
    notes = [
        f"Weights of scores that have variance 1 within each list, fitted on {users} and frozen "
        f"({entry['digest'][:8]}) before a score of the test was read. " + " ".join(told),
        f"p adjusted (max-T) for the {plural(len(rows), 'comparison')} of this table.",
        *first,
    ]
    columns = ["model", label(primary), "hybrid minus it", "interval", "p", "p adjusted"]
    return TextTable(f"The hybrid, {value_cell(reached['hybrid'])}, beside each", columns, rows, notes)


def trainings_table(metrics: MetricsFile) -> TextTable | None:
    """Return each training's metrics and their spread; None where the model was trained once."""
    entry = metrics.get("trainings")
    if entry is None:
        return None
    names = [name for name in shown_metrics(metrics) if name in entry["means"]]
    rows = [
        [f"{number}, seed {seed}", *(f"{entry['means'][name][number - 1]:.3f}" for name in names)]
        for number, seed in enumerate(entry["seeds"], start=1)
    ]
    spread = entry["spread"]
    rows.append(["standard deviation", *(f"{spread[name]['observed']:.3f}" for name in names)])
    rows.append(["of it, of trainings", *(f"{spread[name]['deviation']:.3f}" for name in names)])
    needed = ", ".join(f"{name} {count or 'more users'}" for name, count in entry["needed"].items())
    notes = [
        "Of it, of trainings: without the chance of these users; 0 where no more than that shows.",
        f"Trainings with which a 5% test finds the difference in {label(metrics['primary'])} to each, were it as large "
        f"as seen here, 80% of the time: {needed or 'nothing to compare with'}.",
    ]
    return TextTable("The trainings", ["training", *map(label, names)], rows, notes)


def weights_text(weights: Mapping[str, float]) -> str:
    """Return a hybrid's weights in words: ``0.91 trained + 0.42 mf - 0.03 popularity``."""
    parts = [f"{'-' if weight < 0 else '+'} {abs(weight):.2f} {name}" for name, weight in weights.items()]
    return " ".join(parts).removeprefix("+ ")


def full_metrics(metrics: MetricsFile) -> list[str]:
    """Return the metrics over the whole catalogue that are worth a row, the primary one first."""
    full = metrics.get("full")
    return _told_once(metrics, [full["primary"]], full["chance"]) if full else []


def full_models(metrics: MetricsFile) -> dict[str, Mapping[str, Interval]]:
    """Return every model's metrics over the whole catalogue, by the name of its column."""
    full = metrics.get("full")
    if full is None:
        return {}
    retrieval = full["retrieval"]
    again = {} if retrieval is None else {f"{retrieval['retriever']} + {name}": values
                                          for name, values in retrieval["models"].items()}  # fmt: skip
    return again | dict(full["models"])


def full_notes(metrics: MetricsFile) -> list[str]:
    """Say what the rankings of the whole catalogue are of, and what retrieve-and-rerank comes to."""
    full = metrics.get("full")
    if full is None:
        return []
    said = (f"Every target among all items that the user has not seen: {full['candidates']:,.0f} of "
            f"{plural(full['items'], 'item')} on average.")  # fmt: skip
    notes = [said, *(f"Without a full ranking: {name} ({why})." for name, why in full["absent"].items())]
    if (retrieval := full["retrieval"]) is None:
        return notes
    found, gap = retrieval["recall"], retrieval["differences"][retrieval["retriever"]]
    notes.append(
        f"{retrieval['retriever']} + trained: the trained model ranks the {retrieval['top']:,} items that "
        f"{retrieval['retriever']} finds for each user ({retrieval['prompts']:,} prompts); {value_cell(found)} of the "
        f"targets are among them, the others are misses. In {label(full['primary'])}, that is {gap['mean']:+.3f} "
        f"({gap['low']:+.3f} to {gap['high']:+.3f}) beside {retrieval['retriever']} alone, paired; "
        f"p {p_text(gap['p'])}, adjusted {p_text(gap['p_adjusted'])}."
    )
    if recalls := retrieval.get("recalls"):  # runs of earlier versions have none
        told = ", ".join(f"{name} {value_cell(value)}" for name, value in recalls.items())
        notes.append(
            f"Recall among {retrieval['top']:,} items, each as `msr recommend` retrieves from what training may know "
            f"(nothing tuned): {told}."
        )
    return notes


def console_tables(metrics: MetricsFile) -> list[Table]:
    """Return the tables of a finished run for a terminal: lists, trainings, hybrid, the whole catalogue."""
    full = full_table(metrics, cell=lambda value: value_cell(value).translate(_UNBRACKETED))
    others = (trainings_table(metrics), hybrid_table(metrics), full)
    return [console_table(metrics), *(to_rich(table) for table in others if table)]


def console_table(metrics: MetricsFile) -> Table:
    """Return the same table for a terminal: the trained model in bold, chance dim, intervals without brackets."""
    made = to_rich(metric_table(metrics, cell=lambda value: value_cell(value).translate(_UNBRACKETED)))
    for column in made.columns:
        column.style = {"trained": "bold", "chance": "dim"}.get(str(column.header), "")
    return made


def difference_table(comparison: Comparison, reference: str) -> TextTable:
    """Return one row per metric and model: the difference, its interval, both p-values, the smallest difference."""
    cells = [
        [label(row.metric), row.model, f"{row.mean:+.3f}", f"{row.low:+.3f} to {row.high:+.3f}", p_text(row.p),
         p_text(row.p_adjusted), "" if row.smallest is None else f"{row.smallest:.3f}"]
        for row in comparison.differences
    ]  # fmt: skip
    columns = ["metric", "model", f"minus {reference}", "interval", "p", "p adjusted", "smallest"]
    notes = [comparison_line(comparison), _ALONE, *_trainings_notes(comparison, reference)]
    return TextTable("Paired differences over the same users", columns, cells, notes)


def _trainings_notes(comparison: Comparison, reference: str) -> list[str]:
    """Say which differences cover trainings too, and how many a difference in the leading metric needs."""
    repeated = [row for row in comparison.differences if max(row.trainings) > 1]
    if not repeated:
        return []
    leading = comparison.primary or repeated[0].metric
    notes = []
    for row in repeated:
        if row.metric != leading:
            continue
        ours, theirs = (plural(count, "training") for count in row.trainings)
        said = f"{row.model} ({ours}) minus {reference} ({theirs}): interval and p cover users and trainings"
        if row.needed is None:
            need = "more trainings alone would not show a difference of this size: it needs more users"
        else:
            need = f"a difference of this size is shown 80% of the time by about {plural(row.needed, 'training')} each"
        notes.append(f"{said}. {need[0].upper()}{need[1:]} (5% test in {label(leading)}).")
    once = sorted({name for row in repeated for name, count in zip((row.model, reference), row.trainings, strict=True)
                   if count == 1})  # fmt: skip
    if once:
        notes.append(f"Of {', '.join(once)} there is one training, or none to repeat: its own spread is not covered.")
    return notes


def p_text(p: float) -> str:
    """Write a p-value with three decimals; ``<.001`` below."""
    return "<.001" if p < 0.001 else f"{p:.3f}"


def to_rich(table: TextTable) -> Table:
    """Return the table for a terminal."""
    notes = Text("\n".join(table.notes)) if table.notes else None
    made = Table(title=Text(table.title), title_justify="left", box=box.SIMPLE_HEAD, caption=notes)
    made.caption_justify = "left"
    for number, column in enumerate(table.columns):
        made.add_column(Text(column), justify="right" if number else "left")
    for row in table.rows:
        made.add_row(*map(Text, row))  # as text: of the run `shop [v2]`, markup would show `shop`
    return made


def to_markdown(table: TextTable) -> str:
    """Return a Markdown table under its title."""
    head = [_markdown_row(table.columns), "|".join(["", "---", *["---:"] * (len(table.columns) - 1), ""])]
    notes = [line for note in table.notes for line in ("", note)]
    return "\n".join([f"{table.title}:", "", *head, *map(_markdown_row, table.rows), *notes])


def _markdown_row(cells: Sequence[str]) -> str:
    # chr(92): before Python 3.12, an f-string may not hold a backslash.
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def to_latex(table: TextTable) -> str:
    """Return a LaTeX table (package booktabs) with its title and its notes as caption."""
    caption = ". ".join([table.title, *(note.removesuffix(".") for note in table.notes)])
    rows = [_latex_row(row) for row in table.rows]
    return "\n".join([
        r"\begin{table}", rf"\caption{{{escape(caption)}}}", r"\centering",
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\toprule",
        _latex_row(table.columns), r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ])  # fmt: skip


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(escape, cells))} \\\\"


def escape(text: str) -> str:
    """Escape LaTeX's special characters."""
    text = re.sub("|".join(map(re.escape, _ESCAPED)), lambda match: _ESCAPED[match[0]], text)
    # A sign before a number is mathematics: as text, - is a hyphen and < may print as another character.
    return re.sub(r"(?<![\w$-])([<+-])(?=[\d.])", r"$\1$", text)
