"""What scoring took, in tokens, pictures and passes: counts are exact where seconds are not."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace


@dataclass
class ScoringStats:
    """Running counts of one backend's scoring."""

    rows: int = 0
    """Prompts scored."""
    tokens_flat: int = 0
    """Tokens of their prompts: what a forward pass per prompt takes."""
    tokens_planned: int = 0
    """Tokens that sharing leaves to do."""
    tokens_least: int = 0
    """Tokens of the prefix trees, call by call: the limit."""
    tokens_processed: int = 0
    """Tokens put through the language model, padding included."""
    passes: int = 0
    """Forward passes."""
    images_shown: int = 0
    """Pictures in the prompts."""
    images_distinct: int = 0
    """Different ones, call by call."""
    images_encoded: int = 0
    """Pictures put through the vision tower."""
    unshared_rows: int = 0
    """Rows scored one prompt at a time because the model's cache or pictures cannot be shared."""
    reasons: set[str] = field(default_factory=set)
    """Why."""

    def passed(self, rows: int, tokens: int) -> None:
        """Count one forward pass over ``rows`` rows padded to ``tokens`` tokens."""
        self.passes += 1
        self.tokens_processed += rows * tokens

    def unshared(self, lengths: Sequence[int], images: Sequence[str]) -> None:
        """Count rows, by their tokens and the digests of their pictures, that are scored prompt by prompt."""
        self.rows += len(lengths)
        self.unshared_rows += len(lengths)
        self.tokens_flat += sum(lengths)
        self.tokens_planned += sum(lengths)
        self.images_shown += len(images)
        self.images_distinct += len(set(images))
        self.images_encoded += len(images)

    def add(self, other: "ScoringStats") -> None:
        """Add the counts of another backend, or of another call."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) | value if isinstance(value, set) else getattr(self, name) + value)

    def since(self, before: "ScoringStats") -> "ScoringStats":
        """Return what was counted after ``before``; all reasons."""
        counted = {name: value - getattr(before, name) for name, value in vars(self).items() if isinstance(value, int)}
        return replace(self, **counted)
