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
    seen: Words = ()
    """What is neither: `[remove_from_cart]`. Its items are known as seen, so that they are never negatives of that user
    and never recommended."""
    unknown: Literal["error", "seen"] = "error"
    """Words that none of the three names: refused with their counts, or taken as `seen`."""

    @model_validator(mode="after")
    def _words_are_of_one_kind(self) -> "EventsConfig":
        if not self.positive or not all(word.strip() for word in (*self.positive, *self.history, *self.seen)):
            raise ValueError("positive needs a word, and none may be blank")
        if both := sorted({*self.seen} & {*self.positive, *self.history}):
            raise ValueError(f"{', '.join(both)}: seen means neither positive nor history")
        return self
