"""What clients send: the bodies of requests, as the OpenAPI document shows them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

MOST_RESULTS = 1_000
_LONGEST_HISTORY = 10_000
_LONGEST_ID = 1_000
_LONGEST_TEXT = 20_000
_EARLIEST_MS = 100_000_000_000
"""In 1973: a smaller number is seconds, or no time at all."""

Id = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=_LONGEST_ID)]
Text = Annotated[str, StringConstraints(strict=True, max_length=_LONGEST_TEXT)]
Strictly = Annotated[bool, Field(strict=True)]


class MessageModel(BaseModel):
    """A part of a request; a field that nobody knows is an error."""

    model_config = ConfigDict(extra="forbid")


class InteractionMessage(MessageModel):
    """One interaction of a user."""

    item_id: Id
    timestamp: int | str | None = None
    """Milliseconds since 1970, or a text in ISO 8601; all interactions of a request have one, or none has."""

    @field_validator("timestamp", mode="before")
    @classmethod
    def _read_time(cls, value: object) -> int | None:
        if value is None:
            return None
        allowed = "give milliseconds since 1970, or a text such as 2024-05-01T12:00:00Z"
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError(f"{value!r} is not a time; {allowed}")
        if isinstance(value, int):
            if not _EARLIEST_MS <= value < 100 * _EARLIEST_MS:
                raise ValueError(f"{value} is not in milliseconds since 1970 (seconds?); {allowed}")
            return value
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"the text {value[:40]!r} is not a time; {allowed}") from None
        if moment.tzinfo is None:
            raise ValueError(f"the time {value[:40]!r} has no time zone; add Z for UTC, or an offset such as +02:00")
        return round(moment.timestamp() * 1000)

    @property
    def milliseconds(self) -> int | None:
        """The time in milliseconds since 1970."""
        return self.timestamp if isinstance(self.timestamp, int) else None


History = Annotated[list[Id | InteractionMessage], Field(max_length=_LONGEST_HISTORY)]


class UserMessage(MessageModel):
    """Who is judged for: a user of the log, a history, or a user of the log with what came later."""

    user_id: Id | None = None
    """A user of the log."""
    history: History | None = None
    """Item ids, oldest first, or objects with `item_id` and `timestamp`; joined to what the log has of `user_id`."""

    @model_validator(mode="after")
    def _check_times(self) -> Any:
        told = [one.milliseconds is not None for one in self.history or [] if isinstance(one, InteractionMessage)]
        if any(told) and (not all(told) or len(told) < len(self.history or [])):
            raise ValueError("some interactions of the history have a timestamp and others have none; give all or none")
        return self


class RecommendMessage(UserMessage):
    """`POST /v1/recommend`."""

    candidates: Id | Annotated[list[Id], Field(min_length=1)] | None = None
    """A retriever of the server such as `popular:200`, or a list of item ids; by default the server's first."""
    k: Annotated[int, Field(strict=True, ge=1, le=MOST_RESULTS)] = 10
    """Items in the answer, at most."""
    exclude_seen: Strictly | None = None
    """Whether what the user has seen is left out. Default: yes; under `data.repeats: keep` what the user had may come
    again."""
    unknown_users: Literal["error", "fallback"] = "error"
    """For a user in no log without a history: an error, or the most popular candidates."""
    explain: Strictly = False
    """Whether the answer has the user summary after each block of the history."""


class PairMessage(UserMessage):
    """One user and one item."""

    summary: Text | None = None
    """A user summary in place of a history."""
    item_id: Id | None = None
    """An item of the catalogue."""
    title: Text | None = None
    """The title of an item that the catalogue lacks; it has no image."""

    @model_validator(mode="after")
    def _check_pair(self) -> Any:
        if (self.item_id is None) == (self.title is None):
            raise ValueError("a pair has either item_id or title; give one of them")
        if self.summary is not None and (self.user_id is not None or self.history is not None):
            raise ValueError("summary stands in place of user_id and history; give one of them")
        return self


class ScoreMessage(MessageModel):
    """`POST /v1/score`."""

    pairs: Annotated[list[PairMessage], Field(min_length=1)]


class QueryMessage(UserMessage):
    """A query as an object."""

    summary: Text | None = None

    @model_validator(mode="after")
    def _check_query(self) -> Any:
        if (self.summary is None) == (self.user_id is None and self.history is None):
            raise ValueError("a query has either summary, or user_id or history")
        return self


class DocumentMessage(BaseModel):
    """A document as an object; further fields are allowed, as in Cohere's, and not read."""

    model_config = ConfigDict(extra="allow")

    item_id: Id | None = None
    """An item of the catalogue, with its title and image."""
    text: Text | None = None
    """What stands in place of a title."""
    title: Text | None = None

    @model_validator(mode="after")
    def _check_document(self) -> Any:
        if all(one is None for one in (self.item_id, self.text, self.title)):
            raise ValueError("a document has item_id, text or title")
        return self


class RerankMessage(MessageModel):
    """`POST /v1/rerank`, in the shape of Cohere's."""

    query: Annotated[Text, StringConstraints(min_length=1)] | QueryMessage
    """A user summary; or `user_id`, `history` or `summary` in an object, which may be written as a text too."""
    documents: Annotated[list[Text | DocumentMessage], Field(min_length=1)]
    """Item ids or titles as texts, or objects with `item_id`, `text` or `title`."""
    documents_are: Literal["auto", "ids", "texts"] = "auto"
    """What documents that are texts are; auto: ids if all of them are, texts if none is."""
    top_n: Annotated[int, Field(strict=True, ge=1)] | None = None
    return_documents: Strictly = False
    model: Text | None = None
    """Taken, and not read: there is one model."""
    rank_fields: list[Text] | None = None
    max_chunks_per_doc: int | None = None
    max_tokens_per_doc: int | None = None
    priority: int | None = None


FIELDS: dict[str, list[str]] = {
    model.__name__: list(model.model_fields)
    for model in (RecommendMessage, PairMessage, ScoreMessage, RerankMessage, QueryMessage, InteractionMessage)
}
"""The fields of every message, by its name."""
