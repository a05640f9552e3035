"""A pipeline of 400 users and 300 items whose model answers by script, and a table of 100,000 pairs of them."""

import random
from pathlib import Path
from typing import Any

import polars as pl

from msr_adapter.progress import Reporter
from msr_adapter.workflows.score_pairs import PairsRequest
from msr_adapter.workflows.score_pairs.workflow import score_table
from tests.support.recommending import DAY, START, YAML, load, write

USERS, ITEMS, PAIRS = 400, 300, 100_000


def write_wide_pipeline(folder: Path) -> None:
    """Write the log and the items; a user interacts with five of them."""
    (folder / "scripted.yaml").write_text(YAML)
    rows = [(f"u{user}", f"i{(user * 7 + place * 11) % ITEMS}", START + DAY * (10 * user + place))
            for user in range(USERS) for place in range(5)]  # fmt: skip
    write(folder / "log.csv", ("user_id", "item_id", "timestamp"), rows)
    write(folder / "items.csv", ("item_id", "title"), [(f"i{item}", f"Title {item}") for item in range(ITEMS)])


def write_pairs_table(folder: Path, rows: int = PAIRS) -> Path:
    """Write 100,000 rows, or fewer, in no order, some of them twice, with other columns before, between and behind."""
    draw = random.Random(7)
    numbers = [draw.randrange(USERS * ITEMS) for _ in range(rows)]
    columns = {
        "event": [f"e{row:06}" for row in range(rows)],
        "user_id": [f"u{number // ITEMS}" for number in numbers],
        "place": [str(row % 17) for row in range(rows)],
        "item_id": [f"i{number % ITEMS}" for number in numbers],
        "note": [f'said "{row}", twice' if row % 3 else "" for row in range(rows)],
    }
    path = folder / "pairs.csv"
    pl.DataFrame(columns).write_csv(path)
    return path


def score_rows(folder: Path, out: Path, reporter: Reporter | None = None, **more: Any) -> dict[str, Any]:
    """Score the table of ``folder`` by its pipeline; return the counts."""
    wanted = PairsRequest(**{"pairs": folder / "pairs.csv", "out": out, "overwrite": True, **more})
    return score_table(load(folder / "pipeline", folder), wanted, reporter or Reporter(quiet=True))
