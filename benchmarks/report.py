"""The report of many users: the seconds to write it, its megabytes, and the seconds until a browser shows the explorer.

Workload: 5,000 test users x 21 candidates, histories of 9 items read in 3 blocks, texts of 80 words, 2,016 items with
photograph-like images of 160 x 160 pixels. Opening is measured in a fresh headless Chromium, from the address until the
explorer shows its first user; the best of three, because the machine may be shared.

    python benchmarks/report.py [--users N] [--json]
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from msr_adapter.config.schema import ConfidenceConfig, ProtocolConfig
from tests.support.browser import launched, opened
from tests.support.many_users import make_many

PROTOCOL = ProtocolConfig(name="next-item", slices=(), confidence=ConfidenceConfig(samples=100))
GOAL_MB, GOAL_S = 25, 3
REPEATS = 3


def measure(folder: Path, users: int) -> dict[str, float]:
    run = make_many(folder, users)
    started = time.perf_counter()
    run.evaluate(PROTOCOL, baselines=("random", "popularity"), score_dirs={"trained": run.trained})
    written = time.perf_counter() - started
    report = run.root / "evaluate" / "report.html"
    return {
        "users": users,
        "evaluate_s": round(written, 1),
        "report_mb": round(report.stat().st_size / 1e6, 1),
        "open_s": round(min(open_seconds(report, folder / f"profile{number}") for number in range(REPEATS)), 2),
    }


def open_seconds(report: Path, profile: Path) -> float:
    profile.mkdir()
    with launched(profile) as browser, opened(browser) as view:
        started = time.perf_counter()
        view.open(report)
        view.page.wait_for_selector("#user .image")
        seconds = time.perf_counter() - started
        if view.errors:
            raise RuntimeError(view.errors)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.users)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['users']:,} users x 21 candidates")
    print(f"evaluate, report included: {found['evaluate_s']:.1f} s")
    print(f"report: {found['report_mb']:.1f} MB (goal: under {GOAL_MB})")
    print(f"opened: {found['open_s']:.2f} s, best of {REPEATS} (goal: under {GOAL_S})")


if __name__ == "__main__":
    main()
