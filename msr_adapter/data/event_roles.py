"""What common words of event columns stand for: what `msr init` suggests, never what anything is read by."""

from collections.abc import Mapping, Sequence

from msr_adapter.data.readers.column_names import canonical

_ROLES: Mapping[str, Sequence[str]] = {
    "positive": ("purchase", "purchased", "buy", "bought", "transaction", "order", "ordered", "checkout", "conversion",
                 "rent", "subscribe", "play", "listen", "watch", "complete"),
    "negative": ("removefromcart", "remove", "removed", "dislike", "unlike", "skip", "skipped", "refund", "return",
                 "returned", "cancel", "cancelled", "hide", "block", "unfavorite"),
    "shown": ("impression", "impressions", "imp", "show", "shown", "exposure", "exposed", "display", "displayed"),
    "history": ("view", "viewed", "pageview", "pv", "click", "clicked", "detail", "cart", "addtocart", "basket", "fav",
                "favorite", "favourite", "wishlist", "addtowishlist", "like", "liked", "save", "share", "rate", "open"),
}  # fmt: skip
"""Key of `data.source.events` -> words, without case, blanks, `_` and `-`."""


def suggested_roles(words: Sequence[str]) -> dict[str, list[str]] | None:
    """Return key of `data.source.events` -> words, in their order; None where none of them stands for a target.

    Words that nobody knows are `seen`, as they would be with `unknown: seen`.
    """
    found: dict[str, list[str]] = {}
    for word in words:
        role = next((role for role, known in _ROLES.items() if canonical(word) in known), "seen")
        found.setdefault(role, []).append(word)
    if "positive" not in found:
        # Of a log of clicks alone, what is clicked is what can be predicted.
        clicks = [word for word in found.get("history", []) if canonical(word) in ("click", "clicked")]
        if not clicks:
            return None
        found["positive"] = clicks
        found["history"] = [word for word in found["history"] if word not in clicks]
    order = ("positive", "history", "negative", "shown", "seen")
    return {role: found[role] for role in order if found.get(role)}
