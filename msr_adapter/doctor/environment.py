"""Environment variables that would change a run; of secrets only whether they are set."""

import re
from collections.abc import Mapping

from msr_adapter.doctor.diagnosis import Finding, State
from msr_adapter.llamafactory.launcher import UNSET

_SECTION = "Environment"
_SECRET = re.compile(r"TOKEN|KEY|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)

KNOWN = {
    "HF_TOKEN": "gives access to gated models",
    "HUGGING_FACE_HUB_TOKEN": "gives access to gated models",
    "WANDB_API_KEY": "gives access to Weights & Biases, for tracking: {kind: wandb}",
    "MLFLOW_TRACKING_URI": "where tracking: {kind: mlflow} sends runs, unless tracking.server says so",
    "MLFLOW_TRACKING_TOKEN": "gives access to an MLflow server",
    "HF_HOME": "where models and data sets are kept",
    "HF_HUB_CACHE": "where models are kept",
    "HF_ENDPOINT": "models come from this address",
    "HF_HUB_OFFLINE": "1: models come only from the cache",
    "TRANSFORMERS_OFFLINE": "1: models come only from the cache",
    "HF_DATASETS_CACHE": "msr gives each training a cache of its own",
    "HF_HUB_ENABLE_HF_TRANSFER": "faster downloads, with worse error messages",
    "USE_MODELSCOPE_HUB": "1: models come from ModelScope, not from the Hugging Face hub",
    "USE_OPENMIND_HUB": "1: models come from openMind, not from the Hugging Face hub",
    "CUDA_VISIBLE_DEVICES": "only these GPUs are visible",
    "CUDA_DEVICE_ORDER": "how GPUs are numbered",
    "CUDA_LAUNCH_BLOCKING": "1: much slower, for debugging",
    "PYTORCH_CUDA_ALLOC_CONF": "how GPU memory is allocated",
    "PYTORCH_ALLOC_CONF": "how GPU memory is allocated",
    "OMP_NUM_THREADS": "processor threads per process",
    "MKL_NUM_THREADS": "processor threads per process",
    "TOKENIZERS_PARALLELISM": "whether tokenizers use several threads",
    "FORCE_TORCHRUN": "1: LLaMA-Factory starts torchrun even for one device",
    "NPROC_PER_NODE": "processes per machine under torchrun",
    "NNODES": "machines under torchrun",
    "NODE_RANK": "number of this machine under torchrun",
    "MASTER_ADDR": "first machine under torchrun",
    "MASTER_PORT": "port of the first machine under torchrun",
    "OPTIM_TORCH": "0: LLaMA-Factory leaves torch's DDP settings alone",
    "RECORD_VRAM": "1: LLaMA-Factory logs GPU memory",
    "DISABLE_VERSION_CHECK": "1: LLaMA-Factory does not check versions",
    "PYTHONPATH": "folders searched before the installed libraries; may shadow them",
    "PYTHONHASHSEED": "the order of sets",
    "HTTP_PROXY": "downloads go through it",
    "HTTPS_PROXY": "downloads go through it",
}
"""Variable -> what it does."""


def variables(environment: Mapping[str, str]) -> list[Finding]:
    """Return a finding for each known variable that is set, and whether HF_TOKEN is."""
    found = [_known(name, environment[name]) for name in KNOWN if name in environment]
    if "HF_TOKEN" not in environment:
        found.insert(0, Finding(_SECTION, "HF_TOKEN", "ok", "not set", "gated models cannot be downloaded"))
    return found + [
        Finding(_SECTION, name, "warning", shown(name, environment[name]),
                "would change what LLaMA-Factory trains: msr unsets it for its trainer", f"unset {name}")
        for name in UNSET if name in environment
    ]  # fmt: skip


def shown(name: str, value: str) -> str:
    """Return a value as it may be printed: nothing of secrets, and no user names or passwords within addresses."""
    if _SECRET.search(name):
        return "set"
    return re.sub(r"//[^/@]*@", "//...@", value)


def _known(name: str, value: str) -> Finding:
    doubtful = (name in {"USE_MODELSCOPE_HUB", "USE_OPENMIND_HUB", "DISABLE_VERSION_CHECK", "CUDA_LAUNCH_BLOCKING"}
                and value.lower() in {"1", "true", "y"})  # fmt: skip
    hidden = name == "CUDA_VISIBLE_DEVICES" and value in {"", "-1"}
    means = "hides every GPU" if hidden else KNOWN[name]
    state: State = "warning" if doubtful or hidden else "ok"
    return Finding(_SECTION, name, state, shown(name, value), means, f"unset {name}" if state != "ok" else "")
