"""Items and users as vectors, what is searched in them, and several retrievers in one."""

from typing import Literal

from pydantic import Field, model_validator

from msr_adapter.config.schema.base import Count, StrictModel, Weight, allowed

OWN = "own"
"""The model is the run's own."""

EmbeddingPart = Literal["title", "image", "summary"]


class EmbeddingConfig(StrictModel):
    """Items and users as vectors: `msr embed`, and the retrievers `embedding` and `fused`."""

    model: str = OWN
    """own: the hidden states of the run's trained recommender (the mean of its last layer over the tokens of the text
    and the image). Else a sentence-transformers model, a folder or a hub id, with the extra `embedding`; one that reads
    images too, such as CLIP, gets the image and the text, and the item is the mean of the two vectors."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    parts: tuple[EmbeddingPart, ...] = Field(
        ("title", "image", "summary"), min_length=1, json_schema_extra=allowed("a list of title, image, summary")
    )
    """What of an item is embedded, as far as it is there and the model can read it."""
    users: Literal["summary", "history"] = "summary"
    """What a user is searched by: the user summary, or the mean of the vectors of the history's items. Where one is
    missing, the other stands in for it, which is said."""
    item_prompt: str = ""
    """Written before the text of an item, for models that want it: `"passage: "`."""
    user_prompt: str = ""
    """Written before a user summary: `"query: "`."""
    batch_size: Count = 64
    """Texts or images of a forward pass, at most."""
    search: Literal["auto", "exact", "faiss"] = "auto"
    """exact: every item is compared, by a matrix product. faiss: an index that looks at some, and may miss a few; it
    needs the extra `embedding`. auto: exact up to a million items."""

    @property
    def own(self) -> bool:
        """Whether the vectors are hidden states of the run's own model."""
        return self.model == OWN

    @model_validator(mode="after")
    def _parts_are_distinct(self) -> "EmbeddingConfig":
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts: {', '.join(self.parts)} names one of them twice")
        return self


FusedName = Literal["popular", "item-knn", "embedding"]
"""The retrievers that may be fused: rows of `retrieval.retrievers`."""


class FusionConfig(StrictModel):
    """Several retrievers in one, `fused`: reciprocal rank fusion."""

    retrievers: tuple[FusedName, ...] = Field(
        ("popular", "item-knn", "embedding"), min_length=1,
        json_schema_extra=allowed("a list of popular, item-knn, embedding"),
    )  # fmt: skip
    """Whose lists are fused."""
    weights: tuple[Weight, ...] | None = Field(None, json_schema_extra=allowed("null, or a number for each retriever"))
    """What each of them counts, in their order; null: all the same."""
    k: Count = 60
    """An item at rank r of a list gains weight / (k + r): the larger, the less the first places stand out."""

    @model_validator(mode="after")
    def _weights_fit(self) -> "FusionConfig":
        if len(set(self.retrievers)) < len(self.retrievers):
            raise ValueError(f"retrievers: {', '.join(self.retrievers)} names one of them twice")
        if self.weights is not None and len(self.weights) != len(self.retrievers):
            raise ValueError(f"weights: {len(self.weights)} for {len(self.retrievers)} retrievers; give one for each")
        if self.weights is not None and not any(self.weights):
            raise ValueError("weights: all are 0, so that nothing is retrieved; give one of them a weight")
        return self
