"""Where summaries and scores are computed."""

from typing import Literal

from pydantic import Field

from msr_adapter.config.models.base import Model, allowed


class Execution(Model):
    """Where summaries and scores are computed. Nothing of it changes a result or makes a stage run again."""

    engine: Literal["local", "ray"] = "local"
    """local: on this machine. ray: on a Ray cluster (`pip install 'msr-adapter[ray]'`); see `docs/distribution.md`."""
    workers: int = Field(1, ge=1)
    """Processes that each load the model and answer shards. One local worker is this process itself."""
    gpus_per_worker: float | None = Field(None, ge=0, json_schema_extra=allowed("a number, at least 0, or null"))
    """GPUs of each worker; 0.5: two share one; 0: CPU. null: one where there are any; for one local worker, all."""
    address: str | None = Field(
        None,
        pattern=r"^(auto|[^\s:/]+:\d{1,5})$",
        json_schema_extra=allowed("host:port of a Ray cluster, auto (the one this machine is part of), or null"),
    )
    """Read when `engine` is ray. null: a cluster on this machine alone, which begins and ends with the command."""
