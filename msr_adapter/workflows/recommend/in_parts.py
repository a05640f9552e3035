"""`msr recommend --out FOLDER`: lists of any number of users, part by part, each gone on from where it was killed.

Here users are retrieved for and handed out, shard by shard; workers (this process, others, or a Ray cluster, as
`execution` says) score and rank them, and write lists where everybody sees them. What this process holds is the log,
the ids, and the shards under way.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msr_adapter.errors import plural
from msr_adapter.files import digest, file_digest
from msr_adapter.generation import Backend
from msr_adapter.generation.request_shards import MonotonicProgress, ShardJob, spread
from msr_adapter.pipeline.planning import TRAIN
from msr_adapter.pipeline.stage_functions import bounded_share, make_scorer
from msr_adapter.progress import Advance
from msr_adapter.workflows.recommend.finding import CandidateFinder, RecommendWork, open_finder
from msr_adapter.workflows.recommend.part_folder import PartFolder
from msr_adapter.workflows.recommend.ranked_shard import RankedShard, ScoringRecipe, write_whole_shard
from msr_adapter.workflows.recommend.user_shards import cut_shards
from msr_adapter.workflows.recommend.user_summaries import UserSummaries


def recommend_in_parts(asked: RecommendWork) -> tuple[dict[str, Any], dict[str, int]]:
    """Write the folder of lists; return its counts, and what was found for the users of parts that were not there.

    Summaries go through the completion cache, scores do not: shards of lists are kept instead. `UserError` where the
    folder has unfinished lists of another request.
    """
    context, wanted, users = asked.context, asked.wanted, asked.request.asked
    folder = PartFolder(wanted.out)
    goes_on = folder.begin(_identity(asked), overwrite=wanted.overwrite)
    sizes = [len(numbers) for numbers in users.groups()]
    left = [part for part in range(len(sizes)) if not folder.is_done(part)]
    if goes_on:
        done = len(sizes) - len(left)
        context.reporter.note(f"{wanted.out}: {done:,} of {plural(len(sizes), 'part')} are there and stay")
    written: dict[str, Any] = {"items": {}, "users": {}}
    found: dict[str, int] = {}
    if left:
        some = users if len(left) == len(sizes) else users.only(left)
        asked = replace(asked, request=replace(asked.request, asked=some))
        summaries = UserSummaries(context, asked.request, context.out)
        written = summaries.write()
        with (
            make_scorer(context) as scorer,
            open_finder(asked, summaries) as finding,
            context.reporter.track("ranking users", len(some.ids)) as advance,
        ):
            _Parts(asked, summaries, finding, folder, left).write(scorer, advance)
            found = finding.counts
    told = {
        "file": str(wanted.out), "users": len(users.ids), "candidates_from": str(wanted.retrieval), "top": wanted.top,
        "parts_kept": len(sizes) - len(left), "item_summaries": written["items"], "user_summaries": written["users"],
    }  # fmt: skip
    return folder.finish(sizes, told), found


@dataclass(frozen=True)
class _Owner:
    """What a shard under way belongs to."""

    group: int
    users: int
    folder: Path


class _Parts:
    """The parts that are left, as shards for whoever is free."""

    def __init__(
        self,
        asked: RecommendWork,
        summaries: UserSummaries,
        finder: CandidateFinder,
        folder: PartFolder,
        left: list[int],
    ) -> None:
        self._asked, self._summaries, self._finder, self._folder, self._left = asked, summaries, finder, folder, left
        self._users = asked.request.asked
        context = asked.context
        self._recipe = ScoringRecipe(
            context.pipeline.train, context.prompts, context.dirs, asked.wanted, bounded_share(context.pipeline),
            context.pipeline.seed,
        )  # fmt: skip
        self._shards: dict[int, list[Path]] = {}
        """Group -> the files of its shards; those of groups under way."""
        self._waiting: dict[int, int] = {}
        """Group -> how many of its shards are not done."""

    def write(self, scorer: Backend, advance: Advance) -> None:
        """Have every shard ranked, and close each part with its last shard."""
        for job, _ in spread(scorer, self._jobs()):
            owner = job.owner
            shutil.rmtree(owner.folder, ignore_errors=True)
            self._waiting[owner.group] -= 1
            if not self._waiting[owner.group]:
                del self._waiting[owner.group]
                self._folder.close_part(self._left[owner.group], self._shards.pop(owner.group))
            advance(owner.users)

    def _jobs(self) -> Iterator[ShardJob[_Owner]]:
        """Yield shards; they are drawn as workers become free, so that few of them are on the disk at a time."""
        data = self._asked.context.dirs.data
        for group, numbers in enumerate(self._users.groups()):
            found = self._finder.find(self._users, group, numbers)
            cuts = list(cut_shards(numbers, found))
            files = [self._folder.shard(self._left[group], cut.start) for cut in cuts]
            self._shards[group], self._waiting[group] = files, len(cuts)
            for cut, out in zip(cuts, files, strict=True):
                work = self._asked.context.out / f"ranked-{group:05}-{cut.start:05}"
                owner = _Owner(group, cut.stop - cut.start, work)
                if out.exists():
                    yield ShardJob(None, owner)
                    continue
                scored = write_whole_shard(data, work, self._asked.items, self._users, numbers[cut], found[cut])
                shown = self._summaries.shown(group, work) if scored else work
                shard = RankedShard(self._recipe, work, shown, scored, out)
                yield ShardJob(shard, owner, MonotonicProgress(None).to)


def _identity(asked: RecommendWork) -> Mapping[str, Any]:
    """Return whose lists these are: equal identities, equal files."""
    context, wanted = asked.context, asked.wanted
    ids = hashlib.sha256()
    for user in asked.request.asked.ids:
        ids.update(f"{len(user)}:{user}".encode())
    data, trained = (context.folder.manifest(name) for name in ("data", TRAIN))
    settings = {key: context.resolved.get(key) for key in ("summarize", "train", "templates", "seed")}
    files = {"candidates": wanted.retrieval.path, "interactions": wanted.interactions}
    return {
        "users": ids.hexdigest(), "top": wanted.top, "candidates": wanted.candidates,
        "include_seen": wanted.include_seen, "unknown_users": wanted.unknown_users,
        "files": {name: file_digest(path) for name, path in files.items() if path is not None and path.is_file()},
        "data": data.output if data else None, "model": trained.output if trained else None,
        "scorer": digest(context.resolved["evaluate"].get("scorer")), "settings": digest(settings),
    }  # fmt: skip
