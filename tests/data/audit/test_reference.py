"""docs/audit.md is written from the audit's rules, and every finding that the code can make is in them.

`UPDATE_GOLDENS=1 pytest tests/data/audit/test_reference.py` rewrites it.
"""

import ast
import os
from pathlib import Path

from msr_adapter.data.audit import audited_data
from msr_adapter.data.audit.items import NEAR_ITEMS
from msr_adapter.data.audit.thresholds import RULES, FindingRule
from msr_adapter.heuristics.near_duplicates import JACCARD
from tests.support.paths import ROOT

DOCUMENT = ROOT / "docs" / "audit.md"

HEADER = f"""\
# The audit

`msr build-data` ends by saying what the data is like, before a GPU is spent on it: on the console, in
`data/audit.json`, and in the report. Nothing in it stops a run; what cannot be used at all is an error before that.

- **counts**: users, items, interactions and images read, kept and dropped, by reason. Nothing is dropped silently.
  `pairs_seen_only` counts what users have seen beside the kept log ([candidates](candidates.md)). With `split.kind:
  column`, `{{split}}_rows_read`, `{{split}}_rows_dropped_{{reason}}`, `{{split}}_rows_no_target` and
  `{{split}}_targets_repeated` say what became of the published split.
- **named**: for counts of what lacks (`images_missing_broken`, `titles_empty`, `items_with_nothing_to_show`,
  `items_dropped_unknown_item`, `users_without_example`), the first 20 ids, so that the item or user can be looked up.
- **statistics**: density, interactions per user and item, history lengths, leakage in time, cold items, the heuristics'
  AUC and GAUC, titles, images, labels. The layout is in `msr_adapter/data/audit/checks.py`.
- **sources**: for each file, which column was taken for what and how its times are told, its rows, its first and last
  day, which columns are not read, and which of them have a usual name too (`passed_over`). `msr check` says the same.
- **findings**: what to know and what to do, each with a severity and a topic.

| severity | means |
|---|---|
| error | results on these lists would say little: change the protocol or the data first |
| warning | results are weaker or easier than they look: act, or say so beside them |
| info | worth knowing |

**The heuristics** rank the very test candidates, at most {audited_data.LISTS:,} lists drawn by seed, by three things
that need no model of the user: how often training saw the item (popularity), how lately before the target's time
(recency; of what training may know, only what is strictly earlier counts), and the TF-IDF cosine of the candidate's
title with the titles of the history (title overlap). With `data.repeats: keep` there is a fourth, what the user had
before, most often first, in the history that models see. The same are baselines of the evaluation.

**Leakage in time** is the share of the interactions that training knows and that are later than the choice tested: the
mean over test examples. Only a split by time has none: under `user-holdout` and `leave-last-out`, later choices of
other users tell what was going to be chosen. Of the **filters**, it is the items that `k_core` and `limit.items` keep
or drop only because they count what is held out (`items_kept_by_held_out` and the like); the measure is what the same
filters keep, counted on what training may know. Of the **lists**, it is the negatives that first appear in the log
after the choice tested. Under `temporal` all three are zero
([what each split knows](candidates.md#what-each-split-knows)).

**Nearly equal titles** have sets of words with a Jaccard similarity of {JACCARD} or more. They are found
among the {NEAR_ITEMS:,} most popular distinct titles.

**The estimate of the row lengths** (`lengths/lengths.json`, said right after the audit and before a summary is
written) adds up the prompt's text with the title, the image and the longest user summary that `max_new_tokens` allows,
counted by the model's tokenizer where its file is on this machine, and warns when rows can be longer than
`train.cutoff_len`. Before training, every row is measured.

Each bound is the value from which on a finding of that severity is made; all stand in
`msr_adapter/data/audit/thresholds.py`, which this table is written from.

| topic | measures | info | warning | error | why |
|---|---|---|---|---|---|
"""


def reference() -> str:
    return HEADER + "".join(map(row, RULES))


def row(rule: FindingRule) -> str:
    bounds = " | ".join(bound(value) for value in (rule.info, rule.warning, rule.error))
    return f"| `{rule.topic}` | {rule.measure} | {bounds} | {rule.why} |\n"


def bound(value: float | None) -> str:
    return "" if value is None else "above 0" if value < 1e-6 else f"{value:g}"


def test_the_page_on_disk_is_the_page_of_the_rules() -> None:
    if os.environ.get("UPDATE_GOLDENS"):
        DOCUMENT.write_text(reference(), encoding="utf-8")
    assert DOCUMENT.read_text(encoding="utf-8") == reference()


def test_every_finding_that_can_be_made_has_a_rule_and_every_rule_a_finding() -> None:
    topics = {rule.topic for rule in RULES}
    assert len(topics) == len(RULES)
    made = {"source"}  # what `find` is called with when no topic is given
    for path in sorted((ROOT / "msr_adapter").rglob("*.py")):
        if path.name != "thresholds.py":
            texts = {node.value for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                     if isinstance(node, ast.Constant) and isinstance(node.value, str)}  # fmt: skip
            made |= texts & topics if "audit" in path.parts else topics_of_find(path)
    assert made == topics


def topics_of_find(path: Path) -> set[str]:
    """Return the topics that calls of `audit.find` and `note` outside the checks name."""
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    named = [call.args[2] for call in calls if getattr(call.func, "attr", "") == "find" and len(call.args) > 2]
    named += [call.args[1] for call in calls if getattr(call.func, "id", "") == "note" and len(call.args) > 1]
    return {topic.value for topic in named if isinstance(topic, ast.Constant)}
