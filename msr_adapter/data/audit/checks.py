"""The audit's checks: how good a log, its items and its test lists are, before a GPU is spent on them.

`audit.json`::

    {"counts": {name: number}, what was read, kept and dropped, by reason
     "sources": [{"file", "columns": {field: column}, "rows", "times", "first", "last", "unused", "passed_over"}],
     "named": {name of a count: its first 20 users or items}, such as images_missing_broken, titles_empty,
     "findings": [{"severity": "info" | "warning" | "error", "topic": of `thresholds.RULES`, "text"}],
     "splits": {split: {"users", "examples", "candidates"}}, "history": {"min", "median", "max"}, "candidates_digest",
     "statistics": {
       "log": {"users", "items", "interactions", "density", "per_user": Q, "per_item": Q, "rare_items"},
       "history": {split: Q},
       "time": {"timestamps", "days" or null, "tied_targets", "at_one_time_of_day"},
       "time_leakage": {"split", "mean_share_later", "median_share_later", "tests_with_any", "rows_looked_at"},
       "filter_leakage": {"items_kept", "items_dropped", "users_kept", "users_dropped", "share_of_items"},
       "not_on_offer": {"negatives"},
       "cold": {"targets", "negatives"},
       "repeats": {"interactions", split: {"targets", "as_the_last"}},
       "heuristics": {"lists", "of", "popularity" | "recency" | "repeat" | "title_overlap": {"auc", "gauc"}},
       "titles": {"empty", "same", "nearly_same", "nearly_same_of", "lists_with_duplicate"},
       "images": {"with_image", "shared", "largest_group", "nothing_to_show"},
       "labels": {split: {"positives", "negatives"}},
       "target_position": {"mean_place", "first", "standard_errors"}}}

Q is {"mean", "min", "5%", "25%", "median", "75%", "95%", "max"}. What cannot be measured is absent: without
timestamps there is no leakage and no recency, without training users no popularity, without `data.repeats: keep` no
repeats. All but sizes, counts, days and Q
are shares.

Every check takes `AuditInputs` and the `Audit`, notes findings and returns statistics; `docs/audit.md` explains each
finding. All are linear in the log, and what is ranked is a bounded, seeded sample of the test lists.
"""

from collections.abc import Callable

from msr_adapter.data.audit.audited_data import AuditInputs
from msr_adapter.data.audit.candidate_lists import check_labels, check_target_position
from msr_adapter.data.audit.heuristic_baselines import check_heuristics
from msr_adapter.data.audit.items import check_images, check_titles
from msr_adapter.data.audit.leakage import check_cold_items, check_filter_leakage, check_offer, check_time_leakage
from msr_adapter.data.audit.log_statistics import check_history, check_log, check_timestamps
from msr_adapter.data.audit.repeats import check_repeats
from msr_adapter.data.audit.report import Audit, Statistics

Check = Callable[[AuditInputs, Audit], Statistics]

CHECKS: dict[str, Check] = {
    "log": check_log,
    "history": check_history,
    "time": check_timestamps,
    "time_leakage": check_time_leakage,
    "filter_leakage": check_filter_leakage,
    "not_on_offer": check_offer,
    "cold": check_cold_items,
    "repeats": check_repeats,
    "heuristics": check_heuristics,
    "titles": check_titles,
    "images": check_images,
    "labels": check_labels,
    "target_position": check_target_position,
}


def audit_statistics(inputs: AuditInputs, audit: Audit) -> Statistics:
    """Run every check; return the `statistics` of `audit.json`, keyed by check."""
    return {name: check(inputs, audit) for name, check in CHECKS.items()}
