"""Recall of every retriever on the test users of a pipeline, by the stages themselves.

With another model than the run's own to embed, nothing is trained.

    python benchmarks/recall.py PIPELINE [--set KEY=VALUE ...] [--run-dir FOLDER] [--top N ...]
"""

import argparse
from pathlib import Path

from msr_adapter.config.loader import load_pipeline
from msr_adapter.evaluate.table_retrieval import read_recalls
from msr_adapter.metrics import mean_interval
from msr_adapter.pipeline import run
from msr_adapter.progress import Reporter

NAMES = ("popular", "item-knn", "embedding", "fused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--top", type=int, nargs="+", default=[20, 50, 200])
    asked = parser.parse_args()
    found = {}
    for top in asked.top:
        full = f"evaluate.full={{retriever: popularity, top: {top}, compare: [{', '.join(NAMES)}]}}"
        loaded = load_pipeline(asked.pipeline, (*asked.set, full), asked.run_dir)
        run(loaded, ("retrieve",), reporter=Reporter())
        found[top] = read_recalls(loaded.run_dir / "retrieve")
    print("| recall@ | " + " | ".join(NAMES) + " |\n|" + "---|" * (len(NAMES) + 1))
    for top, recalls in found.items():
        cells = []
        for name in NAMES:
            low, high = mean_interval(recalls[name], 0.95)
            cells.append(f"{recalls[name].mean():.3f} ({low:.3f} to {high:.3f})".replace("0.", "."))
        print(f"| {top} | " + " | ".join(cells) + " |")
    print(f"{len(next(iter(found[asked.top[0]].values()))):,} test users")


if __name__ == "__main__":
    main()
