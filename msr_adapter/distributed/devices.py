"""Which devices and how many CPU threads each worker of this machine gets."""

from collections.abc import Mapping, Sequence

from msr_adapter.config.schema import ExecutionConfig
from msr_adapter.errors import Problem, UserError
from msr_adapter.system import cpu_count, gpu_driver

_DEVICES = "CUDA_VISIBLE_DEVICES"
_THREADS = "OMP_NUM_THREADS"


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; no context is made on any."""
    if not gpu_driver():
        return []
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in environment.get(_DEVICES, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def environments(
    execution: ExecutionConfig, gpus: Sequence[str], parent: Mapping[str, str], *, small: bool
) -> list[dict[str, str]]:
    """Return the environment of each worker: its own GPUs, or its share of the CPU's threads.

    With ``gpus_per_worker: 0`` it sees no GPU, also where ``gpus`` is empty because nobody looked for them. ``small``
    models run best in one thread, which the backend sees to. `UserError` when the GPUs do not suffice.
    """
    shares = share_gpus(execution.workers, execution.gpus_per_worker, gpus)
    made = [dict(parent) for _ in shares]
    for environment, share in zip(made, shares, strict=True):
        if gpus or execution.gpus_per_worker == 0:
            environment[_DEVICES] = ",".join(share)
        if not share and not small:
            environment.setdefault(_THREADS, str(threads(execution.workers)))
    return made


def threads(workers: int) -> int:
    """Return the CPU threads of each of ``workers`` on this machine."""
    return max(1, cpu_count() // workers)


def share_gpus(workers: int, each: float | None, gpus: Sequence[str]) -> list[list[str]]:
    """Return the GPUs of each worker: ``each`` of them (None: one, where there are any), or a part of one."""
    each = float(bool(gpus)) if each is None else each
    if not each:
        return [[] for _ in range(workers)]
    if each < 1:
        fit = int(1 / each + 1e-9)  # 1 / each may be a hair below the whole number that was meant
        owners = [[name] for name in gpus for _ in range(fit)]
    else:
        if each != int(each):
            raise UserError(
                Problem("", "execution.gpus_per_worker", f"{each:g}", "a whole number, or a part of one GPU", "")
            )
        size = int(each)
        owners = [list(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)]
    if len(owners) < workers:
        found = f"{workers} workers with {each:g} GPU each, but this machine has {len(gpus)} and room for {len(owners)}"
        step = "Set fewer execution.workers, or gpus_per_worker: 0.5 to have two share one"
        raise UserError(Problem("", "execution.workers", found, next_step=step))
    return owners[:workers]
