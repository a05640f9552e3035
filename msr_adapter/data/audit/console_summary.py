"""The audit on the console: what was kept, what heuristics reach on the test lists, and the findings, gravest first."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from msr_adapter.data.audit.heuristic_baselines import short
from msr_adapter.data.audit.recognition import recognition_lines
from msr_adapter.data.audit.report import Audit, AuditFinding, Statistics
from msr_adapter.errors import plural
from msr_adapter.progress import Reporter

_STYLES = {"error": "bold red", "warning": "yellow", "info": "cyan"}
"""Severities, gravest first."""


def print_audit(audit: Audit, facts: Statistics, reporter: Reporter, more: Sequence[str] = ()) -> None:
    """Print what a user should see without opening `audit.json`; the log gets the same as plain lines.

    ``more`` lines follow what the files were taken for.
    """
    for line in (
        *recognition_lines(audit.recognised),
        *more,
        *_kept(audit.counts),
        *_unseen(audit.counts),
        *_splits(facts["splits"], audit.counts),
        *_statistics(facts["statistics"]),
    ):
        reporter.note(line)
    found = sorted(audit.findings, key=lambda finding: list(_STYLES).index(finding["severity"]))
    if found:
        lines = [f"{finding['severity']}: {finding['text']} [{finding['topic']}]" for finding in found]
        reporter.show(_table(found), lines)


def _kept(counts: Mapping[str, int]) -> Iterator[str]:
    for noun in ("interactions", "users", "items"):
        prefix = f"{noun}_dropped_"
        dropped = [f"{name.removeprefix(prefix).replace('_', ' ')} {number:,}"
                   for name, number in counts.items() if name.startswith(prefix) and number]  # fmt: skip
        reason = f" (dropped: {', '.join(dropped)})" if dropped else ""
        yield f"{noun.capitalize()}: {counts[f'{noun}_kept']:,} of {counts[f'{noun}_read']:,} kept{reason}"


def _unseen(counts: Mapping[str, int]) -> Iterator[str]:
    if number := counts.get("items_without_interaction", 0):
        kept = counts["items_without_interaction_kept"]
        of = "" if kept == number else f", of {number:,}"
        yield f"In the table of items only, without an interaction: {plural(kept, 'item')}{of}"


def _splits(splits: Mapping[str, Any], counts: Mapping[str, int]) -> Iterator[str]:
    for name, split in splits.items():
        yield (f"{name.capitalize()}: {plural(split['examples'], 'example')}, "
               f"{plural(split['candidates'], 'candidate')}")  # fmt: skip
    if without := counts["users_without_example"]:
        yield f"Log too short to give an example: {plural(without, 'user')}"


def _statistics(statistics: Statistics) -> Iterator[str]:
    log, history = statistics["log"], statistics["history"].get("test", {})
    ends = dict.fromkeys(f"{history[end]:.0f}" for end in ("min", "max")) if history else {}
    middle = f"; test histories of {' to '.join(ends)} items" if ends else ""
    yield (f"Density {log['density']:.2%}: {log['per_user']['median']:.0f} interactions per user, "
           f"{log['per_item']['median']:.0f} per item (medians){middle}")  # fmt: skip
    measured = {name: value for name, value in statistics["heuristics"].items() if isinstance(value, Mapping)}
    if measured:
        shown = (f"{name.replace('_', ' ')} {short(value['auc'])}" for name, value in measured.items())
        yield f"Test AUC of heuristics (chance is .50): {', '.join(shown)}"


def _table(findings: list[AuditFinding]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column()
    for finding in findings:
        style = _STYLES[finding["severity"]]
        text = Text(finding["text"]) + Text(f" [{finding['topic']}]", style="dim")
        table.add_row(Text(finding["severity"], style=style), text)
    return table
