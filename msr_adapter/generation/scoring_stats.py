"""What scoring took, in tokens, images and passes: counts are exact where seconds are not."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace


@dataclass(frozen=True)
class Trial:
    """Prompts that an engine and transformers both answered, before the engine was trusted."""

    prompts: int
    difference: float
    """Largest one between two log-odds, or between two log-probabilities of one token of a text."""
    allowed: float

    def with_another(self, other: "Trial | None") -> "Trial":
        """Return what both trials say together."""
        if other is None:
            return self
        return Trial(self.prompts + other.prompts, max(self.difference, other.difference), self.allowed)

    def since(self, before: "Trial | None") -> "Trial | None":
        """Return this without the prompts that ``before`` tells of; None where it tells of all."""
        left = self.prompts - (before.prompts if before else 0)
        return Trial(left, self.difference, self.allowed) if left else None


@dataclass
class ScoringStats:
    """Running counts of one backend's scoring, and why it did not share prefixes where it did not."""

    rows: int = 0
    """Prompts scored."""
    tokens_flat: int = 0
    """Tokens of their prompts: what one forward pass per prompt would process."""
    tokens_planned: int = 0
    """Tokens that are left to process once prefixes are shared."""
    tokens_least: int = 0
    """Tokens of the prefix trees, call by call: the lower limit."""
    tokens_processed: int = 0
    """Tokens put through the language model, padding included."""
    passes: int = 0
    """Forward passes."""
    images_shown: int = 0
    """Images in the prompts."""
    images_distinct: int = 0
    """Different ones, call by call."""
    images_encoded: int = 0
    """Images put through the vision tower."""
    unshared_rows: int = 0
    """Rows scored one prompt at a time because the model's KV cache or image features cannot be shared."""
    reasons: set[str] = field(default_factory=set)
    """Why they were."""
    trial: Trial | None = None
    """How an engine compared with transformers, each time that one was started; None: nobody compared."""

    def counts(self) -> dict[str, int]:
        """Return every count by its name."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, int)}

    def add_pass(self, rows: int, tokens: int) -> None:
        """Count one forward pass over ``rows`` rows padded to ``tokens`` tokens."""
        self.passes += 1
        self.tokens_processed += rows * tokens

    def add_unshared(self, lengths: Sequence[int], images: Sequence[str]) -> None:
        """Count rows, by their tokens and the digests of their images, that are scored prompt by prompt."""
        self.rows += len(lengths)
        self.unshared_rows += len(lengths)
        self.tokens_flat += sum(lengths)
        self.tokens_planned += sum(lengths)
        self.images_shown += len(images)
        self.images_distinct += len(set(images))
        self.images_encoded += len(images)

    def add(self, other: "ScoringStats") -> None:
        """Add the counts and reasons of another backend, or of another call."""
        for name, value in other.counts().items():
            setattr(self, name, getattr(self, name) + value)
        self.reasons |= other.reasons
        self.trial = other.trial.with_another(self.trial) if other.trial else self.trial

    def since(self, before: "ScoringStats") -> "ScoringStats":
        """Return what was counted after ``before``, with all reasons."""
        trial = self.trial.since(before.trial) if self.trial else None
        counted = replace(self, reasons=set(self.reasons), trial=trial)
        for name, value in before.counts().items():
            setattr(counted, name, getattr(counted, name) - value)
        return counted
