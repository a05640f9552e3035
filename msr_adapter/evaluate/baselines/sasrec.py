"""SASRec through RecTools: a small transformer over item ids, trained on whole logs by one CPU thread."""

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from msr_adapter.arrays import Floats, Integers, Mask
from msr_adapter.config.schema import SASRecConfig
from msr_adapter.evaluate.baselines.training_log import BaselineLog, CatalogueScorer, Fit, Queries

_HEADS = 1
_BLOCKS = 2
_LENGTH, _COVERED = 50, 0.95
"""Items it reads at most: as published for logs that are not dense, or what holds that share of the logs."""
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 256
_STEPS = 64
"""Updates per epoch that the batch size aims for, within its limits: small logs need many, large ones get time."""
_BATCH_NUMBERS = 2**25
"""Largest array of a batch: logits over the catalogue, or vectors of sampled items."""
_FULL_SOFTMAX = 4000
"""Catalogues up to this size are normalised over in full; larger ones over sampled negatives."""
_NEGATIVES = 256


def settle_sasrec(settings: SASRecConfig, log: BaselineLog) -> SASRecConfig:
    """Return the settings with the length and the negatives that they come to on this log (null = the catalogue)."""
    lengths = np.bincount(log.user, minlength=log.users)
    # One item of a log is only predicted, never read.
    enough = max(1, int(np.quantile(lengths, _COVERED, method="inverted_cdf")) - 1)
    longest = max(1, int(lengths.max()) - 1)
    length = min(_LENGTH, enough) if settings.length is None else min(settings.length, longest)
    negatives = settings.negatives or (None if len(log.trained()) <= _FULL_SOFTMAX else _NEGATIVES)
    return settings.model_copy(update={"length": length, "negatives": negatives})


def fit_sasrec(fit: Fit, settings: SASRecConfig) -> CatalogueScorer:
    """Train a transformer that reads the history; ``fit.advance(1)`` is called after every epoch.

    Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018. With a judge, training ends after
    ``settings.patience`` epochs that were not better than the best, which is kept; else after ``settings.epochs``. An
    item that training never saw ranks below all others; a history without a known item leaves all items tied.
    ``settings`` are settled (`settle_sasrec`).
    """
    with _alone(fit.seed):
        return _fitted(fit, settings).score


