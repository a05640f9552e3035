"""The heuristics: how much of the test AUC a trivial scorer reaches, without any model of the user."""

import numpy as np

from msr_adapter.arrays import Floats
from msr_adapter.data.audit.audited_data import AuditInputs, TestLists
from msr_adapter.data.audit.report import Audit, Statistics
from msr_adapter.data.audit.thresholds import note, severity
from msr_adapter.heuristics import (
    TrainingLog,
    has_timestamps,
    popularity,
    recency,
    repeat_scores,
    title_overlap,
    title_vectors,
)
from msr_adapter.metrics import evaluate_groups

_SAID = {
    "popularity": ("popularity-heuristic", "Popularity", "no knowledge of the user",
                   "Quote results beside the baseline `popularity`, or draw negatives as popular as the target "
                   "(evaluate.protocol.negatives.kind: popularity-matched)."),
    "recency": ("recency-heuristic", "The time since the item's last interaction", "no knowledge of the user",
                "Add `recency` to evaluate.baselines and quote results beside it, or import candidates that were on "
                "offer at the time (evaluate.protocol.candidates)."),
    "repeat": ("repeat-heuristic", "What the user had before (most often first)", "no more than the user's own past",
               "The baseline `repeat` is added automatically: quote results beside it, and look at users with a new "
               "target separately (the slice `repeat`)."),
    "title_overlap": ("title-heuristic", "Counting words shared with the titles of the history", "no more than that",
                      "Add `title-overlap` to evaluate.baselines: a language model has to beat it. Among negatives of "
                      "the same category (evaluate.protocol.negatives.kind: same-category), words tell less."),
}  # fmt: skip
"""Heuristic -> topic, what it is, what it needs, what to do."""


def check_heuristics(e: AuditInputs, audit: Audit) -> Statistics:
    """Rank the very test candidates by popularity, recency and title overlap alone; return AUC and GAUC of each.

    On at most `inputs.LISTS` lists, drawn by seed. O(log rows) time with timestamps, else O(pairs).
    """
    lists = e.lists
    if not len(lists):
        return {}
    found: Statistics = {"lists": len(lists), "of": lists.of}
    for name, scores in _scores(e, lists).items():
        measured = evaluate_groups(scores, lists.labels, lists.offsets, ("auc", "gauc")).means()
        found[name] = measured
        _find(name, measured, audit)
    return found


def _scores(e: AuditInputs, lists: TestLists) -> dict[str, Floats]:
    """Return the scores of the heuristics that this log allows; without a training log, only words are left."""
    scores: dict[str, Floats] = {}
    if e.training.any():
        scores["popularity"] = popularity(lists.items, e.popularity)
    if e.training.any() and has_timestamps(e.log.time):
        known = TrainingLog(e.log.item, e.log.time, len(e.log.items), e.training)
        scores["recency"] = recency(lists.items, lists.times, known)
    if e.log.keeps:
        scores["repeat"] = repeat_scores(
            lists.items, lists.offsets, lists.history, lists.history_offsets, e.popularity
        )[0]
    if any(e.catalogue.titles):
        scores["title_overlap"] = _overlap(e, lists)
    return scores


def _overlap(e: AuditInputs, lists: TestLists) -> Floats:
    """Read only the titles that the lists need: the catalogue may be far larger."""
    used, place = np.unique(np.concatenate([lists.items, lists.history]), return_inverse=True)
    titles = title_vectors(e.catalogue.titles[item] for item in used.tolist())
    items, history = place[: len(lists.items)], place[len(lists.items) :]
    return title_overlap(titles, items, lists.offsets, history, lists.history_offsets)


def _find(name: str, measured: dict[str, float], audit: Audit) -> None:
    """Say how far a heuristic gets; one that is always wrong is as telling, turned upside down."""
    topic, what, need, step = _SAID[name]
    best = max(measured.values(), key=lambda value: abs(value - 0.5))
    reach = max(best, 1 - best)
    auc, gauc = (short(value if best >= 0.5 else 1 - value) for value in (measured["auc"], measured["gauc"]))
    how_much = {"info": "Part", "warning": "Much", "error": "Nearly all"}.get(severity(topic, reach) or "info")
    turned = "" if best >= 0.5 else ", in reverse order,"
    note(audit, topic, reach,
         f"{what} alone{turned} reaches AUC {auc} (GAUC {gauc}) on the test candidates. {how_much} of the score needs "
         f"{need}. {step}")  # fmt: skip


def short(value: float) -> str:
    """Return a share as papers print it: .79"""
    return f"{value:.2f}".removeprefix("0")
