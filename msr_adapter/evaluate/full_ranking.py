"""What models are worth over the whole catalogue: the baselines' full rankings, and retrieve-and-rerank beside them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from msr_adapter.arrays import Floats
from msr_adapter.config.schema import EvaluateConfig, FullConfig, ProtocolConfig
from msr_adapter.evaluate.baselines.catalogue import BASELINES, Baseline
from msr_adapter.evaluate.baselines.fitting import FULL
from msr_adapter.evaluate.baselines.training_log import BaselineInputs
from msr_adapter.evaluate.candidates import read_scores
from msr_adapter.evaluate.catalogue_ranking import (
    CatalogueChoices,
    is_ranked_whole,
    rank_targets,
    read_choices,
    read_ranks,
)
from msr_adapter.evaluate.comparison import ComparisonPlan, as_difference, trained_minus_others
from msr_adapter.evaluate.metrics_file import EvaluationFinding, FullRanking, Interval, RetrievalEntry
from msr_adapter.evaluate.retrieval import label_of, reranked, starts_of
from msr_adapter.evaluate.table_retrieval import is_of_the_table, read_recalls
from msr_adapter.evaluate.tables import full_per_user_table
from msr_adapter.metrics import TargetRanks, label, largest_value, mean_interval, values_at
from msr_adapter.model_scores import ranking_scores
from msr_adapter.schema import CANDIDATES, read_table


@dataclass(frozen=True)
class Ranked:
    """One model's metrics over the whole catalogue."""

    values: Mapping[str, Floats]
    """Metric -> values (users,)."""
    summary: Mapping[str, Interval]
    trainings: Mapping[str, Floats] = field(default_factory=dict)
    """Nothing: of several trainings, the first alone ranks what was retrieved."""


@dataclass(frozen=True)
class FullDirs:
    """Where stages before left what is judged here."""

    baselines: Path | None
    retrieved: Path | None
    """What was retrieved; None where nothing was asked for."""
    reranked: Mapping[str, Path]
    """Model -> its folder of SCORES of what was retrieved."""


@dataclass(frozen=True)
class FullRankings:
    """All that was found."""

    entry: FullRanking
    """The part of `metrics.json`."""
    per_user: pa.Table
    """Rows per user and model (`tables.full_per_user_table`)."""
    findings: list[EvaluationFinding]


def rank_fully(
    config: EvaluateConfig, dirs: FullDirs, inputs: BaselineInputs, judged: Collection[str]
) -> FullRankings | None:
    """Judge the ``judged`` baselines over the whole catalogue, and what was retrieved and reranked.

    None where that says nothing new: the lists are the whole catalogue already, it has a million items or more, or no
    metric of the protocol has a cut-off; unless a retrieval was asked for.
    """
    protocol, held_out = config.protocol, inputs.held_out
    whole = is_ranked_whole(inputs.items.num_rows)
    listed = protocol.negatives.kind == "all" and protocol.candidates is None
    if not protocol.cut or (config.full is None and (listed or not whole)):
        return None
    rows = [row for row in BASELINES if (row.name in judged and whole) or _retrieves(config, row)]
    if config.full is None and not any(row.fitting or row.whole for row in rows):
        return None
    choices = read_choices(held_out, inputs.data_dir, protocol.negatives.exclude)
    ranks = {row.name: found for row in rows if (found := _ranks(row, dirs, inputs, choices)) is not None}
    baselines = {name: _ranked(protocol, found) for name, found in ranks.items()}
    found = read_table(dirs.retrieved / "candidates.parquet", CANDIDATES) if config.full and dirs.retrieved else None
    if config.full is not None and found is not None and is_of_the_table(config.full):
        # It has no scores of all items. As k is no larger than the list, its own order is all that metrics look at.
        in_order = -np.arange(found.num_rows, dtype=np.float64)
        baselines[config.full.retriever] = _ranked(protocol, reranked(choices, held_out.example_ids, found, in_order))
    tied = TargetRanks(choices.owners, np.zeros_like(choices.targets), choices.sizes[choices.owners], choices.sizes)
    entry: FullRanking = {
        "items": choices.items,
        "candidates": float(choices.sizes.mean()),
        "primary": _primary(protocol),
        "models": {name: one.summary for name, one in baselines.items()},
        "chance": {name: value["mean"] for name, value in _ranked(protocol, tied).summary.items()},
        "absent": {
            row.name: row.without_whole or row.without or "nothing scores every item for it"
            for row in rows
            if row.name not in ranks
        },
        "retrieval": None,
    }
    models: dict[str, Ranked] = {}
    if config.full is not None and found is not None and dirs.retrieved is not None:
        for name, folder in dirs.reranked.items():
            scores = ranking_scores(read_scores(replace(held_out, table=found), name, folder))
            models[name] = _ranked(protocol, reranked(choices, held_out.example_ids, found, scores))
        plan = ComparisonPlan.of(protocol, [entry["primary"]], inputs.seed)
        compared = trained_minus_others(models | baselines, plan).differences
        retrieval = _retrieval(config.full, choices, found, models, protocol.confidence.level)
        retrieval["recalls"] = _recalls(dirs.retrieved, protocol.confidence.level)
        retrieval["differences"] = {row.reference: as_difference(row) for row in compared}
        entry["retrieval"] = retrieval
    values = {name: one.values for name, one in (models | baselines).items()}
    return FullRankings(entry, full_per_user_table(held_out, choices.sizes, values), _findings(entry))


