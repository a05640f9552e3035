"""``python -m msr_adapter.demo OUT``: build the tiny base model again."""

import argparse
from pathlib import Path

from msr_adapter.demo.build import STEPS, build_base
from msr_adapter.progress import Reporter


def main() -> None:
    """Build into OUT and print the exam."""
    parser = argparse.ArgumentParser(prog="python -m msr_adapter.demo", description=main.__doc__)
    parser.add_argument("out", type=Path, help="folder for the finished model")
    parser.add_argument("--steps", type=int, default=STEPS, help="batches of 32 lessons (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and lessons (default: %(default)s)")
    options = parser.parse_args()
    reporter = Reporter()
    card = build_base(options.out, options.steps, options.seed, reporter)
    reporter.note(", ".join(f"{name} {mark:.3f}" for name, mark in card["exam"].items()))


if __name__ == "__main__":
    main()
