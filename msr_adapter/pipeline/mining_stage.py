"""The stage that asks an earlier run's trained model about its own training users: what mined negatives come from.

Each training user is asked about once, at the latest training target: the model sees the history and the summary that
it was trained with, and no interaction that is held out. The candidates are items that the user never interacted with.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Codes
from msr_adapter.errors import Problem, UserError, plural
from msr_adapter.files import remove
from msr_adapter.integrity import require_unaltered
from msr_adapter.model_scores import MINED, ranking_scores, read_model_scores
from msr_adapter.pipeline.earlier_run import EarlierRun, open_earlier
from msr_adapter.pipeline.stage_context import Context
from msr_adapter.pipeline.stored_images import require_unaltered_images
from msr_adapter.retrieval import RetrievalUser, Retrieve
from msr_adapter.stage_arguments import Client

if TYPE_CHECKING:
    import polars as pl

    from msr_adapter.config.schema import TrainNegativesConfig

_MADE = "mined.parquet"
"""What the stage makes: MINED."""
_USERS = 4_096
"""Users whose candidates are in memory at a time."""


def run_mine(c: Context) -> dict[str, Any]:
    """Score items that training users never interacted with by the earlier run's model; return counts."""
    from msr_adapter.score import score

    negatives = c.pipeline.train.negatives
    assert negatives.run is not None, "nothing is mined"
    earlier = open_earlier(negatives.run)
    p, dirs = earlier.pipeline, earlier.dirs
    require_unaltered([dirs.data, dirs.items, dirs.user_summaries], whole=True)
    require_unaltered_images(dirs.data)
    asked = write_candidates(earlier, negatives, c.out)
    c.reporter.note(
        f"  {earlier.folder.root} is asked about {plural(asked.candidates, 'item')} of "
        f"{plural(len(asked.users), 'training user')}: {negatives.among:,} each by `{negatives.retriever}`, "
        "none of which the user has interacted with"
    )
    with c.cache() as cache, c.backend(p.train.scoring_model, earlier.weights()) as backend:
        client = Client(earlier.prompts, backend, cache)
        counts = score(p.train, replace(dirs, candidates=c.out), client, c.job, split="train")
    scores = read_model_scores(c.out / "scores.parquet")
    users = pa.array(asked.users).take(pa.array(np.searchsorted(asked.examples, scores["example_id"].to_numpy())))
    mined = {"user_id": users, "item_id": scores["item_id"], "score": ranking_scores(scores)}
    schema.write_table(pa.table(mined), MINED, c.out / _MADE)
    for name in ("candidates.parquet", "scores.parquet"):  # all of it is in the table, but for the numbers of examples
        remove(c.out / name)
    return {"run": earlier.pipeline.name, "users": len(asked.users), "candidates": asked.candidates} | counts


@dataclass(frozen=True)
class MiningCandidates:
    """Whose candidates were written."""

    examples: Sequence[int]
    """The latest training example of each user who has any, ascending."""
    users: Sequence[str]
    """The user of each."""
    candidates: int


def write_candidates(earlier: EarlierRun, negatives: "TrainNegativesConfig", out: Path) -> MiningCandidates:
    """Write CANDIDATES of the earlier run's training users into ``out``, all of them negatives.

    `UserError` where no user has any left. Memory: the log, and the candidates of some users at a time.
    """
    users = _users(earlier)
    retrieve = _retriever(earlier, negatives)
    ids = schema.read_listed(earlier.dirs.data / "items.parquet", ["item_id"])["item_id"].combine_chunks()
    examples, names, total = list[int](), list[str](), 0

    def tables() -> Iterator[pa.Table]:
        nonlocal total
        for first in range(0, len(users), _USERS):
            part = users[first : first + _USERS]
            lists = [one.items for one in retrieve([one for _, one in part])]
            found = [(example, one.id, items) for (example, one), items in zip(part, lists, strict=True) if len(items)]
            examples.extend(example for example, _, _ in found)
            names.extend(name for _, name, _ in found)
            lengths = [len(items) for _, _, items in found]
            total += sum(lengths)
            codes = np.concatenate([np.empty(0, np.int32), *(items for _, _, items in found)])
            owner = np.repeat(np.array([example for example, _, _ in found], np.int64), lengths)
            columns = {
                "example_id": owner,
                "item_id": ids.take(pa.array(codes)),
                "label": np.zeros(len(codes), np.int8),
            }
            yield pa.table(columns).cast(schema.CANDIDATES)

    schema.write_chunks(tables(), schema.CANDIDATES, out / "candidates.parquet")
    if not total:
        found = f"the training users of {earlier.folder.root} have interacted with every item"
        raise UserError(Problem("", "train.negatives.kind", found, "a kind other than mined"))
    return MiningCandidates(examples, names, total)


def _retriever(earlier: EarlierRun, negatives: "TrainNegativesConfig") -> Retrieve:
    """Return what retrieves from the interactions that training may know, and from no other."""
    from msr_adapter.evaluate.baselines.training_log import read_training_log
    from msr_adapter.retrieval import KnownLog, RetrieverInputs
    from msr_adapter.retrieval.retrievers import row_of

    log = read_training_log(earlier.dirs.data)
    bounds = np.searchsorted(log.user, np.arange(log.users + 1))
    known = KnownLog(bounds, log.item.astype(np.int32), log.items, log.popularity())
    return row_of(negatives.retriever).make(RetrieverInputs(known), negatives.among)


def _users(earlier: EarlierRun) -> list[tuple[int, RetrievalUser]]:
    """Return every training user with the latest training example, in the order of these."""
    import polars as pl

    data = earlier.dirs.data
    items = schema.read_listed(data / "items.parquet", ["item_id"])["item_id"]
    codes = pl.DataFrame({"item_id": pl.from_arrow(items), "code": np.arange(len(items), dtype=np.int32)})
    examples = pl.DataFrame(schema.read_table(data / "examples.parquet", schema.EXAMPLES))
    latest = (
        examples.filter(pl.col("split") == "train")
        .sort("timestamp", "example_id")
        .group_by("user_id", maintain_order=True)
        .last()
        .sort("example_id")
    )
    histories = _lists(latest.explode("history").rename({"history": "item_id"}), codes)
    barred = _lists(_interactions(earlier).join(latest, on="user_id", how="semi"), codes)
    none: Codes = np.empty(0, np.int32)
    return [
        (example, RetrievalUser(user, histories.get(user, none), barred.get(user, none)))
        for example, user in latest.select("example_id", "user_id").iter_rows()
    ]


def _interactions(earlier: EarlierRun) -> "pl.DataFrame":
    """Return what users have seen, as far as a training negative may know of it (docs/candidates.md).

    Under a split by time that ends where training does: what is held out is then no matter here, neither way.
    """
    import polars as pl

    data, columns = earlier.dirs.data, ["user_id", "item_id"]
    log = pl.DataFrame(schema.read_table(data / "interactions.parquet", schema.INTERACTIONS))
    if earlier.pipeline.split.kind == "temporal":
        return log.filter("training").select(columns)
    return pl.concat([log.select(columns), pl.DataFrame(schema.read_table(data / "seen.parquet", schema.SEEN))])


def _lists(rows: "pl.DataFrame", codes: "pl.DataFrame") -> dict[str, Codes]:
    """Return the rows of ITEMS of each user, in order; what is not listed is left out."""
    found = rows.join(codes, on="item_id", how="inner", maintain_order="left")
    grouped = found.group_by("user_id", maintain_order=True).agg("code")
    return {user: np.asarray(items, np.int32) for user, items in grouped.iter_rows()}
