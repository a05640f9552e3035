"""What the events of a shop's log mean."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from msr_adapter.config.schema.base import StrictModel, allowed

Words = Annotated[tuple[str, ...], Field(json_schema_extra=allowed("a list of words as the column has them"))]


class EventsConfig(StrictModel):
    """What the events of a shop's log mean: of the words of a column, which are bought, which merely looked at."""

    column: str
    """Column of the log that says the event: view, cart, purchase."""
    positive: Words
    """What can be a target: `[purchase]`. It is history as well, once it is past."""
    history: Words = ()
    """What else stands in histories, but is no target: `[view, cart]`."""
    negative: Words = ()
    """What says no: `[remove_from_cart, dislike]`. An item of which that is the user's last word before a target is no
    history of it, but one of its negatives in training (`train.negatives.rejected`); one of which it is the last word
    of all is no target, and is never recommended."""
    seen: Words = ()
    """What is none of these: `[share]`. Its items are known as seen, so that they are never negatives of that user
    and never recommended."""
    unknown: Literal["error", "seen"] = "error"
    """Words that none of them names: refused with their counts, or taken as `seen`."""

    @model_validator(mode="after")
    def _words_are_of_one_kind(self) -> "EventsConfig":
        kinds = {"seen": self.seen, "negative": self.negative}
        named = [*self.positive, *self.history, *(word for words in kinds.values() for word in words)]
        if not self.positive or not all(word.strip() for word in named):
            raise ValueError("positive needs a word, and none may be blank")
        kept = {*self.positive, *self.history}
        for kind, words in kinds.items():
            if both := sorted({*words} & kept):
                raise ValueError(f"{', '.join(both)}: {kind} means neither positive nor history")
            kept |= {*words}
        return self
