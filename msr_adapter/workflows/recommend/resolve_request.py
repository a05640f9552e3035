"""A request against the data: who is asked for, what they have, and every id that nobody knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from msr_adapter.data.audit.ids import near_text
from msr_adapter.data.id_forms import near_matches
from msr_adapter.data.new_items import NewItems, beside
from msr_adapter.errors import Problem, UserError
from msr_adapter.workflows.recommend.histories import NewInteractions, extend, read_histories, read_seen
from msr_adapter.workflows.recommend.new_items import changed_problems
from msr_adapter.workflows.recommend.request import RecommendRequest
from msr_adapter.workflows.recommend.user_shards import AskedUsers, IdArray

_NAMED = 20
_SHOWN = 3


@dataclass(frozen=True)
class RequestFiles:
    """What the files of a request hold; None = no such file."""

    users: pl.Series | None
    candidates: pl.DataFrame | None
    later: pl.DataFrame | None
    """Interactions that came after those of the data stage."""
    items: pl.DataFrame | None = None
    """Items, maybe such that came after it, as a `Corpus` has them."""


@dataclass(frozen=True)
class ResolvedRequest:
    """A request that can be carried out."""

    asked: AskedUsers
    candidates: pl.DataFrame | None
    later: NewInteractions | None
    unknown_users: int
    """Asked for without being in any log: they get the fallback."""
    ignored_pairs: int
    """Candidate pairs of users who were not asked for."""
    items: NewItems | None = None
    """What the table of items has beside the catalogue, whose rows it follows."""


def resolve_request(
    wanted: RecommendRequest, files: RequestFiles, data_dir: Path, *, keep_repeats: bool = False
) -> ResolvedRequest:
    """Read all histories and look up every id of the request. `UserError` with all that nobody knows, at once."""
    items = None if files.items is None else beside(files.items, data_dir, wanted.items or Path("--items"))
    histories = read_histories(data_dir, [] if items is None else items.new["item_id"].to_list())
    later = None
    if files.later is not None:
        histories, later = extend(histories, data_dir, files.later, keep_repeats=keep_repeats)
    ids = histories.users if files.users is None else files.users.to_arrow().cast(pa.string())
    seen = read_seen(data_dir, ids, histories.items, None if later is None else later.filtered)
    places = np.arange(len(ids)) if files.users is None else histories.places(ids)
    asked = AskedUsers(IdArray(ids), places, histories, seen)
    problems = [] if items is None or wanted.items is None else [*changed_problems(wanted.items, items)]
    problems += [*_later_problems(wanted, later), *_user_problems(wanted, asked)]
    if files.candidates is not None:
        problems += _candidate_problems(wanted, files.candidates, asked)
    if problems:
        raise UserError(problems)
    ignored = 0
    if files.candidates is not None and "user_id" in files.candidates.columns:
        ignored = int((~files.candidates["user_id"].is_in(list(asked.ids))).sum())
    unknown = int((asked.places < 0).sum()) - int(asked.only_seen().sum())
    return ResolvedRequest(asked, files.candidates, later, unknown, ignored, items)


def _later_problems(wanted: RecommendRequest, later: NewInteractions | None) -> Iterator[Problem]:
    if later is not None and later.unknown_rows == later.rows:
        found = f"none of its {later.rows:,} rows has an item of the catalogue (such as {_some(later.unknown)})"
        yield Problem(str(wanted.interactions), "--interactions", found, "", "Give the log of this pipeline's items")


def _user_problems(wanted: RecommendRequest, asked: AskedUsers) -> Iterator[Problem]:
    nowhere = (asked.places < 0) & ~asked.only_seen()
    unknown = [asked.ids[number] for number in np.flatnonzero(nowhere).tolist()]
    if not unknown or wanted.unknown_users == "fallback":
        return
    found = f"{len(unknown):,} of {len(asked.ids):,} users are not in the log: {_some(unknown, _NAMED)}"
    near = near_matches(pl.Series(unknown), pl.Series(asked.histories.users.to_pylist(), dtype=pl.String))
    step = near_text(near, "the log").strip() or (
        "Correct the ids, bring their history with --interactions, or give them the fallback: --unknown-users fallback"
    )
    yield Problem(str(wanted.users), "--users", found, "", step)


def _candidate_problems(wanted: RecommendRequest, listed: pl.DataFrame, asked: AskedUsers) -> Iterator[Problem]:
    """Yield a problem for items that the catalogue lacks, and for users without candidates in the file."""
    where = str(wanted.retrieval.path)
    items = listed["item_id"].unique(maintain_order=True)
    known = pl.Series(pc.is_in(items.to_arrow().cast(pa.string()), value_set=asked.histories.items))
    if len(unknown := items.filter(~known).to_list()):
        found = f"{len(unknown):,} of {len(items):,} items are not in the catalogue: {_some(unknown, _NAMED)}"
        near = near_matches(pl.Series(unknown), pl.Series(asked.histories.items.to_pylist(), dtype=pl.String))
        step = near_text(near, "the catalogue").strip()
        step = step or "Leave them out: the data stage kept no such item (data/audit.json says what it dropped)"
        yield Problem(where, "--candidates", found, "", step)
    if "user_id" in listed.columns:
        have = set(listed["user_id"].unique())
        if lacking := [user for user in asked.ids if user not in have]:
            found = f"{len(lacking):,} of {len(asked.ids):,} users have no candidates: {_some(lacking, _NAMED)}"
            yield Problem(where, "--candidates", found, "", "Add pairs for them, or name the others with --users")


def _some(ids: Sequence[str], count: int = _SHOWN) -> str:
    more = f" and {len(ids) - count:,} more" if len(ids) > count else ""
    return ", ".join(ids[:count]) + more
