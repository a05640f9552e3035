"""Where the checkout's files lie, from wherever a test stands."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests" / "goldens"


def shared_data(name: str) -> Path:
    """Return the folder of a real data set; it may be absent."""
    named = os.environ.get("MSR_SHARED_DATA")
    return (Path(named) if named else ROOT.parent / "shared" / "data") / name
