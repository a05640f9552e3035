"""Imports libraries in a process of its own and says as JSON what each is, or why it cannot be imported.

Called by path: ``python -P probe_script.py torch implicit``. Nothing of ours is imported: whatever breaks here breaks
alone. As soon as one is known, a line that begins with `MARK` says it.
"""

import importlib
import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

MARK = "msr-probe "


def failure(error: BaseException) -> str:
    """Return the kind of an error and its first line."""
    lines = str(error).strip().splitlines()
    return type(error).__name__ + (f": {lines[0]}" if lines else "")


def version_of(name: str) -> dict[str, str]:
    """Import a library; return its version, or its failure."""
    try:
        module = importlib.import_module(name)
    except BaseException as error:  # a broken binary raises anything
        return {"error": failure(error)}
    return {"version": str(getattr(module, "__version__", ""))}


def torch_trio() -> dict[str, Any]:
    """Return torch with its build, threads and devices, and the libraries that must match it."""
    import torch

    found: dict[str, Any] = {
        "version": torch.__version__, "cuda": torch.version.cuda, "hip": torch.version.hip,
        "threads": torch.get_num_threads(), "mps": torch.backends.mps.is_available(), "devices": [],
    }  # fmt: skip
    for name in ("torchvision", "torchaudio"):
        found[name] = version_of(name)
    if "version" in found["torchvision"]:
        try:
            torch.ops.torchvision.nms  # noqa: B018  # raises where the compiled half is missing
        except BaseException as error:
            found["torchvision"] = {"error": failure(error)}
    try:
        found["devices"] = [device(torch, index) for index in range(torch.cuda.device_count())]
    except BaseException as error:
        found["device_error"] = failure(error)
    return found


def device(torch: Any, index: int) -> dict[str, Any]:
    """Return name, compute capability, memory in bytes and bfloat16 support of one GPU."""
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    return {
        "name": properties.name, "capability": [properties.major, properties.minor], "total_bytes": total,
        "free_bytes": free, "bfloat16": bool(torch.version.hip) or properties.major >= 8,
    }  # fmt: skip


def llamafactory() -> dict[str, str]:
    """Import what a training imports."""
    importlib.import_module("llamafactory.train.tuner")
    return {"version": importlib.import_module("importlib.metadata").version("llamafactory")}


PROBES: dict[str, Callable[[], dict[str, Any]]] = {"torch": torch_trio, "llamafactory": llamafactory}


def main(names: list[str]) -> None:
    """Print what is known of each library, one after the other: later ones need not import again what they share."""
    warnings.simplefilter("ignore")
    for name in names:
        try:
            found = PROBES[name]() if name in PROBES else version_of(name)
        except BaseException as error:
            found = {"error": failure(error)}
        # Libraries print while they are imported, some without a line end: the answer begins a line of its own.
        sys.stdout.flush()
        print("\n" + MARK + json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
