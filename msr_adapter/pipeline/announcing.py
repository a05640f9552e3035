"""What `msr recommend` says before it asks a model anything."""

from collections.abc import Mapping

from msr_adapter.pipeline.preferences import Calls
from msr_adapter.progress import Reporter
from msr_adapter.recommend import Order, Wanted

_COSTLY = 100_000
"""Model calls from which on ranking the whole catalogue deserves a warning."""


def tell_order(reporter: Reporter, wanted: Wanted, order: Order, counts: Mapping[str, int]) -> None:
    """Say who gets a list in an unusual way, and what of the input is left out."""
    if order.later is not None:
        later = order.later
        reporter.note(
            f"{wanted.interactions}: {later.added:,} of {later.rows:,} interactions are new, of {later.users:,} users, "
            f"{later.new_users:,} of them new; {later.repeated:,} were known, {later.unknown_rows:,} left out"
            + (f" (items not in the catalogue: {', '.join(later.unknown[:5])})" if later.unknown else "")
        )
        if later.before:
            reporter.note(
                f"  {later.before:,} of them are older than what their users had already; they are sorted in, so these "
                "users' summaries are written anew from there"
            )
    if counts["users_without_history"]:
        reporter.note(
            f"{counts['users_without_history']:,} users have no history: they get the most popular candidates"
        )
    if order.ignored_pairs:
        reporter.note(f"{order.ignored_pairs:,} candidate pairs are of users who were not asked for")
    if counts["short_lists"]:
        reporter.note(
            f"{counts['short_lists']:,} users have fewer than {wanted.top} candidates left, "
            f"{counts['users_without_candidates']:,} of them none: what they have already is not recommended"
        )


def tell_calls(reporter: Reporter, wanted: Wanted, calls: tuple[Calls, Calls], scored: int) -> None:
    """Say how often the models will be asked, and what of it is cached."""
    items, users = calls
    reporter.note(
        f"recommend: model calls at most: {items.requests:,} item summaries ({items.cached:,} cached), "
        f"{users.requests:,} steps of user summaries ({users.cached:,} cached), {scored:,} scores"
    )
    if wanted.retrieval.kind == "all" and scored >= _COSTLY:
        reporter.note("  the whole catalogue is ranked for every user; --candidates item-knn:200 asks far less")
