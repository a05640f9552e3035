"""``python -m msr_adapter`` is ``msr``."""

from msr_adapter.cli import main

main()
