"""SASRec through RecTools: a small transformer over item ids, on one CPU thread."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from msr_adapter.arrays import Floats, Integers, Mask
from msr_adapter.config.schema import SASRecConfig
from msr_adapter.evaluate.baselines.training_log import BaselineLog, Queries, gather
from msr_adapter.progress import Advance

_HEADS = 1
_BLOCKS = 2
_SMALLEST_BATCH, _LARGEST_BATCH = 32, 256
_STEPS = 64
"""Updates per epoch that the batch size aims for, within its limits: small logs need many, large ones get time."""
_FULL_SOFTMAX = 4000
"""Catalogues up to this size are normalised over in full; larger ones over sampled negatives."""
_NEGATIVES = 256


def sasrec_scores(log: BaselineLog, queries: Queries, settings: SASRecConfig, seed: int, advance: Advance) -> Floats:
    """Score candidates (n,) by a transformer that reads the history; ``advance(1)`` is called after every epoch.

    Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018, with a softmax over items as loss. An item
    that training never saw ranks below all others; a history without a known item leaves its candidates tied.
    """
    with _alone(seed):
        model = _fitted(log, queries.longest, settings, advance)
        users, items, known = _embed(model, queries, log.items)
    scores = gather(queries, log.items, lambda first, last: users[first:last] @ items.T)
    unseen = ~known[queries.candidates]
    if unseen.any() and not unseen.all():
        scores[unseen] = scores[~unseen].min() - 1  # their vectors were never trained
    # `reduceat` refuses to start beyond the end, as an empty last history would: hence one more False.
    lost = np.add.reduceat(np.append(known[queries.history], False), queries.history_offsets[:-1]) == 0
    scores[np.repeat(lost, np.diff(queries.offsets))] = 0
    return scores


@contextlib.contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Fix torch's seed and threads and keep Lightning's advice off the terminal; all as before afterwards."""
    import pytorch_lightning

    threads, voice = torch.get_num_threads(), logging.getLogger(pytorch_lightning.__name__)
    level = voice.level
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on data loaders' workers and unused GPUs, and RecTools' pandas idioms
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        voice.setLevel(logging.ERROR)
        try:
            yield
        finally:
            voice.setLevel(level)
            torch.set_num_threads(threads)


def _fitted(log: BaselineLog, longest: int, settings: SASRecConfig, advance: Advance) -> Any:
    from pytorch_lightning import Callback, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    class EpochProgress(Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            advance(1)

    def trainer() -> Any:
        return Trainer(
            max_epochs=settings.epochs, accelerator="cpu", devices=1, callbacks=[EpochProgress()], logger=False,
            enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        )  # fmt: skip

    # The rows are in order already; RecTools sorts by a date, stably, so one date for all keeps it.
    rows = pd.DataFrame({Columns.User: log.user, Columns.Item: log.item, Columns.Weight: 1.0})
    rows[Columns.Datetime] = pd.Timestamp(0)
    sampled = {} if log.items <= _FULL_SOFTMAX else {"loss": "sampled_softmax", "n_negatives": _NEGATIVES}
    batch = min(max(log.users // _STEPS, _SMALLEST_BATCH), _LARGEST_BATCH)
    model = SASRecModel(
        n_blocks=_BLOCKS, n_heads=_HEADS, n_factors=settings.dim, session_max_len=longest, batch_size=batch,
        epochs=settings.epochs, get_trainer_func=trainer, recommend_torch_device="cpu", **sampled,
    )  # fmt: skip
    return model.fit(Dataset.construct(rows))


def _embed(model: Any, queries: Queries, items: int) -> tuple[Floats, Floats, Mask]:
    """Return user vectors (users, dim), item vectors (items, dim), and which items the model knows (items,)."""
    known, place = np.zeros(items, dtype=bool), np.zeros(items, np.int64)
    external = model.data_preparator.get_known_item_ids().astype(np.int64)
    known[external] = True
    place[external] = model.data_preparator.get_known_items_sorted_internal_ids()
    network = model.torch_model.eval()
    with torch.no_grad():
        vectors = network.item_model.get_all_embeddings()
        sessions = torch.split(torch.from_numpy(_sessions(queries, known, place)), 1024)
        users = torch.cat([network.encode_sessions({"x": some}, vectors)[:, -1, :] for some in sessions])
        users = network.similarity_module.session_tower_forward(users)
        towers = network.similarity_module.item_tower_forward(vectors)
    return users.double().numpy(), towers.double().numpy()[place], known


def _sessions(queries: Queries, known: Mask, place: Integers) -> Integers:
    """Return the known items of each history in the model's numbers, right-aligned, 0 before them: (users, longest)."""
    sessions = np.zeros((queries.users, queries.longest), np.int64)
    for row, (first, last) in enumerate(zip(queries.history_offsets[:-1], queries.history_offsets[1:], strict=True)):
        items = queries.history[first:last]
        items = place[items[known[items]]]
        sessions[row, queries.longest - len(items) :] = items
    return sessions
