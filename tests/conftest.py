"""Threads are pinned before any test imports a numeric library: tiny models on a shared machine run best on one."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("POLARS_MAX_THREADS", "2")
