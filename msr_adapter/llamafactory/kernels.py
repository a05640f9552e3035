"""Kernels of a training beyond torch's own: flash-attention and Liger, where they work and where they are refused.

With a kernel that it cannot use, LLaMA-Factory 0.9.5 warns and trains without it, or ends hours later.
"""

from importlib import metadata
from importlib.util import find_spec

from packaging.version import Version

from msr_adapter.config.schema import TrainConfig
from msr_adapter.errors import Problem
from msr_adapter.llamafactory.family_recognition import facts
from msr_adapter.llamafactory.installed import flash_attention_needs_sinks
from msr_adapter.llamafactory.parallelism import strategy_of

LIGER = "enable_liger_kernel"
FLASH = "flash_attn"
LIGER_TYPES = frozenset({
    "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4", "glm4v", "gpt_oss", "granite", "llama", "llava",
    "mistral", "mixtral", "mllama", "olmo2", "paligemma", "phi3", "qwen2", "qwen2_5_vl", "qwen2_vl", "qwen3",
    "qwen3_5", "qwen3_moe", "qwen3_next",
})  # fmt: skip
"""`model_type` of the models that LLaMA-Factory 0.9.5 applies Liger to. A test compares it with its source."""
LIGER_SEEN = frozenset({"gemma3", "llama", "llava", "qwen2", "qwen2_5_vl", "qwen2_vl", "qwen3"})
"""Those of the tested families among them, for which it is on unless the overrides say no. With Liger's forward pass
under transformers 5.6 their loss and gradients are the plain ones (on a processor, its kernels replaced by torch's)."""
LEAST_LIGER = "0.8.0"
"""The first with the `mm_token_type_ids` that Qwen-VL models of transformers 5 need; 0.7.0 has none."""
INSTALL_LIGER = f"pip install 'liger-kernel>={LEAST_LIGER}'"
LEAST_BITSANDBYTES = "0.46.1"
"""What transformers 5.6 asks for."""
INSTALL_BITSANDBYTES = f"pip install --upgrade 'bitsandbytes>={LEAST_BITSANDBYTES}'"
_FLASH_BY_ITSELF = "gemma2"
"""The model type for which LLaMA-Factory turns `auto` into fa2 where flash-attn is installed."""
_USE_SDPA = "Remove it: torch's own attention (sdpa) is the default"


def flash_attention_fault() -> str:
    """Return why flash-attention 2 ends every training with the installed transformers, or nothing; imports nothing."""
    if not flash_attention_needs_sinks():
        return ""
    return (f"transformers {installed('transformers')} asks for attention sinks in flash_attention_forward, which none "
            "of the tested families has: the first step would end in an AttributeError")  # fmt: skip


def check_kernels(train: TrainConfig) -> list[Problem]:
    """Return a problem for kernels that this training asks for and cannot have; imports no torch."""
    return [*_check_flash(train), *_check_liger(train)]


def _check_flash(train: TrainConfig) -> list[Problem]:
    asked, field = train.overrides.get(FLASH, "auto"), f"train.overrides.{FLASH}"
    known = facts(train.model)
    if asked == "auto" and known and known.model_type == _FLASH_BY_ITSELF and find_spec("flash_attn") is not None:
        if fault := flash_attention_fault():
            step = "Set train.overrides.flash_attn: disabled"
            return [Problem("", field, f"LLaMA-Factory would use fa2 for Gemma 2, but {fault}", "disabled", step)]
        return []
    if asked == "fa3":
        return [Problem("", field, "fa3: LLaMA-Factory 0.9.5 uses it only for gpt-oss", "auto or sdpa", _USE_SDPA)]
    if asked != "fa2":
        return []
    if fault := flash_attention_fault():
        return [Problem("", field, f"fa2: {fault}", "auto or sdpa", _USE_SDPA)]
    if find_spec("flash_attn") is None:
        found = "fa2, but flash-attn is not installed: LLaMA-Factory would warn and go on without it"
        return [Problem("", field, found, "auto or sdpa", _USE_SDPA)]
    return []


def _check_liger(train: TrainConfig) -> list[Problem]:
    field = f"train.overrides.{LIGER}"
    if train.overrides.get(LIGER) in (None, False):
        return []
    known = facts(train.model)
    if known is not None and known.model_type not in LIGER_TYPES:
        found = f"LLaMA-Factory 0.9.5 has no Liger kernels for {known.model_type}: it would warn and train without them"
        return [Problem("", field, found, "false", "Remove it")]
    if fault := _liger_fault():
        return [
            Problem("", field, fault, f"liger-kernel {LEAST_LIGER} or later", f"Run: {INSTALL_LIGER}, or remove it")
        ]
    return []


def liger_arguments(train: TrainConfig, *, cuda: bool) -> dict[str, object]:
    """Return LLaMA-Factory's switch for Liger where it is on by default: see `liger_note`."""
    return {LIGER: True} if not _why_no_liger(train, cuda=cuda) else {}


def liger_note(train: TrainConfig, *, cuda: bool) -> str:
    """Return one line: whether this training runs with Liger's kernels, and why."""
    if LIGER in train.overrides:
        return f"Liger kernels: {'on' if train.overrides[LIGER] else 'off'} (train.overrides.{LIGER})"
    if why := _why_no_liger(train, cuda=cuda):
        mend = f"; {INSTALL_LIGER}" if why == _liger_fault() else ""
        return f"Liger kernels: off ({why}{mend})"
    return f"Liger kernels: on (liger-kernel {installed('liger-kernel')}; train.overrides.{LIGER}: false for off)"


def _why_no_liger(train: TrainConfig, *, cuda: bool) -> str:
    """Return why Liger is not on by default, or nothing."""
    known = facts(train.model)
    if not cuda:
        return "there is no GPU here"
    if known is None:
        return f"the files of {train.model.path} are not on this machine"
    if known.model_type not in LIGER_SEEN:
        return f"{known.model_type} is not among {', '.join(sorted(LIGER_SEEN))}"
    if train.objective != "sft":
        return f"it saves memory only for sft, and the objective is {train.objective}"
    if strategy_of(train.launch).shares_weights:
        return f"its fused loss reads weights that {train.launch.strategy} splits between processes"
    return _liger_fault()


def _liger_fault() -> str:
    found = installed("liger-kernel")
    if not found:
        return "liger-kernel is not installed"
    if Version(found) < Version(LEAST_LIGER):
        return f"liger-kernel {found} is older than {LEAST_LIGER}, which transformers 5 needs"
    return ""


def installed(name: str) -> str:
    """Return the installed version of a distribution, or nothing."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
