"""Lists ranked by the hybrid that the evaluation froze: the model's scores, weighed with those of its other members."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter import heuristics
from msr_adapter.arrays import Floats, Integers, Mask, ranges
from msr_adapter.config.loader import LoadedPipeline
from msr_adapter.errors import Problem, UserError
from msr_adapter.evaluate.baselines.catalogue import row_of
from msr_adapter.evaluate.baselines.fitting import fit_again
from msr_adapter.evaluate.baselines.training_log import Queries, candidate_scores, read_training_log
from msr_adapter.evaluate.candidates import read_items
from msr_adapter.evaluate.hybrid.fitting import read_hybrid
from msr_adapter.evaluate.results import outdated
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.workflows.recommend.histories import Histories

_MADE_OF = ("data", "train", "baselines")
"""Stages without which the weights would be another model's."""
_Member = Callable[[Queries], Floats]


class HybridRanker:
    """The frozen weights and every member but the model, ready to score candidates of any user."""

    def __init__(self, context: Context, histories: Histories) -> None:
        """Fit the baselines among the members again, as the run chose them; `UserError` without a frozen hybrid."""
        folder = context.folder
        self._frozen = read_hybrid(folder.stage("evaluate"))
        require_its_own(folder.root)
        self._log = read_training_log(folder.stage("data"))
        self._items = read_items(folder.stage("data"))
        # Rows of the catalogue by rows of all items that a list may have; -1: training and the protocol know none.
        codes = pc.fill_null(pc.index_in(histories.items, value_set=self._items["item_id"].combine_chunks()), -1)
        self._codes: Integers = np.asarray(codes.to_numpy(), np.int64)
        self._histories = histories
        names = [name for name in self._frozen.file["full"]["weights"] if name != "trained"]
        with context.reporter.track("fitting the hybrid's members again", len(names)) as advance:
            self._members = dict(self._fitted(context, names, advance))

    def log_odds(self, lists: pa.Table, places: Integers, model: Floats) -> Floats:
        """Return the hybrid's log-odds (n,) of candidates, rows of LISTS by user; ``model``: what the model says of
        them, ``places``: each row's user in the histories.

        An item that training never saw has the lowest score of its list with every member that goes by ids.
        """
        starts = np.flatnonzero(np.diff(lists["number"].to_numpy(), prepend=-1))
        offsets = np.append(starts, len(lists)).astype(np.int64)
        asked = self._codes[lists["item"].to_numpy()]
        queries = self._queries(places[starts], np.maximum(asked, 0), offsets)
        scores = {"trained": model}
        scores |= {name: _lowest(member(queries), asked < 0, offsets) for name, member in self._members.items()}
        return self._frozen.scores(scores, offsets)

    def _queries(self, users: Integers, candidates: Integers, offsets: Integers) -> Queries:
        begin, end = self._histories.offsets[users], self._histories.offsets[users + 1]
        history = self._codes[self._histories.codes[ranges(begin, end - begin)]]
        owner = np.repeat(np.arange(len(users)), end - begin)[history >= 0]
        lengths = np.bincount(owner, minlength=len(users))
        return Queries(history[history >= 0], np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), candidates,
                       offsets)  # fmt: skip

    def _fitted(
        self, context: Context, names: list[str], advance: Callable[[int], None]
    ) -> Iterator[tuple[str, _Member]]:
        dirs, config = (context.folder.stage("data"), context.folder.stage("baselines")), context.pipeline.evaluate
        for name in names:
            row = row_of(name)
            if row.fitting is None:
                yield name, getattr(self, f"_{name.replace('-', '_')}")
            else:
                scorer = fit_again(row, config, dirs, self._log, context.pipeline.seed)
                yield name, partial(candidate_scores, scorer, items=self._log.items)
            advance(1)

    def _popularity(self, queries: Queries) -> Floats:
        return heuristics.popularity(queries.candidates, self._items["popularity"].to_numpy())

    def _recency(self, queries: Queries) -> Floats:
        """Score by how recent an item's last interaction is at the end of the log."""
        now = np.full(len(queries.candidates), int(self._log.time.max()) + 1)
        known = heuristics.TrainingLog(self._log.item, self._log.time, self._log.items)
        return heuristics.recency(queries.candidates, now, known)

    def _title_overlap(self, queries: Queries) -> Floats:
        titles = heuristics.title_vectors(self._items["title"].to_pylist())
        return heuristics.title_overlap(
            titles, queries.candidates, queries.offsets, queries.history, queries.history_offsets
        )


def _lowest(scores: Floats, unknown: Mask, offsets: Integers) -> Floats:
    """Return scores in which ``unknown`` candidates have the lowest of the known ones of their list."""
    if not unknown.any():
        return scores
    known = np.minimum.reduceat(np.where(unknown, np.inf, scores), offsets[:-1])
    lowest = np.repeat(np.where(np.isfinite(known), known, 0.0), np.diff(offsets))
    return np.asarray(np.where(unknown, lowest, scores))


def require_its_own(run_dir: Path) -> None:
    """Raise `UserError` where what the weights were fitted to was made again since."""
    changed = [name for name in outdated(run_dir) if name in _MADE_OF]
    if changed:
        found = f"fitted before the stage {' and '.join(changed)} was made again"
        raise UserError(Problem(str(run_dir), "--rank-by", f"the hybrid was {found}", "", "Run `msr evaluate` first"))


def hybrid_problems(loaded: LoadedPipeline, *, in_parts: bool, new_items: bool) -> list[Problem]:
    """Return what speaks against lists by the hybrid, short of its file."""
    where, found = loaded.where("evaluate.hybrid"), list[Problem]()
    if loaded.pipeline.evaluate.hybrid is None:
        step = "Add --set 'evaluate.hybrid={of: [trained, item-knn]}' and run `msr evaluate` with it first"
        return [Problem(where, "evaluate.hybrid", "null: --rank-by hybrid has nothing to rank by", "", step)]
    if in_parts:
        said = "a folder of lists is ranked by workers, which have no members of the hybrid"
        found.append(Problem("", "--rank-by", said, "model", "Write one file: --out FILE.parquet"))
    if new_items:
        said = "--items brings items that the hybrid's members have never seen"
        found.append(Problem("", "--rank-by", said, "model", "Leave --items out, or rank by the model"))
    return found
