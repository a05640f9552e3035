"""A shard of users as work of its own: scored and ranked wherever the model is, its lists written as a file there.

So nothing of its candidates comes back to the process that hands shards out, and no cache keeps their answers: of two
billion, it would be the larger part of all that is stored. The file of lists is what a killed command goes on from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Codes
from msr_adapter.config.schema import TrainConfig
from msr_adapter.files import write_json
from msr_adapter.generation import Answer, Backend
from msr_adapter.generation.request_shards import Keep, keep_nothing
from msr_adapter.generation.uncached import UncachedAnswers
from msr_adapter.progress import Advance, Reporter
from msr_adapter.prompts import Prompts
from msr_adapter.retrieval import Found
from msr_adapter.stage_arguments import Client, Job, StageDirs
from msr_adapter.workflows.recommend.ranking import rank_shard
from msr_adapter.workflows.recommend.request import RecommendRequest
from msr_adapter.workflows.recommend.user_shards import AskedUsers, write_shard

_LISTED = "listed.parquet"
COUNTED = ("candidates", "tokens_in", "prompts_over_cutoff", "bounded")
"""What is known of a shard beside its lists."""


@dataclass(frozen=True)
class ScoringRecipe:
    """What all shards have in common. Picklable."""

    train: TrainConfig
    prompts: Prompts
    dirs: StageDirs
    """The run's."""
    wanted: RecommendRequest
    bounded_share: float
    seed: int


@dataclass(frozen=True)
class RankedShard:
    """One shard of users; a `Shard` whose answers nobody keeps."""

    recipe: ScoringRecipe
    folder: Path
    """As `write_whole_shard` left it, readable wherever this runs."""
    summaries: Path
    """Folder of the user summaries that prompts show."""
    scored: int
    """Candidates that the model is asked about."""
    out: Path
    """The file of lists."""

    def run(self, backend: Backend, report: Advance, _: Keep = keep_nothing) -> list[Answer]:
        """Write RECOMMENDATIONS, and before them the counts; return no answer."""
        counts = self._score(backend, report) if self.scored else {}
        items = schema.read_table(self.folder / _LISTED, schema.ITEMS)
        lists = rank_shard(self.folder, self.folder if self.scored else None, items, self.recipe.wanted)
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(counts_of(self.out), {name: int(counts.get(name, 0)) for name in COUNTED})
        schema.write_table(lists, schema.RECOMMENDATIONS, self.out)
        return []

    def without(self, _: Sequence[Answer]) -> "RankedShard":
        """Return the shard: of its answers none is kept."""
        return self

    def _score(self, backend: Backend, report: Advance) -> dict[str, int]:
        # The stage is imported where it runs: workers come here from a pickle, and know nothing of it before.
        from msr_adapter.score import score

        recipe, done = self.recipe, 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report(done)

        job = Job(self.folder, Reporter(quiet=True).within(advance), recipe.seed)
        dirs = replace(recipe.dirs, data=self.folder, examples=self.folder, user_summaries=self.summaries)
        client = Client(recipe.prompts, backend, UncachedAnswers())
        return score(recipe.train, dirs, client, job, recipe.bounded_share)


def counts_of(lists: Path) -> Path:
    """Return the file of what is known of a shard beside its ``lists``."""
    return lists.with_suffix(".json")


def write_whole_shard(
    data_dir: Path, folder: Path, items: pa.Table, asked: AskedUsers, numbers: range, found: list[Found]
) -> int:
    """Write a shard with all that it needs of the catalogue; return how many candidates the model is asked about."""
    latest = [asked.latest(number) for number in numbers]
    codes: Codes = np.unique(np.concatenate([np.empty(0, np.int32), *(one.items for one in found), *latest]))
    listed = items.take(pa.array(codes))
    own = [replace(one, items=np.searchsorted(codes, one.items).astype(np.int32)) for one in found]
    scored = write_shard(data_dir, folder, listed, asked, numbers, own)
    schema.write_table(listed, schema.ITEMS, folder / _LISTED)
    return scored
