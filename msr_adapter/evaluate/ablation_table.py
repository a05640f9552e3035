"""The ablation table: variants of one experiment on the same users, tested against the full one."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from msr_adapter.errors import plural
from msr_adapter.evaluate.comparison import Comparison, ComparisonPlan, compare, require_comparable
from msr_adapter.evaluate.model_metrics import Judged
from msr_adapter.evaluate.results import FinishedRun, read_finished
from msr_adapter.evaluate.text_tables import TextTable, difference_table, shown_metrics, value_cell
from msr_adapter.metrics import label

_PAPER = ("auc", "hr@5", "mrr@5")
"""The metrics of the paper's table, shown after the protocol's primary one."""
_CAUTION = (
    "Each variant was trained once, with the same seed: intervals and p-values are over test users, not over trainings "
    "(train.repeats)."
)


@dataclass(frozen=True)
class AblationRow:
    """One variant: where it is, which model of that run is meant, what it is."""

    run_dir: Path
    model: str
    what: str


@dataclass(frozen=True)
class AblationTable:
    """All variants judged on the same users, and every one but the first against the first."""

    rows: Mapping[str, AblationRow]
    models: Mapping[str, Judged]
    metrics: Sequence[str]
    comparison: Comparison | None
    """None of a single variant."""
    base: FinishedRun

    def as_dict(self) -> dict[str, Any]:
        """Return `ablation.json`: variant -> run, model, metrics with intervals; the differences; the digests."""
        shared = {key: self.base.metrics[key] for key in ("pipeline", "users", "seed", "protocol", "protocol_digest",
                                                          "candidates", "sampling")}  # fmt: skip
        variants = {
            name: {"run": str(row.run_dir), "model": row.model, "what": row.what,
                   "metrics": {metric: self.models[name].summary[metric] for metric in self.metrics}}
            for name, row in self.rows.items()
        }  # fmt: skip
        chance = {metric: self.base.metrics["chance"][metric] for metric in self.metrics}
        differences = [asdict(difference) for difference in self.comparison.differences] if self.comparison else []
        return {**shared, "variants": variants, "chance": chance, "differences": differences, "caution": self.caution}

    @property
    def caution(self) -> str:
        """What the intervals and tests cover."""
        counts = {name: len(next(iter(one.trainings.values()), ())) or 1 for name, one in self.models.items()}
        if max(counts.values()) == 1:
            return _CAUTION
        once = [name for name, count in counts.items() if count == 1]
        most = plural(max(counts.values()), "time")
        said = f"Variants were trained {most}: intervals and tests cover users and trainings"
        return f"{said}, but of {', '.join(once)}, trained once or not at all, users alone." if once else f"{said}."

    def tables(self) -> list[TextTable]:
        """Return the paper's table, one row per variant, and the paired differences."""
        level = self.base.metrics["protocol"]["confidence"]["level"]
        cells = [
            [name, row.what, *(value_cell(self.models[name].summary[metric]) for metric in self.metrics)]
            for name, row in self.rows.items()
        ]
        users = plural(self.base.metrics["users"], "test user")
        title = f"{self.base.metrics['pipeline']}: {users}, {level:.0%} intervals"
        table = TextTable(title, ["variant", "what", *map(label, self.metrics)], cells)
        return [table, difference_table(self.comparison, next(iter(self.rows)))] if self.comparison else [table]


def ablation_table(rows: Mapping[str, AblationRow]) -> AblationTable:
    """Judge finished variants; the first is the reference.

    The metrics are the protocol's primary one, then AUC, HR@5 and MRR@5 as in the paper, or the protocol's next ones.
    Raises `UserError` when the variants do not have one protocol and the very same candidates.
    """
    runs = {name: read_finished(row.run_dir) for name, row in rows.items()}
    require_comparable(runs)
    base = next(iter(runs.values()))
    shown = shown_metrics(base.metrics)
    protocol, held_out = base.protocol, base.held_out
    others = [metric for metric in _PAPER if metric in shown] or shown[:3]
    metrics = list(dict.fromkeys([protocol.primary_metric, *others]))
    models = {name: runs[name].judge(row.model, protocol, held_out) for name, row in rows.items()}
    plan = ComparisonPlan.of(protocol, metrics, base.metrics["seed"])
    tested = compare(models, next(iter(rows)), plan) if len(rows) > 1 else None
    return AblationTable(rows, models, metrics, tested, base)