@contextlib.contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Fix torch's seed and threads and keep Lightning's advice off the terminal; all as before afterwards."""
    import pytorch_lightning

    voice = logging.getLogger(pytorch_lightning.__name__)
    level = voice.level
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), _one_thread():
        warnings.simplefilter("ignore")  # advice on data loaders' workers and unused GPUs, and RecTools' pandas idioms
        torch.manual_seed(seed)
        voice.setLevel(logging.ERROR)
        try:
            yield
        finally:
            voice.setLevel(level)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums over threads differ in their last bits: one thread gives equal bits everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def sessions_of(log: BaselineLog, length: int) -> tuple[Integers, Integers]:
    """Return (session, item) of each row to learn from: whole logs, in pieces of at most ``length`` + 1 items.

    Pieces are cut from a log's end, as the published model cuts its only one. A piece begins with the last item of the
    piece before, so that every item but a log's first is predicted once.
    """
    lengths = np.bincount(log.user, minlength=log.users)
    back = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(log.user))  # 0 = the last of its log
    shared = (back % length == 0) & (back > 0)
    alone = shared & (back == np.repeat(lengths, lengths) - 1)  # the first of a log, in no piece but the next
    rows = np.concatenate([np.flatnonzero(~alone), np.flatnonzero(shared)])
    piece = np.concatenate([back[~alone] // length, back[shared] // length - 1])
    order = np.lexsort((-back[rows], -piece, log.user[rows]))
    rows, piece = rows[order], piece[order]
    first = np.concatenate([[True], (np.diff(log.user[rows]) != 0) | (np.diff(piece) != 0)])
    return np.cumsum(first) - 1, log.item[rows]


@dataclass
class _Best:
    """The weights of the best epoch so far."""

    value: float = -np.inf
    weights: dict[str, Any] = field(default_factory=dict)
    waited: int = 0
    """Epochs since then."""


def _fitted(fit: Fit, settings: SASRecConfig) -> "_Ranker":
    from pytorch_lightning import Callback, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    log, length, best = fit.log, settings.length or _LENGTH, _Best()

    # The trainer copies its callbacks deeply: what they learn is kept outside, in `best`.
    class EndOfEpoch(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            fit.advance(1)
            if fit.judge is None:
                return
            value = fit.judge(_Ranker(module.torch_model.eval(), module.data_preparator, log.items, length).score)
            module.torch_model.train()
            best.waited += 1
            if value > best.value:
                best.value, best.waited = value, 0
                best.weights = copy.deepcopy(module.torch_model.state_dict())
            if best.waited >= settings.patience:
                trainer.should_stop = True
                fit.advance(settings.epochs - trainer.current_epoch - 1)

    def trainer() -> Any:
        return Trainer(
            max_epochs=settings.epochs, accelerator="cpu", devices=1, callbacks=[EndOfEpoch()], logger=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip

    session, item = sessions_of(log, length)
    # The rows are in order already; RecTools sorts by a date, stably, so one date for all keeps it.
    rows = pd.DataFrame({Columns.User: session, Columns.Item: item, Columns.Weight: 1.0})
    rows[Columns.Datetime] = pd.Timestamp(0)
    model = SASRecModel(
        n_blocks=_BLOCKS, n_heads=_HEADS, n_factors=settings.dim, session_max_len=length, epochs=settings.epochs,
        dropout_rate=settings.dropout, lr=settings.learning_rate, get_trainer_func=trainer,
        recommend_torch_device="cpu", batch_size=_batch_size(int(session[-1]) + 1, len(log.trained()), settings),
        **_loss(settings),
    )  # fmt: skip
    model.fit(Dataset.construct(rows))
    if best.weights:
        model.torch_model.load_state_dict(best.weights)
    return _Ranker(model.torch_model.eval(), model.data_preparator, log.items, length)


def _loss(settings: SASRecConfig) -> dict[str, Any]:
    if settings.negatives is None:
        return {"loss": "softmax"}
    return {"loss": "BCE" if settings.negatives == 1 else "sampled_softmax", "n_negatives": settings.negatives}


def _batch_size(sessions: int, items: int, settings: SASRecConfig) -> int:
    of_a_place = items if settings.negatives is None else (settings.negatives + 1) * settings.dim
    most = max(1, _BATCH_NUMBERS // (of_a_place * (settings.length or _LENGTH)))
    return min(max(sessions // _STEPS, _SMALLEST_BATCH), _LARGEST_BATCH, most)


class _Ranker:
    """A network as it is now, as a scorer of the catalogue."""

    def __init__(self, network: Any, preparator: Any, items: int, length: int) -> None:
        """Read the vectors of ``network``, in evaluation mode."""
        self.known, self._place = np.zeros(items, dtype=bool), np.zeros(items, np.int64)
        external = preparator.get_known_item_ids().astype(np.int64)
        self.known[external] = True
        self._place[external] = preparator.get_known_items_sorted_internal_ids()
        self._network, self._length = network, length
        with torch.no_grad(), _one_thread():
            self._vectors = network.item_model.get_all_embeddings()
            self._towers = network.similarity_module.item_tower_forward(self._vectors).double().numpy()[self._place]

    def score(self, queries: Queries, first: int, last: int) -> Floats:
        """Return scores (last - first, items): see `CatalogueScorer`."""
        sessions, found = self._sessions(queries, first, last)
        with torch.no_grad(), _one_thread():
            parts = torch.split(torch.from_numpy(sessions), 1024)
            users = torch.cat([self._network.encode_sessions({"x": some}, self._vectors)[:, -1, :] for some in parts])
            users = self._network.similarity_module.session_tower_forward(users)
        scores: Floats = users.double().numpy() @ self._towers.T
        if not self.known.all():
            scores[:, ~self.known] = scores[:, self.known].min(axis=1, keepdims=True) - 1  # vectors never trained
        scores[~found] = 0
        return scores

    def _sessions(self, queries: Queries, first: int, last: int) -> tuple[Integers, Mask]:
        """Return the latest known items of each history in the network's numbers, and who has one.

        They are right-aligned, 0 before them: (last - first, length).
        """
        sessions = np.zeros((last - first, self._length), np.int64)
        for row, user in enumerate(range(first, last)):
            items = queries.history[queries.history_offsets[user] : queries.history_offsets[user + 1]]
            items = self._place[items[self.known[items]]][-self._length :]
            sessions[row, self._length - len(items) :] = items
        return sessions, sessions[:, -1] > 0
