"""What is true of vLLM, flash-attention, Liger and bitsandbytes, by installed version; nothing is imported."""

from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import InvalidVersion, Version

from msr_adapter.doctor.diagnosis import State
from msr_adapter.llamafactory.kernels import (
    INSTALL_BITSANDBYTES,
    INSTALL_LIGER,
    LEAST_BITSANDBYTES,
    LEAST_LIGER,
    LIGER_SEEN,
    flash_attention_fault,
    installed,
)
from msr_adapter.llamafactory.versions import PINNED

Judgement = tuple[State, str, str]
"""State, what it means, what mends it."""

VLLM = "pip install -c constraints-vllm.txt 'msr-adapter[vllm]'"
_VLLM_SEEN = (
    "vLLM 0.20.2 to 0.23.0 can be installed beside msr; 0.24.0 to 0.26.0 need the same torch 2.11.0, but a newer "
    "starlette than LLaMA-Factory's gradio accepts; 0.27 and later need a newer torch"
)
_OWN = "keep it in an environment of its own, and use it as a server (backend: server)"
_EXACT_OVER_HTTP = "0.26"


def judge_vllm(version: str) -> Judgement:
    """Hold vLLM's own list against what is installed; ``version`` is empty where it is absent."""
    if not version:
        without = "no vLLM here; a vLLM server elsewhere can write the summaries and score (backend: server)"
        return "absent", f"{without}. {_VLLM_SEEN}", VLLM
    if unmet := _unmet("vllm"):
        return "warning", f"it needs {unmet}: it may not start. {_VLLM_SEEN}", f"{VLLM}, or {_OWN}"
    over_http = "exact" if _at_least(version, _EXACT_OVER_HTTP) else f"bounds (exact from {_EXACT_OVER_HTTP} on)"
    return "ok", f"it uses msr's torch; log-odds over HTTP are {over_http}", ""


def judge_flash_attention(version: str) -> Judgement:
    """Say whether fa2 can be used at all with the installed transformers."""
    fault = flash_attention_fault()
    default = "torch's own attention (sdpa) is the default and needs nothing"
    if fault:
        state: State = "warning" if version else "absent"
        return state, f"not used, and train.overrides.flash_attn: fa2 is refused: {fault}. {default}", ""
    if not version:
        return "absent", f"no train.overrides.flash_attn: fa2; {default}", ""
    return "ok", f"used with train.overrides.flash_attn: fa2; {default}", ""


def judge_liger(version: str) -> Judgement:
    """Say for which models Liger is on."""
    families = f"on by default on GPUs for SFT of {', '.join(sorted(LIGER_SEEN))}"
    if not version:
        return "absent", f"without it, the logits of all positions take memory; it would be {families}", INSTALL_LIGER
    if not _at_least(version, LEAST_LIGER):
        return "warning", f"older than {LEAST_LIGER}, which Qwen-VL needs with transformers 5: not used", INSTALL_LIGER
    return "ok", families, ""


def judge_bitsandbytes(version: str) -> Judgement:
    """Say whether weights can be loaded in 4 or 8 bits."""
    without = "no weights in 4 or 8 bits: no QLoRA, no model.quantization"
    if not version:
        return "absent", without, INSTALL_BITSANDBYTES
    if not _at_least(version, LEAST_BITSANDBYTES):
        return (
            "warning",
            f"older than {LEAST_BITSANDBYTES}, which transformers 5.6 needs: {without}",
            INSTALL_BITSANDBYTES,
        )
    return "ok", "", ""


def _unmet(name: str) -> str:
    """Return what a distribution asks of the libraries that msr is tied to and that is not installed, or nothing."""
    wanted = [Requirement(line) for line in metadata.requires(name) or ()]
    watched = {*PINNED, "transformers", "starlette"}
    found = [
        f"{one.name}{one.specifier} (installed: {have})" for one in wanted
        if one.name in watched and (one.marker is None or one.marker.evaluate({"extra": ""}))
        and (have := installed(one.name)) and not one.specifier.contains(have.split("+")[0], prereleases=True)
    ]  # fmt: skip
    return ", ".join(dict.fromkeys(found))


def _at_least(version: str, least: str) -> bool:
    try:
        return Version(version) >= Version(least)
    except InvalidVersion:  # a build of one's own
        return True
