"""The events of a run as tables: what each word means, the word of every row of the log and of every history."""

from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa

from msr_adapter import schema
from msr_adapter.arrays import Mask, Rows
from msr_adapter.data.examples import Examples
from msr_adapter.data.explicit_negatives import rejected_now
from msr_adapter.data.interaction_log import Log, degree
from msr_adapter.event_schemas import EVENT_WORDS, EVENTS, HISTORY_EVENTS
from msr_adapter.files import digest
from msr_adapter.integrity import content_of

_LISTS = 1 << 15
"""Histories that are numbers at the same time."""


class EventFacts(TypedDict):
    """What the manifest says of the events: digests, of which a stage counts what it looks at."""

    said: str
    """Of what templates may call the events of the histories."""
    weights: NotRequired[str]
    """Of what the rows and the events of the histories count; absent where all count 1."""


def popularity_of(log: Log, rows: Mask) -> Rows:
    """Return how often each item stands in the ``rows`` of the log (items,), or the units that its events weigh."""
    if log.event is None or log.events is None or not log.events.weighs:
        return degree(log.item[rows], len(log.items))
    weights = log.events.units[log.event[rows]]
    # Sums of whole numbers are exact far beyond any log.
    return np.bincount(log.item[rows], weights=weights, minlength=len(log.items)).astype(np.int64)


def write_events(log: Log, examples: Examples, out: Path) -> EventFacts | None:
    """Write the three tables of events; nothing for a source without any."""
    if log.event is None or log.events is None:
        return None
    said, event = log.events, log.event
    words = {
        "event": np.arange(len(said.words), dtype=np.int8), "word": list(said.words), "said": list(said.said),
        "weight": np.array(said.weights, dtype=np.float64), "units": said.units, "negative": said.are("negative"),
    }  # fmt: skip
    schema.write_table(pa.table(words).cast(EVENT_WORDS), EVENT_WORDS, out / "event_words.parquet")
    # Where repeats are kept, a history is all that happened.
    gone = np.zeros(len(event), dtype=bool) if log.keeps else rejected_now(log)
    rows = pa.table({"event": event, "rejected": gone})
    schema.write_table(rows, EVENTS, out / "events.parquet")

    def lists(found: tuple[Rows, Rows]) -> pa.ListArray:
        return pa.ListArray.from_arrays(pa.array(found[0], pa.int32()), pa.array(event[found[1]], pa.int8()))

    parts = (slice(begin, min(begin + _LISTS, len(examples))) for begin in range(0, len(examples), _LISTS))
    chunks = (
        pa.table({"example_id": np.arange(part.start, part.stop), "history": lists(examples.histories(part)),
                  "earlier": lists(examples.earlier(part))})
        for part in parts
    )  # fmt: skip
    schema.write_chunks(chunks, HISTORY_EVENTS, out / "history_events.parquet")
    of_histories = content_of(out / "history_events.parquet")
    facts = EventFacts(said=digest([list(said.said), of_histories]))
    if said.weighs:
        facts["weights"] = digest([list(said.weights), content_of(out / "events.parquet"), of_histories])
    return facts
