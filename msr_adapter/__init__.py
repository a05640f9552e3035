"""A declarative multimodal sequential recommender (MLLM-MSR) on top of LLaMA-Factory."""

__version__ = "0.3.0"
