"""Small inputs for the audit's checks, made by hand: one example per user, whose target is the last item."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from msr_adapter.config.schema import SplitConfig
from msr_adapter.data.audit.audited_data import AuditInputs
from msr_adapter.data.audit.report import Audit
from msr_adapter.data.examples import Examples
from msr_adapter.data.images.store import StoredImage
from msr_adapter.data.interaction_log import Log
from msr_adapter.data.negatives.candidates import Candidates
from msr_adapter.data.tables import ItemCatalogue

TRAIN, VALIDATION, TEST = 0, 1, 2
NEW_YEAR = 1_704_067_200_000


@dataclass(frozen=True)
class User:
    """A user's items, oldest first, the target last; the negatives; where the target stands among them."""

    split: int
    items: Sequence[int]
    negatives: Sequence[int] = (0,)
    times: Sequence[int] | None = None
    place: int = 0


def evidence(
    users: Sequence[User], titles: Sequence[str] = (), images: Sequence[str | None] = (), kind: str = "user-holdout"
) -> AuditInputs:
    """Return what the checks look at; training knows the logs of training users. Times are a second apart."""
    users = sorted(users, key=lambda user: user.split)
    lengths = np.array([len(user.items) for user in users])
    n_items = max([len(titles), *(item + 1 for user in users for item in (*user.items, *user.negatives))])
    item = np.array([item for user in users for item in user.items], dtype=np.int32)
    owner = np.repeat(np.arange(len(users), dtype=np.int32), lengths)
    given = [time for user in users for time in user.times or ()]
    time = np.array(given or [NEW_YEAR + 1000 * row for row in range(len(item))], dtype=np.int64)
    log = Log(ids("u", len(users)), ids("i", n_items), owner, item, time)
    split = np.array([user.split for user in users])
    end = np.cumsum(lengths)
    training = split[owner] == TRAIN
    stored = [StoredImage(path=image and f"images/{image}.png", digest=image) for image in images] or [
        StoredImage()
    ] * n_items
    names = list(titles) or [f"thing{item}" for item in range(n_items)]
    return AuditInputs(
        log, Examples(split, np.arange(len(users)), end - 1, end - lengths, end - 1), training,
        np.bincount(item[training], minlength=n_items), candidates(users),
        ItemCatalogue(log.items.to_list(), names, [""] * n_items, [None] * n_items), stored, SplitConfig(kind=kind),
        seed=0,
    )  # fmt: skip


def candidates(users: Sequence[User]) -> Candidates:
    lists = [[*user.negatives[: user.place], user.items[-1], *user.negatives[user.place :]] for user in users]
    labels = [[int(place == user.place) for place in range(len(row))] for user, row in zip(users, lists, strict=True)]
    return Candidates(
        np.repeat(np.arange(len(users)), [len(row) for row in lists]),
        np.array([item for row in lists for item in row], dtype=np.int32),
        np.array([label for row in labels for label in row], dtype=np.int8),
    )


def ids(letter: str, number: int) -> pl.Series:
    return pl.Series([f"{letter}{code:04}" for code in range(number)])


def topics(check: Callable[[AuditInputs, Audit], Any], e: AuditInputs, **counts: int) -> dict[str, str]:
    """Return topic -> severity of what a check finds."""
    audit = Audit(counts=counts)
    check(e, audit)
    return {finding["topic"]: finding["severity"] for finding in audit.findings}


def text(check: Callable[[AuditInputs, Audit], Any], e: AuditInputs) -> str:
    audit = Audit()
    check(e, audit)
    return " ".join(finding["text"] for finding in audit.findings)
