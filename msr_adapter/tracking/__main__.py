"""One delivery: `python -m msr_adapter.tracking OUTBOX SECONDS`; prints a `DeliveryReport` as its last line."""

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from msr_adapter.tracking.delivery import deliver

if __name__ == "__main__":
    # However its parent ends: a client that hangs is ended by the kernel.
    signal.alarm(max(1, round(float(sys.argv[2]))))
    told = deliver(Path(sys.argv[1]))
    sys.stdout.write(f"\n{json.dumps(asdict(told))}\n")
    sys.stdout.flush()
