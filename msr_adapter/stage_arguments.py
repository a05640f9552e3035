"""What every stage function is handed beside its config: the folders it reads, what renders and asks, and the job.

A stage is `stage(config, dirs, client, job)`; each of the three stands for arguments that always travel together.
"""

from dataclasses import dataclass
from pathlib import Path

from msr_adapter.generation import Backend, CompletionCache
from msr_adapter.progress import Reporter
from msr_adapter.prompts import Prompts


@dataclass(frozen=True)
class Job:
    """One piece of work: where it writes, how it reports, and the seed of every draw it makes."""

    out: Path
    """Folder that the stage fills; it exists and is renamed into place when the stage is done."""
    reporter: Reporter
    seed: int = 0


@dataclass(frozen=True)
class Client:
    """What renders prompts, answers them, and remembers the answers."""

    prompts: Prompts
    backend: Backend | None
    """None where the stage's mode asks no model."""
    cache: CompletionCache

    def model(self) -> Backend:
        """Return the back end, for a mode that asks one."""
        if self.backend is None:
            raise ValueError("this mode asks a model, and there is no back end")
        return self.backend


@dataclass(frozen=True)
class StageDirs:
    """The folders of a run's stages, as later stages read them.

    A command that works on other users than the run's (`msr recommend`) replaces the folders it has made itself.
    """

    data: Path
    """Tables of the data stage: items, interactions, examples, candidates."""
    examples: Path
    """Folder of the examples whose histories are summarised: ``data``, but for a command that asks about others."""
    items: Path
    """Item summaries."""
    users: Path
    """User summaries as they were written."""
    user_summaries: Path
    """User summaries as prompts show them: ``users``, or the truncated ones."""
    dataset: Path
    """The LLaMA-Factory dataset."""
    train: Path
    """The trained weights."""
    candidates: Path | None = None
    """Folder of the candidates that are scored, of examples in ``data``; None: that folder itself."""
