"""What the events of a shop's log mean."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from msr_adapter.config.schema.base import StrictModel, Weight, allowed

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
    shown: Words = ()
    """What says that an item was shown, and no more: `[impression]`. Such a row is no interaction and not seen; what
    else was shown with a target is drawn by `negatives.kind: impressions`, and `columns.impression` says what was shown
    together."""
    weight: dict[str, Weight] = Field({}, json_schema_extra=allowed("a mapping of words to numbers, 1 unless said"))
    """What one event counts, with up to three decimals: `{view: 0.2, cart: 0.5}`; words that are not named count 1. In
    the popularity of items (counted in the largest unit in which all weights are whole), in item-kNN and in the
    confidence of matrix factorisation; and of repeated events the heaviest stays. Nothing else knows weights."""
    words: dict[str, str] = Field(
        {}, json_schema_extra=allowed("a mapping of words of the column to words of a prompt")
    )
    """What templates call an event, as `{{ item.event }}` of a history: `{view: viewed, purchase: bought}`; words that
    are not named are said as the column has them."""
    same: Literal["moment", "day", "session"] = "moment"
    """Which events of a user with an item are one where `data.repeats` is keep: those of one time, those of one day
    (UTC), or those of one session (`columns.session`), of which the strongest stays: one that can be a target, then the
    heaviest, then the first."""
    unknown: Literal["error", "seen"] = "error"
    """Words that none of them names: refused with their counts, or taken as `seen`."""

    @model_validator(mode="after")
    def _words_are_of_one_kind(self) -> "EventsConfig":
        kinds = {"seen": self.seen, "negative": self.negative, "shown": self.shown}
        named = [*self.positive, *self.history, *(word for words in kinds.values() for word in words)]
        if not self.positive or not all(word.strip() for word in named):
            raise ValueError("positive needs a word, and none may be blank")
        kept = {*self.positive, *self.history}
        for kind, words in kinds.items():
            if both := sorted({*words} & kept):
                raise ValueError(f"{', '.join(both)}: {kind} means neither positive nor history")
            kept |= {*words}
        for key, given in (("weight", self.weight), ("words", self.words)):
            if unknown := sorted({*given} - {*self.positive, *self.history}):
                raise ValueError(f"{key} of {', '.join(unknown)}, which neither positive nor history names")
        weights = [self.weight.get(word, 1.0) for word in (*self.positive, *self.history)]
        if not any(weights) or any(abs(1000 * one - round(1000 * one)) > 1e-6 for one in weights):
            raise ValueError("weight: one must be above 0, and none may have more than three decimals")
        if any(not text.strip() for text in self.words.values()):
            raise ValueError("words: what templates say may not be blank")
        return self
