"""Targets that popularity tells from any negatives: counted, and left out where the protocol says so."""

import numpy as np

from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import Examples
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.spec import ListSpecs
from msr_adapter.errors import Problem, plural, raise_if_any
from msr_adapter.schema import SPLITS


def without_twinless(log: Log, examples: Examples, specs: ListSpecs, imported: bool, audit: Audit) -> Examples:
    """Count the targets without twins (`popularity_strata`) and return the examples that stay.

    ``imported``: the test lists come from a file. `UserError` where leaving out leaves no example of a split.
    """
    kept = np.ones(len(examples), dtype=bool)
    problems = []
    for code, (name, spec) in enumerate(zip(SPLITS, specs, strict=True)):
        if spec.twinless is None or (imported and name == "test"):
            continue
        mine = examples.split == code
        alone = mine & spec.twinless[log.item[examples.target]]
        found, of = int(alone.sum()), int(mine.sum())
        leave_out = spec.negatives.twinless == "leave-out"
        audit.count(f"{name}_targets_without_twins", found)
        if not found:
            continue
        _say(name, found, of, spec.setting, leave_out, audit)
        if leave_out:
            kept &= ~alone
            if found == of and name != "validation":
                problem = f"leave-out leaves no {name} example: none of {plural(of, 'target')} has twins"
                step = "Ask for fewer negatives, or set it to keep"
                problems.append(Problem("", f"{spec.setting}.twinless", problem, "", step))
    raise_if_any(problems)
    return examples.keep(kept)


def _say(name: str, found: int, of: int, setting: str, leave_out: bool, audit: Audit) -> None:
    share = f"{found:,} of {plural(of, f'{name} target')} ({found / of:.0%})"
    have = "has" if found == 1 else "have"
    text = f"{share} {have} no twins: popularity tells them from any negatives of {setting}."
    if leave_out:
        audit.find("info", f"{text} Their examples are left out.")
    else:
        audit.find("info", f"{text} {setting}.twinless: leave-out leaves them out; results on them are to be read with "
                   "the baseline `popularity`.")  # fmt: skip
