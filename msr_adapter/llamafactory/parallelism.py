"""How several processes share a model: one table of strategies, with LLaMA-Factory's arguments for each.

DeepSpeed's and FSDP's settings stand in the training YAML itself: LLaMA-Factory's wheel brings no files for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec

from msr_adapter.config.schema.execution import LaunchConfig, Strategy
from msr_adapter.errors import Problem

_BUCKET = 200_000_000
"""Values in one message between processes: 400 MB in half precision."""

_DEEPSPEED: dict[str, object] = {
    # What the trainer knows already: one place sets it.
    **dict.fromkeys(
        ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"),
        "auto"),
    "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto"},
    "zero_allow_untested_optimizer": True,
}  # fmt: skip

_ZERO_2 = {
    "stage": 2, "contiguous_gradients": True, "overlap_comm": True, "reduce_scatter": True,
    "reduce_bucket_size": _BUCKET, "allgather_partitions": True, "allgather_bucket_size": _BUCKET,
}  # fmt: skip
_ZERO_3 = {
    "stage": 3, "contiguous_gradients": True, "overlap_comm": True,
    # By the width of the model.
    "reduce_bucket_size": "auto", "stage3_prefetch_bucket_size": "auto", "stage3_param_persistence_threshold": "auto",
    # Otherwise the saved weights are empty.
    "stage3_gather_16bit_weights_on_model_save": True,
}  # fmt: skip

_FSDP = {
    "fsdp_version": 2, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "reshard_after_forward": True,
    # One whole file, as without FSDP: what scores, resumes and exports reads nothing else.
    "state_dict_type": "FULL_STATE_DICT",
    "cpu_ram_efficient_loading": False,
}  # fmt: skip


@dataclass(frozen=True)
class ParallelStrategy:
    """One value of `train.launch.strategy`, with all that depends on it."""

    name: Strategy
    arguments: Mapping[str, object] = field(default_factory=dict)
    """Of LLaMA-Factory, where several processes train."""
    library: str = ""
    """What it needs beyond our own dependencies."""
    shares_weights: bool = False
    """Each process holds its share of the weights, not all of them."""
    shares_optimizer: bool = False
    """Each process holds its share of gradients and optimizer states."""
    merges_adapters: bool = True
    """LLaMA-Factory merges earlier adapters into the model before it adds a new one."""


STRATEGIES: tuple[ParallelStrategy, ...] = (
    ParallelStrategy("ddp"),
    ParallelStrategy(
        "zero-2", {"deepspeed": {**_DEEPSPEED, "zero_optimization": _ZERO_2}}, "deepspeed", shares_optimizer=True
    ),
    ParallelStrategy(
        "zero-3", {"deepspeed": {**_DEEPSPEED, "zero_optimization": _ZERO_3}}, "deepspeed",
        shares_weights=True, shares_optimizer=True, merges_adapters=False,
    ),
    ParallelStrategy(
        "fsdp", {"fsdp": "full_shard auto_wrap", "fsdp_config": _FSDP}, shares_weights=True, shares_optimizer=True
    ),
)  # fmt: skip

ENGINE_LIBRARIES: Mapping[str, str] = {"ray": "ray"}
"""Engine that starts the processes -> the library it needs beyond our own dependencies."""


def strategy_of(launch: LaunchConfig) -> ParallelStrategy:
    """Return the row of `train.launch.strategy`."""
    return next(row for row in STRATEGIES if row.name == launch.strategy)


def parallel_arguments(launch: LaunchConfig, world: int, *, cuda: bool) -> dict[str, object]:
    """Return the arguments of ``world`` processes; none for a single one, which has nobody to share with."""
    if world == 1:
        return {}
    return {**strategy_of(launch).arguments} | ({} if cuda else {"ddp_backend": "gloo"})


def check_launch(launch: LaunchConfig, where: str) -> list[Problem]:
    """Return a problem for every library that is absent, and for what a cluster cannot be asked; imports nothing."""
    engine = launch.engine if launch.nodes > 1 else ""
    needed = [("strategy", launch.strategy, strategy_of(launch).library),
              ("engine", engine, ENGINE_LIBRARIES.get(engine, ""))]  # fmt: skip
    problems = [
        Problem(where, f"train.launch.{key}", f"{value} needs {library}, which is not installed", "",
                f"pip install {library}")
        for key, value, library in needed if library and find_spec(library) is None
    ]  # fmt: skip
    if engine == "ray" and launch.processes == "auto":
        found = "auto: the GPUs of a Ray cluster's machines are not known here"
        problems.append(Problem(where, "train.launch.processes", found, "the number of processes on each machine"))
    return problems
