"""Which checkpoint of a training is kept."""

from pydantic import Field

from msr_adapter.config.models.base import Model, allowed


class Selection(Model):
    """How checkpoints are judged: by how they rank validation users' candidates, as the trained model is later judged
    on test users'."""

    metric: str = Field(
        "auc",
        pattern=r"^(auc|gauc|(hr|recall|precision|mrr|map|ndcg)@[1-9][0-9]*)$",
        json_schema_extra=allowed(
            "auc, gauc, or hr, recall, precision, mrr, map or ndcg with a cut-off, such as ndcg@10"
        ),
    )
    """The highest wins; among equals the earliest."""
    users: int = Field(500, ge=1)
    """Validation users that are asked about, drawn by the pipeline's seed where there are more."""
    patience: int | None = Field(None, ge=1)
    """Training stops after so many checkpoints in a row that are no better than the best before them; it waits while
    each is judged, and the model is in memory twice then. null: train to the end, then judge all."""
