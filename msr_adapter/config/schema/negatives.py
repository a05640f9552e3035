"""The negatives of candidate lists: how many, and how they are drawn."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from msr_adapter.config.schema.base import MOST_NEGATIVES, Count, StrictModel, Weight, allowed

DrawnKind = Literal["uniform", "popularity", "popularity-matched", "same-category", "hard", "impressions"]
"""What a single negative can be drawn as."""
TrainKind = Literal[
    "uniform", "popularity", "popularity-matched", "same-category", "hard", "impressions", "mined", "mixture"
]
"""What training lists are drawn as."""


class MixtureConfig(StrictModel):
    """How much of each kind, as counts or as shares: they are scaled to `count`, the largest remainders rounded up."""

    uniform: Weight = 0
    """Weight of `uniform`."""
    popularity: Weight = 0
    """Weight of `popularity`."""
    popularity_matched: Weight = 0
    """Weight of `popularity-matched`."""
    same_category: Weight = 0
    """Weight of `same-category`."""
    hard: Weight = 0
    """Weight of `hard`."""
    impressions: Weight = 0
    """Weight of `impressions`."""


class NegativesConfig(StrictModel):
    """What the target is ranked among. A bare number is the count of uniform negatives."""

    kind: Literal[
        "uniform", "popularity", "popularity-matched", "same-category", "hard", "impressions", "mixture", "all"
    ] = "uniform"
    """uniform: every item equally likely. popularity: by training popularity to the power of `alpha`.
    popularity-matched: among the items of the positive's stratum of training popularity, such that popularity does not
    tell which is the positive. same-category: among the items of the positive's category. hard: among the user's `pool`
    highest-scored items in `scores`. impressions: what the user was shown together with the target and did not click,
    at most `count`; what else was clicked there is a positive too. mixture: several of these, each with its count. all:
    every item that is not excluded, once: full
    ranking, of test and validation lists."""
    count: int = Field(20, ge=1, le=MOST_NEGATIVES)
    """Negatives per positive; `all` takes what there is."""
    exclude: Literal["seen", "target"] | None = None
    """What is no negative. seen: whatever the user has ever seen, in any split, whatever a filter dropped. target: the
    list's own target alone. null: target where `data.repeats` is keep, since a target in the history would be told by
    standing there among items that do not; else seen."""
    alpha: float = Field(1.0, ge=0, le=100)
    """Read by `popularity`: 0 = uniform, 1 = as often as in the training log, 0.75 as in word2vec."""
    pool: Count = 100
    """Read by `popularity-matched`: how many items a stratum has at least. Read by `hard`: how many items are close
    enough. Smaller = closer."""
    twinless: Literal["keep", "leave-out"] = "keep"
    """Read by `popularity-matched`: what becomes of a positive that popularity tells from any `count` others, as it
    does at the head of most catalogues. It is counted in audit.json. keep: it is set against the most popular ones.
    leave-out: its example is left out."""
    scores: Path | None = None
    """Read by `hard`: parquet, csv or tsv with columns `item_id` and `score`, and `user_id` for lists of one's own."""
    mixture: MixtureConfig = MixtureConfig()
    """Read by `mixture`: how much of each kind."""
    rejected: Literal["first", "leave-out"] = "leave-out"
    """What becomes of items that the user had said no to by then (`data.source.events.negative`). leave-out: they are
    seen, and no negatives unless `exclude` is target. first: a list begins with them, the last word first, and `kind`
    draws what is left of its `count`: such lists are no longer those of the protocol, and ask for something else."""
    fallback: tuple[DrawnKind, ...] = ()
    """Kinds tried in order where a kind cannot give its count (`impressions` alone: not one item); none = that is an
    error. Every use is in audit.json."""

    @model_validator(mode="before")
    @classmethod
    def _a_number_is_a_count(cls, data: object) -> object:
        if isinstance(data, dict):  # what a validator has seen is no JSON any more: strictly, a list is then no tuple
            return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
        return {"count": data} if isinstance(data, int) and not isinstance(data, bool) else data

    @model_validator(mode="after")
    def _what_a_kind_reads_is_given(self) -> "NegativesConfig":
        if self.kind == "mixture" and not sum(self.mixture.model_dump().values()):
            raise ValueError("kind: mixture, but no `mixture:` of kinds with weights, such as {uniform: 10, hard: 10}")
        if "hard" in (*self.kinds(), *self.fallback) and self.scores is None:
            raise ValueError("hard negatives are asked for without `scores:`, a file with item_id and score")
        if self.kind == "all" and self.rejected == "first":
            raise ValueError("rejected: first, but kind: all draws nothing, so that no list begins with anything")
        return self

    def settled(self, repeats: Literal["keep", "first"]) -> "NegativesConfig":
        """Return them with what `exclude: null` stands for where `data.repeats` is ``repeats``."""
        if self.exclude is not None:
            return self
        return self.model_copy(update={"exclude": "target" if repeats == "keep" else "seen"})

    def kinds(self) -> dict[str, int]:
        """Return kind -> count, in the order in which they are drawn; empty for `all`."""
        if self.kind == "all":
            return {}
        if self.kind != "mixture":
            return {self.kind: self.count}
        weights = {name.replace("_", "-"): weight for name, weight in self.mixture.model_dump().items() if weight}
        shares = {kind: weight * self.count / sum(weights.values()) for kind, weight in weights.items()}
        # Whole shares may come out of the division a bit below themselves.
        counts = {kind: int(share + 1e-9) for kind, share in shares.items()}
        # The largest remainders first: counts less shares are their negatives.
        remainders = sorted(shares, key=lambda kind: counts[kind] - shares[kind])
        for kind in remainders[: self.count - sum(counts.values())]:
            counts[kind] += 1
        return {kind: count for kind, count in counts.items() if count}


