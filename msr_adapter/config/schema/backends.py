"""The backends: who can answer for a model, and all that the rest of the program has to know of each.

A new backend is one row here and one file in `msr_adapter/backends/`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class BackendRow:
    """One backend."""

    name: str
    """`model.backend` in a pipeline."""
    make: str
    """``module:function`` that takes a `ModelConfig` and `Weights` and returns a `Backend`. A string, so that this
    table can stand below everything that asks it, and torch is imported only for a backend that needs it."""
    make_scorer: str | None
    """``module:function`` that takes the `ModelConfig` of `evaluate.scorer`, the trained one and `Weights`; None: it
    cannot be `evaluate.scorer`."""
    local: bool
    """The model's files are loaded on this machine: its template, adapter, precision and memory are ours to see to."""
    trainable: bool
    """It may be `train.model`."""
    remote: bool
    """It is asked over HTTP at the address in `server`, and nothing is known of its weights."""
    spreads: bool
    """Each of several workers can have one of its own (`execution.workers`)."""
    hosted: bool = False
    """It lives in a worker's process in any case, so that the worker can be replaced when it dies."""
    quantizes: bool = True
    """It loads weights in fewer bits as training does (`model.quantization`)."""


BACKENDS = (
    BackendRow(
        name="huggingface",
        make="msr_adapter.backends:make_local",
        make_scorer=None,
        local=True,
        trainable=True,
        remote=False,
        spreads=True,
    ),
    BackendRow(
        name="vllm",
        make="msr_adapter.backends.vllm.backend:make",
        make_scorer=None,
        local=True,
        trainable=True,
        remote=False,
        spreads=True,
        hosted=True,
        quantizes=False,
    ),
    BackendRow(
        # It stands for one of the two above, by what is installed: `backends.vllm.installed.choose`.
        name="auto",
        make="msr_adapter.backends:make_chosen",
        make_scorer=None,
        local=True,
        trainable=True,
        remote=False,
        spreads=True,
    ),
    BackendRow(
        name="server",
        make="msr_adapter.backends.openai:make",
        make_scorer="msr_adapter.backends.openai:make_scorer",
        local=False,
        trainable=False,
        remote=True,
        # A server has workers of its own; `server.concurrency` bounds what one process asks it.
        spreads=False,
    ),
    BackendRow(
        name="scripted",
        make="msr_adapter.backends.scripted:make",
        make_scorer="msr_adapter.backends.scripted:make_scorer",
        local=False,
        # It stands in for any model in tests: nothing is ever trained with it for its own sake.
        trainable=True,
        remote=False,
        spreads=True,
    ),
)

# A type checker cannot read a `Literal` that is made of a table; pydantic can, and refuses any other name.
if TYPE_CHECKING:
    BackendName = str
else:
    BackendName = Literal[tuple(row.name for row in BACKENDS)]


def backend_row(name: str) -> BackendRow:
    """Return the row of a backend. `KeyError` for a name that is in none."""
    return {row.name: row for row in BACKENDS}[name]
