"""The image store: threads against processes, and against a plain loop of open, convert, thumbnail, save.

Workload: photographs (1600 x 1200, JPEG quality 90; one in eight a PNG of 800 x 600) of smooth shapes and noise, shrunk
to the default budget. The stores of threads and processes must be equal, byte for byte, before anything is timed.

    python benchmarks/images.py [--full] [--json]
"""

# ruff: noqa: E402 - threads are pinned before NumPy is imported
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from msr_adapter.config.schema import ImagesConfig
from msr_adapter.data.images.locate import images_in
from msr_adapter.data.images.store import ImageStore, StoredImage, store_all
from msr_adapter.progress import Reporter
from msr_adapter.system import cpu_count

DEFAULT_IMAGES, FULL_IMAGES = 48, 1_000
LIMITS = ImagesConfig()


def make_workload(folder: Path, images: int) -> list[str]:
    """Write the photographs and return their item ids."""
    generator = np.random.default_rng(0)
    folder.mkdir()
    for number in range(images):
        size, suffix = ((800, 600), "png") if number % 8 == 0 else ((1600, 1200), "jpg")
        shapes = Image.fromarray(generator.integers(0, 255, (6, 8, 3), dtype=np.uint8)).resize(size, 3)
        noise = generator.integers(-12, 12, (size[1], size[0], 1), dtype=np.int16)
        pixels = np.clip(np.asarray(shapes).astype(np.int16) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05}.{suffix}", quality=90)
    return [f"{number:05}" for number in range(images)]


def plain_loop(folder: Path, ids: list[str], out: Path) -> int:
    """Do what scripts do: no limits, no orientation, no reasons, files named by item."""
    out.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            rgb = image.convert("RGB")
            scale = min(1.0, (LIMITS.max_pixels / (rgb.width * rgb.height)) ** 0.5)
            size = (int(rgb.width * scale), int(rgb.height * scale))
            rgb.resize(size, Image.Resampling.LANCZOS).save(out / f"{path.stem}.jpg", quality=95)
    return len(ids)


def threads(folder: Path, ids: list[str], out: Path, workers: int) -> list[StoredImage]:
    """Store with our threads."""
    return store_all(ids, images_in(folder, ids), ImageStore(out, LIMITS), Reporter(quiet=True), workers)


def processes(folder: Path, ids: list[str], out: Path, workers: int) -> list[StoredImage]:
    """Store with one process per core, each of which stores its share in one thread."""
    share = -(-len(ids) // (workers * 4))
    parts = [ids[start : start + share] for start in range(0, len(ids), share)]
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(_part, [folder] * len(parts), parts, [out] * len(parts))
        return [stored for part in results for stored in part]


def _part(folder: Path, ids: list[str], out: Path) -> list[StoredImage]:
    return threads(folder, ids, out, 1)


def interleave(
    ways: Mapping[str, Callable[[Path], object]], scratch: Path, repeats: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return each way's median seconds and CPU seconds; the ways take turns, so that a busy minute hits all of them."""
    fresh = (scratch / f"out{n}" for n in count())
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            started, cpu = time.perf_counter(), sum(os.times()[:4])
            way(next(fresh))
            seconds[name].append(time.perf_counter() - started)
            busy[name].append(sum(os.times()[:4]) - cpu)
    return _medians(seconds), _medians(busy)


def _medians(lists: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in lists.items()}


def measure(images: int, repeats: int) -> dict[str, Any]:
    """Assert equal stores, then time; peak memory is that of the threads."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        folder, n = scratch / "photographs", cpu_count()
        ids = make_workload(folder, images)
        stored = threads(folder, ids, scratch / "a", n)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        assert stored == processes(folder, ids, scratch / "b", n) == threads(folder, ids, scratch / "c", 1)
        assert not any(one.fault for one in stored)
        seconds, busy = interleave(
            {
                "plain loop": partial(plain_loop, folder, ids),
                "ours, one thread": partial(threads, folder, ids, workers=1),
                f"ours, {n} threads": partial(threads, folder, ids, workers=n),
                f"ours, {n} processes": partial(processes, folder, ids, workers=n),
            },
            scratch,
            repeats,
        )
    return _result(images, n, seconds, busy, peak)


def _result(images: int, n: int, seconds: dict[str, float], busy: dict[str, float], peak: float) -> dict[str, Any]:
    ours = seconds[f"ours, {n} threads"]
    return {
        "workload": f"images: {images} photographs into the store, {n} cores",
        "ratio": seconds["plain loop"] / ours,
        "ours_s": ours,
        "baseline_s": seconds["plain loop"],
        "limit_ratio": ours / (seconds["ours, one thread"] / n),
        "processes_ratio": seconds[f"ours, {n} processes"] / ours,
        "counts": {"images": images, "images_per_second": round(images / ours, 1)},
        "peak_rss_mb": peak,
        "seconds": seconds,
        "cpu_seconds": busy,
    }


def main() -> None:
    """Print a table, and with ``--json`` one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help=f"{FULL_IMAGES:,} images instead of {DEFAULT_IMAGES:,}")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    options = parser.parse_args()
    result = measure(FULL_IMAGES if options.full else DEFAULT_IMAGES, repeats=3)
    print(result["workload"])
    for name, seconds in result["seconds"].items():
        print(f"  {name:24} {seconds:9.3f} s  {result['cpu_seconds'][name]:9.3f} s of CPU")
    print(f"  ours is {result['ratio']:.1f}x faster than the loop ({result['counts']['images_per_second']} images/s); "
          f"processes take {result['processes_ratio']:.2f} of our time; "
          f"ours takes {result['limit_ratio']:.2f} of one thread's time / cores; "
          f"peak {result['peak_rss_mb']:.0f} MB")  # fmt: skip
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