class TrainMixtureConfig(MixtureConfig):
    """How much of each kind, as in `evaluate.protocol.negatives`, with one kind more."""

    mined: Weight = 0
    """Weight of `mined`."""


class TrainNegativesConfig(NegativesConfig):
    """What a training positive is set against. A bare number is the count of uniform negatives."""

    kind: TrainKind = "uniform"  # type: ignore[assignment]  # the protocol has no `mined`: nothing learns from its lists
    """As in `evaluate.protocol.negatives`, without `all`, and with one more. mined: among the `top` items that the
    trained model of the earlier run `run` scores highest for the user, of those that the user never interacted with."""
    count: int = Field(1, ge=1, le=MOST_NEGATIVES)
    """Negatives per positive."""
    mixture: TrainMixtureConfig = TrainMixtureConfig()
    """Read by `mixture`: how much of each kind."""
    rejected: Literal["first", "leave-out"] = "first"
    """As in `evaluate.protocol.negatives`; first, unless it is said otherwise."""
    run: Path | None = Field(None, json_schema_extra=allowed("the folder of a run, a run's name, or null"))
    """Read by `mined`: the earlier run (`demo`: the folder beside this file, else `runs/demo`), made of the same log
    and split, with a trained model."""
    top: Count = 20
    """Read by `mined`: how many of a user's highest-scored items negatives are drawn among. Smaller = harder."""
    among: Count = 100
    """Read by `mined`: how many items that model is asked about for each training user; so many prompts a user."""
    retriever: Literal["popular", "item-knn"] = "popular"
    """Read by `mined`: which items these are. popular: the most popular ones. item-knn: those nearest to the user's
    history; it needs the extra `baselines`. Both count what training may know, and leave out what the user has."""

    @property
    def mines(self) -> bool:
        """Whether negatives are mined from an earlier run."""
        return "mined" in self.kinds()

    @model_validator(mode="after")
    def _what_is_mined_is_there(self) -> "TrainNegativesConfig":
        if not self.mines:
            return self
        count = self.kinds()["mined"]
        if self.run is None:
            raise ValueError("mined negatives are asked for without `run:`, an earlier run with a trained model")
        if count > self.top:
            found = f"{count} mined negatives of a positive are more than the `top` {self.top} items"
            raise ValueError(f"{found}; expected top: {count} or more")
        if self.top > self.among:
            raise ValueError(f"top: {self.top} of among: {self.among} items; expected among: {self.top} or more")
        return self
