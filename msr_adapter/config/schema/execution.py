"""Where the work is done: the devices of the training, the workers of summaries and scores."""

from typing import Annotated, Literal

from pydantic import Field

from msr_adapter.config.schema.base import MOST_PROCESSES, Seconds, StrictModel, allowed

Strategy = Literal["ddp", "zero-2", "zero-3", "fsdp"]


class LaunchConfig(StrictModel):
    """How many processes train, on how many machines, and how they share the work."""

    nodes: int = Field(1, ge=1, le=MOST_PROCESSES)
    """Machines. With several, start the same `msr` command on each of them (docs/launch.md): they must see the run
    folder, the model and the images at the same paths."""
    processes: Annotated[int, Field(ge=1, le=MOST_PROCESSES)] | Literal["auto"] = Field(
        "auto", json_schema_extra=allowed("a whole number, 1 to 65,536, or auto")
    )
    """On each machine. auto: one for each visible GPU, and one where there is none. `batch_size` and
    `gradient_accumulation` are those of each process: all of them together take `nodes` x `processes` times as many
    rows a step."""
    strategy: Strategy = "ddp"
    """What each process holds. ddp: everything. zero-2: the weights, and its share of gradients and optimizer states.
    zero-3 and fsdp: its share of the weights too. The two zeros need deepspeed."""
    engine: Literal["torchrun", "ray"] = "torchrun"
    """Who starts the other machines' processes, where `nodes` is above 1. torchrun: you or Slurm, by running msr on
    each. ray: a running Ray cluster, by one command on one machine."""
    address: str | None = None
    """Host name of the first machine; default: `MASTER_ADDR` of the environment, or Slurm's first host. With engine
    `ray`, where the cluster is; default: Ray's own, `RAY_ADDRESS` or the cluster on this machine."""
    port: int = Field(29_500, ge=1, le=65_535)
    """Port of the first machine on which the rendezvous takes place."""
    wait: Seconds = 3_600
    """Seconds that the other machines wait for the first to begin: it builds the data set before."""


class ExecutionConfig(StrictModel):
    """Where summaries and scores are computed. Nothing of it changes a result or makes a stage run again."""

    engine: Literal["local", "ray"] = "local"
    """local: on this machine. ray: on a Ray cluster (`pip install 'msr-adapter[ray]'`); see `docs/distribution.md`."""
    workers: int = Field(1, ge=1, le=MOST_PROCESSES)
    """Processes that each load the model and answer shards. One local worker is this process itself."""
    gpus_per_worker: float | None = Field(None, ge=0, le=MOST_PROCESSES)
    """GPUs of each worker; 0.5: two share one; 0: CPU. null: one where there are any; for one local worker, all. An
    engine of vLLM has one, and is split over several only where their number stands here."""
    address: str | None = Field(
        None,
        pattern=r"^(auto|[^\s:/]+:\d{1,5})$",
        json_schema_extra=allowed("host:port of a Ray cluster, auto (the one this machine is part of), or null"),
    )
    """Read when `engine` is ray. null: a cluster on this machine alone, which begins and ends with the command."""