def unranked(config: EvaluateConfig, items: int) -> list[EvaluationFinding]:
    """Say why the whole catalogue was not ranked, where its size is the reason."""
    if is_ranked_whole(items) or config.full is not None or not config.protocol.cut:
        return []
    text = f"The catalogue has {items:,} items: baselines do not rank the whole of it unless evaluate.full is set."
    return [{"severity": "info", "text": text}]


def _retrieves(config: EvaluateConfig, row: Baseline) -> bool:
    return config.full is not None and config.full.retriever == row.name


def _primary(protocol: ProtocolConfig) -> str:
    """Return the protocol's primary metric, or where that has no cut-off, the deepest NDCG; else the last one."""
    wanted = [protocol.primary_metric, *(name for name in reversed(protocol.cut) if name.startswith("ndcg@"))]
    return next((name for name in wanted if name in protocol.cut), protocol.cut[-1])


def _ranks(row: Baseline, dirs: FullDirs, inputs: BaselineInputs, choices: CatalogueChoices) -> TargetRanks | None:
    if row.fitting is not None and dirs.baselines is not None:
        return read_ranks(inputs.held_out, choices, dirs.baselines / f"{row.name}{FULL}")
    blocks = row.whole(inputs) if row.whole else None
    return None if blocks is None else rank_targets(choices, blocks, row.name)


def _ranked(protocol: ProtocolConfig, ranks: TargetRanks) -> Ranked:
    values, level = values_at(ranks, protocol.ranking, protocol.k), protocol.confidence.level
    most = int(ranks.targets.max())
    ends = {name: mean_interval(each, level, largest_value(name, most)) for name, each in values.items()}
    return Ranked(values, {
        name: {"mean": float(each.mean()), "low": ends[name][0], "high": ends[name][1]} for name, each in values.items()
    })  # fmt: skip


def _retrieval(
    full: FullConfig, choices: CatalogueChoices, found: pa.Table, models: Mapping[str, Ranked], level: float
) -> RetrievalEntry:
    targets = np.diff(choices.target_offsets)
    hits = np.add.reduceat(found["label"].to_numpy().astype(np.float64), starts_of(found)) / targets
    low, high = mean_interval(hits, level)
    return {
        "retriever": full.retriever,
        "top": full.top,
        "prompts": found.num_rows,
        "recall": {"mean": float(hits.mean()), "low": low, "high": high},
        "recalls": {},
        "models": {name: one.summary for name, one in models.items()},
        "differences": {},
    }


def _recalls(retrieved: Path, level: float) -> dict[str, Interval]:
    found = read_recalls(retrieved)
    ends = {name: mean_interval(recall, level) for name, recall in found.items()}
    return {
        name: {"mean": float(recall.mean()), "low": ends[name][0], "high": ends[name][1]}
        for name, recall in found.items()
    }


def _findings(entry: FullRanking) -> list[EvaluationFinding]:
    """Return a warning where the trained model does not rank better what was retrieved than what retrieved it."""
    retrieval, primary = entry["retrieval"], entry["primary"]
    if retrieval is None:
        return []
    gap, name = retrieval["differences"][retrieval["retriever"]], label_of(retrieval["retriever"])
    ours, theirs = (
        retrieval["models"]["trained"][primary]["mean"],
        entry["models"][retrieval["retriever"]][primary]["mean"],
    )
    numbers = (
        f"Over the whole catalogue {name} gives {label(primary)} {theirs:.3f}, reranked by the trained model {ours:.3f}"
    )
    if gap["mean"] <= 0:
        return [{"severity": "warning", "text": f"{numbers}: reranking does not raise it."}]
    if gap["low"] <= 0:
        text = f"{numbers}: the difference is within the noise ({gap['low']:+.3f} to {gap['high']:+.3f})."
        return [{"severity": "info", "text": text}]
    return []
