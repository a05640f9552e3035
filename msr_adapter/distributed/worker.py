"""What a worker does, wherever it runs: it makes the backend once and answers one shard after another."""

import copy
import pickle
from collections.abc import Sequence
from pathlib import Path

from msr_adapter.distributed.worker_messages import BackendRecipe, Done, Raised, node, versions
from msr_adapter.errors import MsrError, StageError
from msr_adapter.files import file_digest
from msr_adapter.generation.request import Answer, Backend, BackendWrapper, EngineLostError, Follow, Request, ends_there
from msr_adapter.generation.request_shards import Keep, Shard, keep_nothing
from msr_adapter.generation.scoring_stats import ScoringStats
from msr_adapter.progress import Advance

_SAME_PATH = "it must be readable at the same path on every node (docs/distribution.md)"


class Worker:
    """Answers shards with one backend; the model is loaded at the first one and stays."""

    def __init__(self, recipe: BackendRecipe) -> None:
        self._recipe = recipe
        self._backend: Backend | None = None
        self._reported = ScoringStats()

    def work(self, number: int, payload: bytes, report: Advance, keep: Keep = keep_nothing) -> Done | Raised:
        """Answer the pickled shard; ``report`` takes the number of answers so far, ``keep`` those of a slow shard.

        Raises `EngineLostError` alone: this process is of no use any more, and another one takes the shard.
        """
        try:
            if self._backend is None:
                self._backend = _make(self._recipe)
            shard: Shard = pickle.loads(payload)
            answers = shard.run(self._backend, report, keep)
            # The driver adds up what all workers report, so each report holds only what is new since the last one. A
            # copy, because the backend goes on counting in the same object.
            before, self._reported = self._reported, copy.deepcopy(self._backend.stats or ScoringStats())
            return Done(number, answers, self._reported.since(before))
        except EngineLostError:
            raise
        except Exception as error:
            return Raised.of(number, error)


def _make(recipe: BackendRecipe) -> Backend:
    """Return the driver's backend, or raise `StageError` that says in what this machine's differs."""
    backend = recipe.make()
    try:
        identity = backend.identity
    except (MsrError, OSError) as error:
        raise StageError(f"{node()}: the model cannot be read there ({error})", _SAME_PATH) from error
    if identity != recipe.identity:
        # Library versions are part of the identity: name them first, they are the likeliest difference.
        here, there = recipe.versions, versions()
        names = sorted(name for name in {*here, *there} if here.get(name) != there.get(name))
        other = ", ".join(f"{name} {there.get(name, 'absent')} for {here.get(name, 'absent')}" for name in names)
        raise StageError(
            f"{node()}: the model there is not the one here{f' ({other})' if other else ''}",
            "other libraries" if other else "other weights, or copies of large files that were dated anew",
            "install the same versions on every node" if other else f"compare the model's folder; {_SAME_PATH}",
        )
    return _ImageChecking(backend) if recipe.shared else backend


class _ImageChecking(BackendWrapper):
    """A backend that checks its images first: on another machine their paths may hold other files."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._seen: set[tuple[Path, str]] = set()

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> Sequence[Answer]:
        """As `Backend.complete`; raises `StageError` for an image that is not here, or another one."""
        return self._backend.complete(self._checked(requests), lambda answer: self._checked(follow(answer)))

    def _checked(self, requests: Sequence[Request]) -> Sequence[Request]:
        new = {(image.path, image.digest) for request in requests for image in request.images} - self._seen
        for path, digest in sorted(new):
            if not path.is_file():
                raise StageError(f"{node()}: {path} is not there", "this node does not share the folder", _SAME_PATH)
            if file_digest(path) != digest:
                raise StageError(f"{node()}: {path} is another image there", "an older copy", _SAME_PATH)
        self._seen |= new
        return requests
