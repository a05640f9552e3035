"""The tables of a log with events, beside those in `schema`: absent where the source has none."""

import pyarrow as pa

EVENT_WORDS = pa.schema(
    [
        pa.field("event", pa.int8(), nullable=False),  # 0..n-1: the number of the word
        pa.field("word", pa.string(), nullable=False),  # as the log has it
        pa.field("said", pa.string(), nullable=False),  # as templates have it
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("units", pa.int64(), nullable=False),  # the weight in the unit in which popularity is counted
        pa.field("negative", pa.bool_(), nullable=False),
    ]
)
"""What the numbers of events mean."""

EVENTS = pa.schema([pa.field("event", pa.int8(), nullable=False), pa.field("rejected", pa.bool_(), nullable=False)])
"""The event of each row of INTERACTIONS, in its order; `rejected`: the user's last word on the item is negative, so
that it stands in no history from now on."""

_events = pa.list_(pa.int8())
HISTORY_EVENTS = pa.schema(
    [
        pa.field("example_id", pa.int64(), nullable=False),
        pa.field("history", _events, nullable=False),  # of each item of the history in EXAMPLES
        pa.field("earlier", _events, nullable=False),  # of what stands before it
    ]
)
"""The events of the histories, by example_id."""
