"""What "good" means, and what the trained model is compared with."""

from typing import Annotated, Literal

from pydantic import Field

from msr_adapter.config.models.base import Model, allowed


class Negatives(Model):
    """The negatives of a test candidate list."""

    kind: Literal["uniform"] = "uniform"
    """Every item that is not excluded is equally likely."""
    count: int = Field(20, ge=1)
    """Negatives per test user."""
    exclude: Literal["touched"] = "touched"
    """Nothing the user ever interacted with, in any split, is a negative."""


class Confidence(Model):
    """Bootstrap over users."""

    level: float = Field(0.95, gt=0, lt=1)
    """Coverage of the interval."""
    samples: int = Field(1000, ge=100)
    """Bootstrap samples."""


class Protocol(Model):
    """What "good" means: one file in `eval/`."""

    name: str
    """Default: the file's name."""
    target: Literal["last"] = "last"
    """The item that is to be found: the user's last by time."""
    negatives: Negatives = Negatives()
    """What the target is ranked among."""
    metrics: tuple[Literal["auc", "gauc", "hr", "recall", "mrr", "ndcg"], ...] = (
        "auc", "gauc", "hr", "recall", "mrr", "ndcg",
    )  # fmt: skip
    """auc: pooled over users; gauc: mean of per-user AUCs; the others are cut off at each `k`."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = (3, 5, 10)
    """Cut-offs of the ranking metrics."""
    ties: Literal["expected"] = "expected"
    """Ties count with their expected value over all tie orders."""
    confidence: Confidence = Confidence()
    """Intervals over users."""


BaselineName = Literal["random", "popularity", "base"]


class Evaluate(Model):
    """How the trained model is judged."""

    protocol: Protocol = Field(json_schema_extra=allowed("a protocol's name, its path, or the protocol itself"))
    """Keys of its own are laid over the protocol that an `extends:` parent names."""
    baselines: tuple[BaselineName, ...] = ("random", "popularity", "base")
    """`base` is the recommender before fine-tuning. A generated shop adds the oracle by itself."""
